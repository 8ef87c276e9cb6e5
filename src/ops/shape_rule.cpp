#include "ops/shape_rule.h"

#include <algorithm>

namespace resnet {

std::string ShapeRule::who() const {
  return call_.name.empty() ? std::string(op_) : fmt::format("{} '{}'", op_, call_.name);
}

void ShapeRule::inputs(size_t count) const {
  if (call_.in.size() != count) {
    throw InternalError(fmt::format("{}: built with {} inputs, its attributes want {}", who(), call_.in.size(), count));
  }
}

void ShapeRule::rank(size_t input, const char* what, int rank, const char* layout) const {
  if (shape(input).rank() != rank) {
    fail("{} has shape {}, expected {} axes [{}]", what, shape(input).str(), rank, layout);
  }
}

void ShapeRule::floating(size_t input, const char* what) const {
  const DType dtype = in(input).dtype;
  if (dtype != DType::f32 && dtype != DType::f64) fail("{} is {}, expected f32 or f64", what, in(input).str());
}

void ShapeRule::type(size_t input, const char* what, const TensorType& expected) const {
  if (in(input) != expected) fail("{} is {}, expected {}", what, in(input).str(), expected.str());
}

int64_t window_count(const ShapeRule& rule, const char* axis, int64_t size, const Window& window) {
  constexpr int64_t kMost = int64_t{1} << 30;  // keeps the sums below far from overflow
  auto require = [&](const char* what, int64_t value, int64_t least) {
    if (value < least || value > kMost) rule.fail("{} of the {} is {}, expected {} or more", what, axis, value, least);
  };
  require("kernel size", window.kernel, 1);
  require("stride", window.stride, 1);
  require("pad", window.pad, 0);
  require("dilation", window.dilation, 1);
  const int64_t reach = window.dilation * (window.kernel - 1) + 1;
  const int64_t room = size + 2 * window.pad;
  const bool last_may_pass = window.ceil && reach - room < window.stride;
  if (reach > room && !last_may_pass) {
    rule.fail(
        "the window spans {} pixels but the padded {} of input {} is {} (pad {}); use a larger image or less stride "
        "before it",
        reach, axis, rule.shape(0).str(), room, window.pad);
  }
  if (!window.ceil) return (room - reach) / window.stride + 1;
  const int64_t count = (room - reach + window.stride - 1) / window.stride + 1;
  return (count - 1) * window.stride < size + window.pad ? count : count - 1;
}

Shape pooled_shape(const ShapeRule& rule, const Shape& x, const PoolAttrs& attrs) {
  const Shape y{x[0], x[1], window_count(rule, "height", x[2], rows_of(attrs)),
                window_count(rule, "width", x[3], columns_of(attrs))};
  if (attrs.pad.h > attrs.kernel.h / 2 || attrs.pad.w > attrs.kernel.w / 2) {
    rule.fail("pad {}x{} is more than half the kernel {}x{}, so that a window could hold padding alone", attrs.pad.h,
              attrs.pad.w, attrs.kernel.h, attrs.kernel.w);
  }
  return y;
}

Range inside(int64_t offset, int64_t stride, int64_t size, int64_t outputs) {
  const int64_t begin = offset < 0 ? (-offset + stride - 1) / stride : 0;
  const int64_t end = offset < size ? std::min(outputs, (size - 1 - offset) / stride + 1) : 0;
  return {begin, std::max(begin, end)};
}

int64_t pixels(const Shape& shape) {
  int64_t product = 1;
  for (int axis = 2; axis < shape.rank(); ++axis) product *= shape[axis];
  return product;
}

}  // namespace resnet
