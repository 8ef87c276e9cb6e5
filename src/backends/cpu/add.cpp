#include "backends/cpu/kernels.h"

namespace resnet::cpu {

std::unique_ptr<Kernel> make_add(const NodeRequest& request, CpuContext& context) {
  const int64_t n = storage_elements(request.in[0].type.shape, request.in[0].layout);
  return std::make_unique<SimdKernel>([=, &simd = context.simd, threads = context.threads](const KernelCall& call) {
    simd.add({.a = input(call, 0), .b = input(call, 1), .y = output(call, 0), .n = n, .threads = threads});
  });
}

}  // namespace resnet::cpu
