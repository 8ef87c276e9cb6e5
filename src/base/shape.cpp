#include "base/shape.h"

#include "base/format.h"

namespace resnet {

size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return 4;
    case DType::f64: return 8;
    case DType::i32: return 4;
    case DType::u8: return 1;
    case DType::i8: return 1;
  }
  return 0;
}

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return "f32";
    case DType::f64: return "f64";
    case DType::i32: return "i32";
    case DType::u8: return "u8";
    case DType::i8: return "i8";
  }
  return "?";
}

int64_t Shape::elements() const {
  int64_t count = 1;
  for (int64_t dim : dims_) count *= dim;
  return count;
}

std::string Shape::str() const { return dims_.empty() ? "scalar" : fmt::format("{}", fmt::join(dims_, "x")); }

std::string TensorType::str() const { return fmt::format("{}[{}]", name_of(dtype), shape.str()); }

}  // namespace resnet
