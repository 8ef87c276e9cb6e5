// Along the channels of one pixel there is nothing to vectorise across and little to do (some ten thousand multiplies
// an image), so these are plain loops. Blocked [N,C,1,1] has an image's channels in one row, padded with zeros.

#include <algorithm>

#include "backends/cpu/kernels.h"

namespace resnet::cpu {
namespace {

struct Sizes {
  int64_t images, channels, row;  ///< row: channels with their padding
};

Sizes sizes_of(const ValueInfo& x) {
  const int64_t images = x.type.shape[0];
  return {images, x.type.shape[1], storage_elements(x.type.shape, x.layout) / std::max<int64_t>(images, 1)};
}

}  // namespace

std::unique_ptr<Kernel> make_channel_conv(const NodeRequest& request, CpuContext& context) {
  const bool flip = std::get<ChannelConvAttrs>(request.attributes).flip;
  return std::make_unique<SimdKernel>(
      [flip, s = sizes_of(request.in[0]), k = request.in[1].type.shape[2],
       threads = context.threads](const KernelCall& call) {
        const float* w = input(call, 1);
        const int64_t half = (k - 1) / 2;
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int64_t n = 0; n < s.images; ++n) {
          const float* x = input(call, 0) + n * s.row;
          float* y = output(call, 0) + n * s.row;
          for (int64_t c = 0; c < s.channels; ++c) {
            float sum = 0;
            for (int64_t j = std::max<int64_t>(0, half - c); j < std::min(k, s.channels + half - c); ++j)
              sum += w[flip ? k - 1 - j : j] * x[c + j - half];
            y[c] = sum;
          }
          std::fill(y + s.channels, y + s.row, 0.0f);
        }
      },
      0, "loops");
}

std::unique_ptr<Kernel> make_channel_conv_weight_grad(const NodeRequest& request, CpuContext& context) {
  return std::make_unique<SimdKernel>(
      [s = sizes_of(request.in[0]), k = request.out[0].type.shape[2],
       threads = context.threads](const KernelCall& call) {
        const float* x = input(call, 0);
        const float* dy = input(call, 1);
        float* dw = output(call, 0);
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int64_t j = 0; j < k; ++j) {
          const int64_t shift = j - (k - 1) / 2;
          double sum = 0;
          for (int64_t n = 0; n < s.images; ++n) {
            for (int64_t c = std::max<int64_t>(0, -shift); c < std::min(s.channels, s.channels - shift); ++c)
              sum += static_cast<double>(dy[n * s.row + c]) * static_cast<double>(x[n * s.row + c + shift]);
          }
          dw[j] = static_cast<float>(sum);
        }
      },
      0, "loops");
}

}  // namespace resnet::cpu
