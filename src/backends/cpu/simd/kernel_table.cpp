#include "backends/cpu/simd/kernels.h"

namespace resnet::simd::RESNET_ISA {
namespace {

template <int B>
SimdKernels make_table() {
  SimdKernels table = {};
  table.block = B;
  add_batch_norm<B>(table);
  add_elementwise<B>(table);
  add_layout<B>(table);
  add_loss<B>(table);
  add_pool<B>(table);
  add_reduce<B>(table);
  return table;
}

}  // namespace

/// The table for blocks of `block` channels, 8 or 16.
const SimdKernels& kernel_table(int64_t block);

const SimdKernels& kernel_table(int64_t block) {
  static const SimdKernels narrow = make_table<8>();
  static const SimdKernels wide = make_table<16>();
  return block == 8 ? narrow : wide;
}

}  // namespace resnet::simd::RESNET_ISA
