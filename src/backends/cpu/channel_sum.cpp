#include "backends/cpu/kernels.h"

namespace resnet::cpu {

std::unique_ptr<Kernel> make_channel_sum(const NodeRequest& request, CpuContext& context) {
  const Shape& shape = request.in[0].type.shape;
  if (shape.rank() == 2) {
    return std::make_unique<SimdKernel>(
        [rows = shape[0], columns = shape[1], &simd = context.simd, threads = context.threads](const KernelCall& call) {
          simd.column_sum(
              {.x = input(call, 0), .sum = output(call, 0), .rows = rows, .columns = columns, .threads = threads});
        });
  }
  const simd::MapSize size = map_size(shape);
  return std::make_unique<SimdKernel>(
      [=, &simd = context.simd, threads = context.threads](const KernelCall& call) {
        simd.channel_sum(
            {.size = size, .x = input(call, 0), .sum = output(call, 0), .scratch = call.scratch, .threads = threads});
      },
      simd::channel_sum_scratch_bytes(size));
}

}  // namespace resnet::cpu
