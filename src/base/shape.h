#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace resnet {

enum class DType : uint8_t { f32, f64, i32, u8, i8 };

size_t size_of(DType dtype);
const char* name_of(DType dtype);

/// Dimensions of a tensor, outermost first. A scalar has rank 0 and one element.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : dims_(dims) {}
  explicit Shape(std::vector<int64_t> dims) : dims_(std::move(dims)) {}

  int rank() const { return static_cast<int>(dims_.size()); }
  int64_t operator[](int axis) const { return dims_[static_cast<size_t>(axis)]; }
  int64_t& operator[](int axis) { return dims_[static_cast<size_t>(axis)]; }
  const std::vector<int64_t>& dims() const { return dims_; }
  int64_t elements() const;
  /// "4x3x6x6"; "scalar" for rank 0.
  std::string str() const;
  bool operator==(const Shape&) const = default;

 private:
  std::vector<int64_t> dims_;
};

struct TensorType {
  DType dtype = DType::f32;
  Shape shape;
  bool operator==(const TensorType&) const = default;
  std::string str() const;
};

}  // namespace resnet
