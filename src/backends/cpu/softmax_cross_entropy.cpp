#include "backends/cpu/kernels.h"

namespace resnet::cpu {

std::unique_ptr<Kernel> make_softmax_cross_entropy(const NodeRequest& request, CpuContext& context) {
  const Shape& logits = request.in[0].type.shape;
  const auto attrs = std::get<LossAttrs>(request.attributes);
  return std::make_unique<SimdKernel>(
      [=, rows = logits[0], classes = logits[1], &simd = context.simd,
       threads = context.threads](const KernelCall& call) {
        simd.softmax_cross_entropy({.rows = rows,
                                    .classes = classes,
                                    .logits = input(call, 0),
                                    .labels = static_cast<const int32_t*>(call.in[1]),
                                    .label_smoothing = static_cast<float>(attrs.label_smoothing),
                                    .loss = output(call, 0),
                                    .probabilities = output(call, 1),
                                    .correct = output(call, 2),
                                    .scratch = call.scratch,
                                    .threads = threads});
      },
      simd::softmax_cross_entropy_scratch_bytes(logits[0]));
}

std::unique_ptr<Kernel> make_softmax_cross_entropy_grad(const NodeRequest& request, CpuContext& context) {
  const Shape& probabilities = request.in[0].type.shape;
  const auto attrs = std::get<LossAttrs>(request.attributes);
  return std::make_unique<SimdKernel>([=, rows = probabilities[0], classes = probabilities[1], &simd = context.simd,
                                       threads = context.threads](const KernelCall& call) {
    simd.softmax_cross_entropy_backward({.rows = rows,
                                         .classes = classes,
                                         .probabilities = input(call, 0),
                                         .labels = static_cast<const int32_t*>(call.in[1]),
                                         .dloss = input(call, 2),
                                         .label_smoothing = static_cast<float>(attrs.label_smoothing),
                                         .dlogits = output(call, 0),
                                         .threads = threads});
  });
}

}  // namespace resnet::cpu
