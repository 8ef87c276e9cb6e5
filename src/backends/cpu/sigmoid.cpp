#include <algorithm>

#include "backends/cpu/kernels.h"

namespace resnet::cpu {

std::unique_ptr<Kernel> make_sigmoid(const NodeRequest& request, CpuContext& context) {
  const ValueInfo& x = request.in[0];
  const int64_t n = storage_elements(x.type.shape, x.layout);
  const int64_t block = is_blocked(x) ? x.layout.block : 1;
  const int64_t channels = is_blocked(x) ? x.type.shape[1] : 1;
  const int64_t pixels = is_blocked(x) ? x.type.shape[2] * x.type.shape[3] : 1;
  // The sigmoid of a padding lane's 0 is not the 0 that must be there.
  const int64_t lanes = channels % block, map = (channels + block - 1) / block * block * pixels;
  return std::make_unique<SimdKernel>([=, &simd = context.simd, threads = context.threads](const KernelCall& call) {
    float* y = output(call, 0);
    simd.sigmoid({.a = input(call, 0), .y = y, .n = n, .threads = threads});
    if (lanes == 0) return;
    for (int64_t last = map - pixels * block; last < n; last += map) {
      for (int64_t p = last; p < last + pixels * block; p += block) std::fill(y + p + lanes, y + p + block, 0.0f);
    }
  });
}

std::unique_ptr<Kernel> make_sigmoid_grad(const NodeRequest& request, CpuContext& context) {
  const int64_t n = storage_elements(request.in[0].type.shape, request.in[0].layout);
  return std::make_unique<SimdKernel>([=, &simd = context.simd, threads = context.threads](const KernelCall& call) {
    simd.sigmoid_grad({.a = input(call, 0), .b = input(call, 1), .y = output(call, 0), .n = n, .threads = threads});
  });
}

}  // namespace resnet::cpu
