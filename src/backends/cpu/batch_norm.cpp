#include "backends/cpu/kernels.h"

namespace resnet::cpu {

// Row-major [N,C] has the bytes of blocked [N,C,1,1] when C fills its last block, so the same kernels run on it.
Support supports_batch_norm(const NodeRequest& request, const CpuContext& context) {
  const Shape& shape = request.in[0].type.shape;
  if (shape.rank() != 2) return only_blocked_f32(request);
  if (shape[1] % context.block != 0) {
    return Support::no(fmt::format("rank 2 with {} channels; {} accepts [N,C,H,W], and [N,C] with a multiple of {}",
                                   shape[1], request.op.name, context.block));
  }
  return only_f32(request);
}

std::unique_ptr<Kernel> make_batch_norm(const NodeRequest& request, CpuContext& context) {
  const auto attrs = std::get<BatchNormAttrs>(request.attributes);
  const simd::MapSize size = map_size(request.in[0].type.shape);
  return std::make_unique<SimdKernel>(
      [=, &simd = context.simd, threads = context.threads](const KernelCall& call) {
        simd.batch_norm_training({.size = size,
                                  .x = input(call, 0),
                                  .gamma = input(call, 1),
                                  .beta = input(call, 2),
                                  .residual = attrs.residual ? input(call, 3) : nullptr,
                                  .mean = output(call, 1),
                                  .variance = output(call, 2),
                                  .y = output(call, 0),
                                  .eps = static_cast<float>(attrs.epsilon),
                                  .relu = attrs.relu,
                                  .scratch = call.scratch,
                                  .threads = threads});
      },
      simd::batch_norm_scratch_bytes(size));
}

std::unique_ptr<Kernel> make_batch_norm_inference(const NodeRequest& request, CpuContext& context) {
  const auto attrs = std::get<BatchNormAttrs>(request.attributes);
  const simd::MapSize size = map_size(request.in[0].type.shape);
  return std::make_unique<SimdKernel>(
      [=, &simd = context.simd, threads = context.threads](const KernelCall& call) {
        simd.batch_norm_apply({.size = size,
                               .x = input(call, 0),
                               .mean = input(call, 3),
                               .variance = input(call, 4),
                               .gamma = input(call, 1),
                               .beta = input(call, 2),
                               .residual = attrs.residual ? input(call, 5) : nullptr,
                               .y = output(call, 0),
                               .eps = static_cast<float>(attrs.epsilon),
                               .relu = attrs.relu,
                               .scratch = call.scratch,
                               .threads = threads});
      },
      simd::batch_norm_scratch_bytes(size));
}

std::unique_ptr<Kernel> make_batch_norm_grad(const NodeRequest& request, CpuContext& context) {
  const auto attrs = std::get<BatchNormAttrs>(request.attributes);
  const simd::MapSize size = map_size(request.in[0].type.shape);
  return std::make_unique<SimdKernel>(
      [=, &simd = context.simd, threads = context.threads](const KernelCall& call) {
        simd.batch_norm_backward({.size = size,
                                  .dy = input(call, 0),
                                  .x = input(call, 1),
                                  .y = attrs.relu ? input(call, 5) : nullptr,
                                  .mean = input(call, 3),
                                  .variance = input(call, 4),
                                  .gamma = input(call, 2),
                                  .dx = output(call, 0),
                                  .dgamma = output(call, 1),
                                  .dbeta = output(call, 2),
                                  .dresidual = attrs.residual ? output(call, 3) : nullptr,
                                  .eps = static_cast<float>(attrs.epsilon),
                                  .training = attrs.training,
                                  .scratch = call.scratch,
                                  .threads = threads});
      },
      simd::batch_norm_scratch_bytes(size));
}

}  // namespace resnet::cpu
