#include "backends/cpu/kernels.h"

namespace resnet::cpu {
namespace {

simd::BlurPool arguments(const PoolAttrs& a, const Shape& large, const Shape& small, int threads) {
  return {.size = map_size(large),
          .stride_h = a.stride.h,
          .stride_w = a.stride.w,
          .Ho = small[2],
          .Wo = small[3],
          .threads = threads};
}

}  // namespace

std::unique_ptr<Kernel> make_blur_pool(const NodeRequest& request, CpuContext& context) {
  const auto arguments_ = arguments(std::get<PoolAttrs>(request.attributes), request.in[0].type.shape,
                                    request.out[0].type.shape, context.threads);
  return std::make_unique<SimdKernel>([args = arguments_, &simd = context.simd](const KernelCall& call) mutable {
    args.x = input(call, 0);
    args.y = output(call, 0);
    simd.blur_pool(args);
  });
}

std::unique_ptr<Kernel> make_blur_pool_grad(const NodeRequest& request, CpuContext& context) {
  const auto arguments_ = arguments(std::get<PoolGradAttrs>(request.attributes).pool, request.out[0].type.shape,
                                    request.in[0].type.shape, context.threads);
  return std::make_unique<SimdKernel>([args = arguments_, &simd = context.simd](const KernelCall& call) mutable {
    args.x = input(call, 0);
    args.y = output(call, 0);
    simd.blur_pool_backward(args);
  });
}

}  // namespace resnet::cpu
