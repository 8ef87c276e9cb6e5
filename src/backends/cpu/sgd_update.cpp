#include "backends/cpu/kernels.h"

namespace resnet::cpu {

// The planner puts the results over the state they update, so `p` and `buffer` are in and out at once.
std::unique_ptr<Kernel> make_sgd_update(const NodeRequest& request, CpuContext& context) {
  const auto attrs = std::get<SgdAttrs>(request.attributes);
  const int64_t n = storage_elements(request.in[0].type.shape, request.in[0].layout);
  const size_t bytes = storage_bytes(request.in[0].type, request.in[0].layout);
  return std::make_unique<SimdKernel>([=, &simd = context.simd, threads = context.threads](const KernelCall& call) {
    if (call.out[0] != call.in[0]) std::memcpy(call.out[0], call.in[0], bytes);
    if (attrs.momentum != 0 && call.out[1] != call.in[4]) std::memcpy(call.out[1], call.in[4], bytes);
    simd.sgd_update({.p = output(call, 0),
                     .g = input(call, 1),
                     .buffer = attrs.momentum != 0 ? output(call, 1) : nullptr,
                     .guard = input(call, 3),
                     .n = n,
                     .lr = *input(call, 2),
                     .momentum = static_cast<float>(attrs.momentum),
                     .weight_decay = static_cast<float>(attrs.weight_decay),
                     .nesterov = attrs.nesterov,
                     .threads = threads});
  });
}

}  // namespace resnet::cpu
