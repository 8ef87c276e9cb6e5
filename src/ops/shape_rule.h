#pragma once
// What the ops' shape rules share: messages that name the op and its path, and window arithmetic.

#include <cstdint>
#include <string>

#include "base/error.h"
#include "graph/op.h"

namespace resnet {

/// The argument checks of one call of a shape rule; every failure is a UserError that starts "OP 'PATH': ".
class ShapeRule {
 public:
  ShapeRule(const char* op, const InferCall& call) : op_(op), call_(call) {}

  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) const {
    throw UserError("{}: {}", who(), fmt::format(text, std::forward<Args>(args)...));
  }
  /// InternalError unless the node has `count` inputs: the number follows from the attributes, not from input.
  void inputs(size_t count) const;
  /// `layout` names the axes, one character each after a comma: "N,C,H,W".
  void rank(size_t input, const char* what, int rank, const char* layout) const;
  /// f32 or f64.
  void floating(size_t input, const char* what) const;
  /// Equal dtype and shape.
  void type(size_t input, const char* what, const TensorType& expected) const;

  const TensorType& in(size_t i) const { return call_.in[i]; }
  const Shape& shape(size_t i) const { return call_.in[i].shape; }
  std::string who() const;

 private:
  const char* op_;
  const InferCall& call_;
};

/// How a kernel slides along one axis.
struct Window {
  int64_t kernel = 1;
  int64_t stride = 1;
  int64_t pad = 0;
  int64_t dilation = 1;
  bool ceil = false;
};

inline Window rows_of(const PoolAttrs& a) { return {a.kernel.h, a.stride.h, a.pad.h, 1, a.ceil_mode}; }
inline Window columns_of(const PoolAttrs& a) { return {a.kernel.w, a.stride.w, a.pad.w, 1, a.ceil_mode}; }

/// floor((size + 2*pad - dilation*(kernel-1) - 1) / stride) + 1; with `ceil` rounded up, unless the last window would
/// then begin behind the image and its first padding (PyTorch's ceil_mode). Fails the rule when a number is out of
/// range or nothing is left. `axis` is "height" or "width".
int64_t window_count(const ShapeRule& rule, const char* axis, int64_t size, const Window& window);

/// The shape after pooling x [N,C,H,W], with the checks that both pools share.
Shape pooled_shape(const ShapeRule& rule, const Shape& x, const PoolAttrs& attrs);

/// A half-open range of indices.
struct Range {
  int64_t begin;
  int64_t end;
};

/// The output positions o for which o*stride + offset lies in [0, size).
Range inside(int64_t offset, int64_t stride, int64_t size, int64_t outputs);

/// Elements behind the channel axis: H*W of [N,C,H,W], 1 of [N,C].
int64_t pixels(const Shape& shape);

inline double count(const TensorType& type) { return static_cast<double>(type.shape.elements()); }

}  // namespace resnet
