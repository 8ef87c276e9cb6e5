#pragma once
// The attributes of every op: plain data, compared with a defaulted ==. The variant is closed, so
// code that must know all of them uses std::visit without a catch-all.

#include <cstdint>
#include <string>
#include <variant>

#include "base/shape.h"

namespace resnet {

/// Height and width, in pixels (or window elements).
struct Size2 {
  int64_t h = 1;
  int64_t w = 1;
  bool operator==(const Size2&) const = default;
};

struct NoAttrs {
  bool operator==(const NoAttrs&) const = default;
};

/// What is fused into the producer's last write: y = relu?(op(...) + bias? + residual?).
struct Conv2dAttrs {
  Size2 stride{1, 1};
  Size2 pad{0, 0};
  Size2 dilation{1, 1};
  int64_t groups = 1;
  bool bias = false;
  bool residual = false;
  bool relu = false;
  bool operator==(const Conv2dAttrs&) const = default;
};

/// Both gradients of a convolution; `shape` is the shape of the result (the input's or the weight's).
struct Conv2dGradAttrs {
  Conv2dAttrs conv;
  Shape shape;
  bool operator==(const Conv2dGradAttrs&) const = default;
};

struct BatchNormAttrs {
  double epsilon = 1e-5;
  bool training = true;
  bool residual = false;
  bool relu = false;
  bool operator==(const BatchNormAttrs&) const = default;
};

struct PoolAttrs {
  Size2 kernel{1, 1};
  Size2 stride{1, 1};
  Size2 pad{0, 0};
  bool count_include_pad = true;
  bool ceil_mode = false;  ///< a last window may reach past the padded edge, rather than the last pixels be left out
  bool operator==(const PoolAttrs&) const = default;
};

/// A pool over what a convolution makes. The convolution has no residual.
struct ConvPoolAttrs {
  Conv2dAttrs conv;
  PoolAttrs pool;
  bool operator==(const ConvPoolAttrs&) const = default;
};

struct PoolGradAttrs {
  PoolAttrs pool;
  Shape shape;
  bool operator==(const PoolGradAttrs&) const = default;
};

/// The shape of the result: reshape, fill and the gradients that need to know it.
struct ShapeAttrs {
  Shape shape;
  bool operator==(const ShapeAttrs&) const = default;
};

struct FillAttrs {
  TensorType type;
  double value = 0;
  bool operator==(const FillAttrs&) const = default;
};

struct LinearAttrs {
  bool bias = false;
  bool operator==(const LinearAttrs&) const = default;
};

struct LossAttrs {
  double label_smoothing = 0;
  bool operator==(const LossAttrs&) const = default;
};

struct SgdAttrs {
  double momentum = 0;
  double weight_decay = 0;
  bool nesterov = false;
  bool operator==(const SgdAttrs&) const = default;
};

/// running = (1 - momentum) * running + momentum * scale * batch.
struct RunningAverageAttrs {
  double momentum = 0.1;
  double scale = 1;
  bool operator==(const RunningAverageAttrs&) const = default;
};

/// Channels of zeros put around a tensor's own, or channels left out at either end.
struct ChannelPadAttrs {
  int64_t before = 0;
  int64_t after = 0;
  bool operator==(const ChannelPadAttrs&) const = default;
};

/// `flip`: the kernel is read from its end, which is the gradient's way.
struct ChannelConvAttrs {
  bool flip = false;
  bool operator==(const ChannelConvAttrs&) const = default;
};

/// `output`: u8, or i8 where negative results must be kept. `conv.bias` is always false: the offset is not optional.
struct QuantizedConv2dAttrs {
  Conv2dAttrs conv;
  DType output = DType::u8;
  bool operator==(const QuantizedConv2dAttrs&) const = default;
};

/// The type to round to: u8 or i8.
struct QuantizeAttrs {
  DType output = DType::u8;
  bool operator==(const QuantizeAttrs&) const = default;
};

using Attributes =
    std::variant<NoAttrs, Conv2dAttrs, Conv2dGradAttrs, BatchNormAttrs, PoolAttrs, ConvPoolAttrs, PoolGradAttrs,
                 ShapeAttrs, FillAttrs, LinearAttrs, LossAttrs, SgdAttrs, RunningAverageAttrs, ChannelPadAttrs,
                 ChannelConvAttrs, QuantizedConv2dAttrs, QuantizeAttrs>;

/// "stride=2 pad=1 bias": only what differs from the defaults; empty for NoAttrs.
std::string to_string(const Attributes& attributes);

}  // namespace resnet
