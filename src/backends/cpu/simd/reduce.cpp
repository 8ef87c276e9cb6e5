// Sums per channel: gradients of biases.

#include "backends/cpu/simd/kernels.h"

namespace resnet::simd::RESNET_ISA {
namespace {

template <int B>
void channel_sum(const ChannelSum& args) {
  const MapSize& size = args.size;
  const int64_t blocks = ceil_div(size.C, B), pixels = size.H * size.W;
  const Parts parts = parts_of(size);
  double* partial = static_cast<double*>(args.scratch);  // [parts][blocks][B]
#pragma omp parallel num_threads(useful_threads(args.threads, size.N* blocks* pixels* B * 4))
  {
#pragma omp for schedule(static)
    for (int64_t item = 0; item < parts.count * blocks; ++item) {
      const int64_t part = item / blocks, block = item % blocks;
      double sum[B] = {};
      for (int64_t n = part * parts.images; n < smaller(size.N, (part + 1) * parts.images); ++n) {
        const float* x = args.x + (n * blocks + block) * pixels * B;
        for (int64_t p = 0; p < pixels; p += kRun) add_to<B>(sum, sum_of_run<B>(x + p * B, smaller(kRun, pixels - p)));
      }
      for (int b = 0; b < B; ++b) partial[item * B + b] = sum[b];
    }
#pragma omp for schedule(static)
    for (int64_t c = 0; c < size.C; ++c) {
      double sum = 0;
      for (int64_t part = 0; part < parts.count; ++part) sum += partial[part * blocks * B + c];
      args.sum[c] = static_cast<float>(sum);
    }
  }
}

void column_sum(const ColumnSum& args) {
  constexpr int64_t kStrip = 64;
  const int64_t strips = ceil_div(args.columns, kStrip);
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, args.rows* args.columns * 4))
  for (int64_t strip = 0; strip < strips; ++strip) {
    const int64_t first = strip * kStrip, width = smaller(kStrip, args.columns - first);
    double sum[kStrip] = {};
    for (int64_t row = 0; row < args.rows; ++row) {
      const float* x = args.x + row * args.columns + first;
      for (int64_t i = 0; i < width; ++i) sum[i] += static_cast<double>(x[i]);
    }
    for (int64_t i = 0; i < width; ++i) args.sum[first + i] = static_cast<float>(sum[i]);
  }
}

}  // namespace

template <int B>
void add_reduce(SimdKernels& table) {
  table.channel_sum = channel_sum<B>;
  table.column_sum = column_sum;
}
template void add_reduce<8>(SimdKernels&);
template void add_reduce<16>(SimdKernels&);

}  // namespace resnet::simd::RESNET_ISA
