#include "backends/cpu/kernels.h"

namespace resnet::cpu {

std::unique_ptr<Kernel> make_l2_norm(const NodeRequest& request, CpuContext& context) {
  const ValueInfo& x = request.in[0];
  simd::Storage storage = simd::Storage::plain;
  simd::MapSize size{x.type.shape.elements(), 1, 1, 1};
  if (x.layout.kind != Layout::Kind::plain) {
    storage = is_blocked(x) ? simd::Storage::maps : simd::Storage::filters;
    size = map_size(x.type.shape);
  }
  return std::make_unique<SimdKernel>(
      [=, &simd = context.simd, threads = context.threads](const KernelCall& call) {
        simd.l2_norm({.storage = storage,
                      .size = size,
                      .x = input(call, 0),
                      .norm = output(call, 0),
                      .scratch = call.scratch,
                      .threads = threads});
      },
      simd::l2_norm_scratch_bytes(storage, size));
}

}  // namespace resnet::cpu
