#pragma once
// How a value lies in memory. Every value has one layout for its whole life, chosen by the backend, so
// no reorder ever stands between two ops (docs/decisions/0004).

#include "base/tensor.h"

namespace resnet {

struct Layout {
  enum class Kind : uint8_t {
    plain,     ///< row-major
    channels,  ///< activations [N,C,H,W] as [N][ceil(C/block)][H][W][block], oneDNN's nChw8c / nChw16c
    weights,   ///< weights [K,C,R,S] as [ceil(K/b)][ceil(C/b)][R][S][b in][b out], oneDNN's OIhw8i8o / 16i16o
  };
  Kind kind = Kind::plain;
  int block = 1;
  bool operator==(const Layout&) const = default;
  std::string str() const;
};

/// Elements of storage, padding of the blocked dimensions included.
int64_t storage_elements(const Shape& shape, const Layout& layout);
size_t storage_bytes(const TensorType& type, const Layout& layout);

/// Row-major `tensor` into storage of `layout` (padding becomes zero), and back.
void to_layout(const Tensor& tensor, const Layout& layout, void* storage);
void from_layout(const void* storage, const Layout& layout, Tensor& tensor);

}  // namespace resnet
