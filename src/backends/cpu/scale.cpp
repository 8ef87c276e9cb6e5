#include "backends/cpu/kernels.h"

namespace resnet::cpu {

std::unique_ptr<Kernel> make_scale(const NodeRequest& request, CpuContext& context) {
  return std::make_unique<SimdKernel>([size = map_size(request.in[0].type.shape),
                                       per_image = request.in[1].type.shape.rank() == 1, &simd = context.simd,
                                       threads = context.threads](const KernelCall& call) {
    simd.scale({.size = size,
                .x = input(call, 0),
                .s = input(call, 1),
                .per_image = per_image,
                .y = output(call, 0),
                .threads = threads});
  });
}

std::unique_ptr<Kernel> make_scale_grad(const NodeRequest& request, CpuContext& context) {
  return std::make_unique<SimdKernel>([size = map_size(request.in[0].type.shape),
                                       per_image = request.out[0].type.shape.rank() == 1, &simd = context.simd,
                                       threads = context.threads](const KernelCall& call) {
    simd.scale_backward({.size = size,
                         .dy = input(call, 0),
                         .x = input(call, 1),
                         .per_image = per_image,
                         .ds = output(call, 0),
                         .threads = threads});
  });
}

}  // namespace resnet::cpu
