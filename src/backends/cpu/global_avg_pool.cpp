#include "backends/cpu/kernels.h"

namespace resnet::cpu {

std::unique_ptr<Kernel> make_global_avg_pool(const NodeRequest& request, CpuContext& context) {
  return std::make_unique<SimdKernel>([size = map_size(request.in[0].type.shape), &simd = context.simd,
                                       threads = context.threads](const KernelCall& call) {
    simd.global_avg_pool({.size = size, .x = input(call, 0), .y = output(call, 0), .threads = threads});
  });
}

std::unique_ptr<Kernel> make_global_avg_pool_grad(const NodeRequest& request, CpuContext& context) {
  return std::make_unique<SimdKernel>([size = map_size(request.out[0].type.shape), &simd = context.simd,
                                       threads = context.threads](const KernelCall& call) {
    simd.global_avg_pool_backward({.size = size, .x = input(call, 0), .y = output(call, 0), .threads = threads});
  });
}

}  // namespace resnet::cpu
