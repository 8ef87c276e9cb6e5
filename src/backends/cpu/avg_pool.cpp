#include "backends/cpu/kernels.h"

namespace resnet::cpu {
namespace {

simd::AvgPool arguments(const PoolAttrs& a, const Shape& large, const Shape& small, int threads) {
  return {.size = map_size(large),
          .window = pool_window(a),
          .Ho = small[2],
          .Wo = small[3],
          .count_padding = a.count_include_pad,
          .threads = threads};
}

}  // namespace

std::unique_ptr<Kernel> make_avg_pool(const NodeRequest& request, CpuContext& context) {
  const auto arguments_ = arguments(std::get<PoolAttrs>(request.attributes), request.in[0].type.shape,
                                    request.out[0].type.shape, context.threads);
  return std::make_unique<SimdKernel>([args = arguments_, &simd = context.simd](const KernelCall& call) mutable {
    args.x = input(call, 0);
    args.y = output(call, 0);
    simd.avg_pool(args);
  });
}

std::unique_ptr<Kernel> make_avg_pool_grad(const NodeRequest& request, CpuContext& context) {
  const auto arguments_ = arguments(std::get<PoolGradAttrs>(request.attributes).pool, request.out[0].type.shape,
                                    request.in[0].type.shape, context.threads);
  return std::make_unique<SimdKernel>([args = arguments_, &simd = context.simd](const KernelCall& call) mutable {
    args.x = input(call, 0);
    args.y = output(call, 0);
    simd.avg_pool_backward(args);
  });
}

}  // namespace resnet::cpu
