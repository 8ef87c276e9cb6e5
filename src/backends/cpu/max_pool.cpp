#include "backends/cpu/kernels.h"

namespace resnet::cpu {

std::unique_ptr<Kernel> make_max_pool(const NodeRequest& request, CpuContext& context) {
  const auto attrs = std::get<PoolAttrs>(request.attributes);
  const Shape& y = request.out[0].type.shape;
  const bool indexed = request.used[1] != 0;  // only the gradient reads it
  return std::make_unique<SimdKernel>(
      [=, size = map_size(request.in[0].type.shape), Ho = y[2], Wo = y[3], &simd = context.simd,
       threads = context.threads](const KernelCall& call) {
        simd.max_pool({.size = size,
                       .window = pool_window(attrs),
                       .Ho = Ho,
                       .Wo = Wo,
                       .x = input(call, 0),
                       .y = output(call, 0),
                       .index = indexed ? static_cast<uint8_t*>(call.out[1]) : nullptr,
                       .threads = threads});
      },
      0, indexed ? "simd" : "simd without index");
}

std::unique_ptr<Kernel> make_max_pool_grad(const NodeRequest& request, CpuContext& context) {
  const auto attrs = std::get<PoolGradAttrs>(request.attributes).pool;
  const Shape& dy = request.in[0].type.shape;
  return std::make_unique<SimdKernel>([=, size = map_size(request.out[0].type.shape), Ho = dy[2], Wo = dy[3],
                                       &simd = context.simd, threads = context.threads](const KernelCall& call) {
    simd.max_pool_backward({.size = size,
                            .window = pool_window(attrs),
                            .Ho = Ho,
                            .Wo = Wo,
                            .dy = input(call, 0),
                            .index = static_cast<const uint8_t*>(call.in[1]),
                            .dx = output(call, 0),
                            .threads = threads});
  });
}

}  // namespace resnet::cpu
