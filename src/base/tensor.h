#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "base/aligned_memory.h"
#include "base/error.h"
#include "base/shape.h"

namespace resnet {

/// Row-major tensor in host memory that owns its bytes; new tensors are zero. Copying is deep. One made by default, or
/// moved from, has no bytes.
class Tensor {
 public:
  Tensor() = default;
  /// Throws ResourceError (limit) when there is no memory for it.
  explicit Tensor(TensorType type) : type_(std::move(type)), size_bytes_(size_bytes_of(type_)), memory_(size_bytes_) {}
  Tensor(DType dtype, Shape shape) : Tensor(TensorType{dtype, std::move(shape)}) {}
  Tensor(const Tensor& other) : type_(other.type_), size_bytes_(other.size_bytes_), memory_(other.size_bytes_) {
    if (size_bytes_ > 0) std::memcpy(data(), other.data(), size_bytes_);
  }
  Tensor(Tensor&& other) noexcept
      : type_(std::exchange(other.type_, {})),
        size_bytes_(std::exchange(other.size_bytes_, 0)),
        memory_(std::move(other.memory_)) {}
  Tensor& operator=(Tensor other) noexcept {
    std::swap(type_, other.type_);
    std::swap(size_bytes_, other.size_bytes_);
    std::swap(memory_, other.memory_);
    return *this;
  }

  const TensorType& type() const { return type_; }
  const Shape& shape() const { return type_.shape; }
  DType dtype() const { return type_.dtype; }
  int64_t elements() const { return type_.shape.elements(); }
  size_t size_bytes() const { return size_bytes_; }
  /// Type and bits.
  bool operator==(const Tensor& other) const {
    return type_ == other.type_ && size_bytes_ == other.size_bytes_ &&
           (size_bytes_ == 0 || std::memcmp(data(), other.data(), size_bytes_) == 0);
  }
  std::byte* data() { return memory_.data(); }
  const std::byte* data() const { return memory_.data(); }

  /// The elements as T; throws InternalError when T is not the dtype.
  template <class T>
  std::span<T> as() {
    require<T>();
    return {reinterpret_cast<T*>(memory_.data()), static_cast<size_t>(elements())};
  }
  template <class T>
  std::span<const T> as() const {
    require<T>();
    return {reinterpret_cast<const T*>(memory_.data()), static_cast<size_t>(elements())};
  }

 private:
  static size_t size_bytes_of(const TensorType& type) {
    return static_cast<size_t>(type.shape.elements()) * size_of(type.dtype);
  }
  template <class T>
  void require() const {
    const bool matches =
        (std::is_same_v<T, float> && dtype() == DType::f32) || (std::is_same_v<T, double> && dtype() == DType::f64) ||
        (std::is_same_v<T, int32_t> && dtype() == DType::i32) || (std::is_same_v<T, uint8_t> && dtype() == DType::u8) ||
        (std::is_same_v<T, int8_t> && dtype() == DType::i8);
    check(matches, "Tensor::as: element type is not the tensor's dtype");
  }

  TensorType type_;
  size_t size_bytes_ = 0;
  AlignedMemory memory_;
};

/// f32 <-> f64 by value; other pairs throw InternalError.
Tensor convert(const Tensor& tensor, DType dtype);

/// Calls f with a float or double tag: `with_float(dtype, [&](auto tag) { using T = decltype(tag); ... })`.
template <class F>
decltype(auto) with_float(DType dtype, F&& f) {
  if (dtype == DType::f64) return f(double{});
  check(dtype == DType::f32, "with_float: dtype is neither f32 nor f64");
  return f(float{});
}

}  // namespace resnet
