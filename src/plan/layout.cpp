#include "plan/layout.h"

#include <algorithm>

namespace resnet {
namespace {

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/// Calls f(row-major index, storage index) for every element, block by block: a block's storage stays in the cache.
template <class F>
void for_each_element(const Shape& shape, const Layout& layout, F&& f) {
  if (layout.kind == Layout::Kind::plain) {
    for (int64_t i = 0; i < shape.elements(); ++i) f(i, i);
    return;
  }
  check(shape.rank() == 4, "blocked layouts are for tensors of rank 4");
  const int64_t b = layout.block;
  const int64_t outer = shape[0];
  const int64_t inner = shape[1];
  const int64_t area = shape[2] * shape[3];
  const int64_t inner_blocks = (inner + b - 1) / b;
  const bool weights = layout.kind == Layout::Kind::weights;
  const int64_t outer_block = weights ? b : 1;
  const int64_t pitch = b * outer_block;  // from one pixel to the next in a block
  for (int64_t o0 = 0; o0 < outer; o0 += outer_block) {
    for (int64_t i0 = 0; i0 < inner; i0 += b) {
      const int64_t block = (o0 / outer_block * inner_blocks + i0 / b) * area * pitch;
      for (int64_t o = o0; o < std::min(o0 + outer_block, outer); ++o) {
        for (int64_t i = i0; i < std::min(i0 + b, inner); ++i) {
          const int64_t row_major = (o * inner + i) * area;
          const int64_t stored = block + (i - i0) * outer_block + (o - o0);
          for (int64_t p = 0; p < area; ++p) f(row_major + p, stored + p * pitch);
        }
      }
    }
  }
}

template <class F>
decltype(auto) with_size(DType dtype, F&& f) {
  switch (size_of(dtype)) {
    case 1: return f(uint8_t{});
    case 4: return f(uint32_t{});
    default: return f(uint64_t{});
  }
}

}  // namespace

std::string Layout::str() const {
  switch (kind) {
    case Kind::plain: return "plain";
    case Kind::channels: return fmt::format("nChw{}c", block);
    case Kind::weights: return fmt::format("OIhw{0}i{0}o", block);
  }
  return "?";
}

int64_t storage_elements(const Shape& shape, const Layout& layout) {
  if (layout.kind == Layout::Kind::plain) return shape.elements();
  const int64_t area = shape[2] * shape[3];
  const int64_t inner = round_up(shape[1], layout.block);
  return (layout.kind == Layout::Kind::channels ? shape[0] : round_up(shape[0], layout.block)) * inner * area;
}

size_t storage_bytes(const TensorType& type, const Layout& layout) {
  return static_cast<size_t>(storage_elements(type.shape, layout)) * size_of(type.dtype);
}

void to_layout(const Tensor& tensor, const Layout& layout, void* storage) {
  if (layout.kind == Layout::Kind::plain) {
    std::memcpy(storage, tensor.data(), tensor.size_bytes());
    return;
  }
  const size_t bytes = storage_bytes(tensor.type(), layout);
  if (bytes != tensor.size_bytes()) std::memset(storage, 0, bytes);
  with_size(tensor.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* from = reinterpret_cast<const T*>(tensor.data());
    T* to = static_cast<T*>(storage);
    for_each_element(tensor.shape(), layout, [&](int64_t row_major, int64_t stored) { to[stored] = from[row_major]; });
  });
}

void from_layout(const void* storage, const Layout& layout, Tensor& tensor) {
  if (layout.kind == Layout::Kind::plain) {
    std::memcpy(tensor.data(), storage, tensor.size_bytes());
    return;
  }
  with_size(tensor.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* from = static_cast<const T*>(storage);
    T* to = reinterpret_cast<T*>(tensor.data());
    for_each_element(tensor.shape(), layout, [&](int64_t row_major, int64_t stored) { to[row_major] = from[stored]; });
  });
}

}  // namespace resnet
