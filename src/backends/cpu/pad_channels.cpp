#include "backends/cpu/kernels.h"

namespace resnet::cpu {
namespace {

std::unique_ptr<Kernel> make_shift(const NodeRequest& request, const CpuContext& context, int64_t offset) {
  return std::make_unique<SimdKernel>([size = map_size(request.in[0].type.shape),
                                       channels = request.out[0].type.shape[1], offset, &simd = context.simd,
                                       threads = context.threads](const KernelCall& call) {
    simd.shift_channels({.size = size,
                         .channels = channels,
                         .offset = offset,
                         .x = input(call, 0),
                         .y = output(call, 0),
                         .threads = threads});
  });
}

}  // namespace

std::unique_ptr<Kernel> make_pad_channels(const NodeRequest& request, CpuContext& context) {
  return make_shift(request, context, -std::get<ChannelPadAttrs>(request.attributes).before);
}

std::unique_ptr<Kernel> make_slice_channels(const NodeRequest& request, CpuContext& context) {
  return make_shift(request, context, std::get<ChannelPadAttrs>(request.attributes).before);
}

}  // namespace resnet::cpu
