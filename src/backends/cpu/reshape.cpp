#include <cstring>

#include "backends/cpu/kernels.h"

namespace resnet::cpu {

std::unique_ptr<Kernel> make_reshape(const NodeRequest& request, CpuContext& context) {
  const bool from_blocked = is_blocked(request.in[0]);
  const bool to_blocked = is_blocked(request.out[0]);
  check(!(from_blocked && to_blocked), "cpu reshape: supports() lets only one side be blocked");
  if (!from_blocked && !to_blocked) {
    const size_t bytes = storage_bytes(request.in[0].type, request.in[0].layout);
    return std::make_unique<SimdKernel>([=](const KernelCall& call) { std::memcpy(call.out[0], call.in[0], bytes); }, 0,
                                        "copy");
  }
  const simd::MapSize size = map_size(from_blocked ? request.in[0].type.shape : request.out[0].type.shape);
  return std::make_unique<SimdKernel>(
      [=, &simd = context.simd, threads = context.threads](const KernelCall& call) {
        const simd::ActivationLayout arguments{
            .size = size, .from = input(call, 0), .to = output(call, 0), .threads = threads};
        from_blocked ? simd.to_plain(arguments) : simd.to_blocked(arguments);
      },
      0, from_blocked ? "unblock" : "block");
}

}  // namespace resnet::cpu
