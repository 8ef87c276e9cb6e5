#include "backends/cpu/kernels.h"
#include "backends/cpu/simd/isa_kernels.h"

namespace resnet::cpu {

std::unique_ptr<Kernel> make_quantized_max_pool(const NodeRequest& request, CpuContext& context) {
  const auto& a = std::get<PoolAttrs>(request.attributes);
  const Shape& x = request.in[0].type.shape;
  const Shape& y = request.out[0].type.shape;
  const simd::QuantizedPoolArgs arguments{.N = x[0],
                                          .C = x[1],
                                          .H = x[2],
                                          .W = x[3],
                                          .Ho = y[2],
                                          .Wo = y[3],
                                          .kernel_h = a.kernel.h,
                                          .kernel_w = a.kernel.w,
                                          .stride_h = a.stride.h,
                                          .stride_w = a.stride.w,
                                          .pad_h = a.pad.h,
                                          .pad_w = a.pad.w,
                                          .is_signed = request.in[0].type.dtype == DType::i8,
                                          .threads = context.threads};
  return std::make_unique<SimdKernel>(
      [arguments, &kernels = simd::isa_kernels(context.isa).quantized](const KernelCall& call) {
        simd::QuantizedPoolArgs p = arguments;
        p.x = call.in[0];
        p.y = call.out[0];
        kernels.max_pool(p);
      });
}

std::unique_ptr<Kernel> make_quantized_global_avg_pool(const NodeRequest& request, CpuContext& context) {
  const Shape& x = request.in[0].type.shape;
  const simd::QuantizedPoolArgs arguments{.N = x[0],
                                          .C = x[1],
                                          .H = x[2],
                                          .W = x[3],
                                          .is_signed = request.in[0].type.dtype == DType::i8,
                                          .block = request.out[0].layout.block,
                                          .threads = context.threads};
  return std::make_unique<SimdKernel>(
      [arguments, &kernels = simd::isa_kernels(context.isa).quantized](const KernelCall& call) {
        simd::QuantizedPoolArgs p = arguments;
        p.x = call.in[0];
        p.scale = *input(call, 1);
        p.mean = output(call, 0);
        kernels.global_avg_pool(p);
      });
}

}  // namespace resnet::cpu
