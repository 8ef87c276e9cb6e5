#include "ops/quantize.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/simd/isa_kernels.h"

namespace resnet::cpu {

Support supports_quantized(const NodeRequest& request, const CpuContext& context) {
  for (const auto& values : {request.in, request.out}) {
    for (const ValueInfo& value : values) {
      const TensorType& type = value.type;
      if (type.dtype == DType::f64) return Support::no(fmt::format("dtype f64; {} accepts f32", request.op.name));
      if (type.shape.rank() != 4 || value.layout.kind != Layout::Kind::channels) continue;
      const int64_t block = type.dtype == DType::f32 ? context.block : type.shape[1];
      if (value.layout.block != block) return Support::no(fmt::format("a value is laid out as {}", value.layout.str()));
    }
  }
  // Images may come row-major; everything else of rank 4 but weights is laid out by us.
  const bool reads_images = &request.op == &kQuantize;
  if (!is_blocked(request.in[0]) && !reads_images) return Support::no("the input is not channel-blocked");
  if (request.in[0].layout.kind == Layout::Kind::weights) return Support::no("the input is a state");
  if (!is_blocked(request.out[0])) return Support::no("the output is not channel-blocked");
  return Support::yes();
}

std::unique_ptr<Kernel> make_quantize(const NodeRequest& request, CpuContext& context) {
  const simd::MapSize size = map_size(request.in[0].type.shape);
  const ByteRange range = byte_range(request.out[0].type.dtype);
  const int64_t block = is_blocked(request.in[0]) ? request.in[0].layout.block : 1;
  return std::make_unique<SimdKernel>(
      [=, &kernels = simd::isa_kernels(context.isa).quantized, threads = context.threads](const KernelCall& call) {
        kernels.quantize({.N = size.N,
                          .C = size.C,
                          .H = size.H,
                          .W = size.W,
                          .block = block,
                          .x = input(call, 0),
                          .factor = input(call, 1),
                          .zero = input(call, 2),
                          .least = range.least,
                          .largest = range.largest,
                          .y = call.out[0],
                          .threads = threads});
      });
}

std::unique_ptr<Kernel> make_dequantize(const NodeRequest& request, CpuContext& context) {
  const simd::MapSize size = map_size(request.in[0].type.shape);
  const bool is_signed = request.in[0].type.dtype == DType::i8;
  return std::make_unique<SimdKernel>([=, &kernels = simd::isa_kernels(context.isa).quantized,
                                       block = request.out[0].layout.block,
                                       threads = context.threads](const KernelCall& call) {
    kernels.dequantize({.N = size.N,
                        .C = size.C,
                        .H = size.H,
                        .W = size.W,
                        .block = block,
                        .x = call.in[0],
                        .is_signed = is_signed,
                        .scale = *input(call, 1),
                        .zero = *input(call, 2),
                        .y = output(call, 0),
                        .threads = threads});
  });
}

}  // namespace resnet::cpu
