#include "ops/quantized_conv2d.h"

#include "ops/conv2d.h"
#include "ops/quantize.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> quantized_conv2d_shape(const InferCall& call) {
  const ShapeRule rule("quantized_conv2d", call);
  const auto& a = std::get<QuantizedConv2dAttrs>(call.attributes);
  check(a.output == DType::u8 || a.output == DType::i8, "quantized_conv2d: the output is neither u8 nor i8");
  check(!a.conv.bias, "quantized_conv2d: the offset is the bias");
  rule.inputs(a.conv.residual ? 7 : 5);
  rule.rank(0, "input", 4, "N,C,H,W");
  rule.rank(1, "weight", 4, "K,C/groups,R,S");
  const Shape& x = rule.shape(0);
  const Shape& w = rule.shape(1);
  rule.type(0, "input", {DType::u8, x});
  rule.type(1, "weight", {DType::i8, w});
  if (a.conv.groups < 1 || w[0] % a.conv.groups != 0 || x[1] % a.conv.groups != 0 || x[1] / a.conv.groups != w[1]) {
    rule.fail("input {} and weight {} do not fit groups={}; check the width passed to the layer", x.str(), w.str(),
              a.conv.groups);
  }
  if (w.elements() == 0) rule.fail("weight {} is empty", w.str());
  const Window rows{w[2], a.conv.stride.h, a.conv.pad.h, a.conv.dilation.h};
  const Window columns{w[3], a.conv.stride.w, a.conv.pad.w, a.conv.dilation.w};
  const Shape y{x[0], w[0], window_count(rule, "height", x[2], rows), window_count(rule, "width", x[3], columns)};
  const int64_t taps = w[1] * w[2] * w[3];
  if (taps > kMostQuantizedTaps)
    rule.fail("weight {} has {} taps, expected at most {}", w.str(), taps, kMostQuantizedTaps);
  rule.type(2, "multiplier", {DType::f32, {w[0]}});
  rule.type(3, "offset", {DType::f32, {w[0]}});
  rule.type(4, "padding", {DType::u8, {x[1]}});
  if (a.conv.residual) {
    rule.type(5, "residual", {rule.in(5).dtype == DType::i8 ? DType::i8 : DType::u8, y});
    rule.type(6, "residual_multiplier", {DType::f32, {1}});
  }
  return {{a.output, y}};
}

/// The exact sum at one output element.
int32_t sum_at(const Conv2dAttrs& a, const RefCall& call, int64_t n, int64_t k, int64_t ho, int64_t wo) {
  const Shape& x = call.in[0].shape();
  const Shape& w = call.in[1].shape();
  const int64_t first_channel = k / (w[0] / a.groups) * w[1];
  int32_t sum = 0;
  for (int64_t c = 0; c < w[1]; ++c) {
    const int64_t channel = first_channel + c;
    for (int64_t r = 0; r < w[2]; ++r) {
      for (int64_t s = 0; s < w[3]; ++s) {
        const int64_t h = ho * a.stride.h - a.pad.h + r * a.dilation.h;
        const int64_t column = wo * a.stride.w - a.pad.w + s * a.dilation.w;
        const bool inside = h >= 0 && h < x[2] && column >= 0 && column < x[3];
        const int32_t pixel = inside ? call.in[0].as<uint8_t>()[((n * x[1] + channel) * x[2] + h) * x[3] + column]
                                     : call.in[4].as<uint8_t>()[channel];
        sum += pixel * call.in[1].as<int8_t>()[((k * w[1] + c) * w[2] + r) * w[3] + s];
      }
    }
  }
  return sum;
}

void quantized_conv2d_ref(const RefCall& call) {
  const auto& a = std::get<QuantizedConv2dAttrs>(call.attributes);
  const Shape& y = call.out[0].shape();
  ByteRange range = byte_range(a.output);
  if (a.conv.relu) range.least = 0;
  for (int64_t n = 0; n < y[0]; ++n) {
    for (int64_t k = 0; k < y[1]; ++k) {
      for (int64_t p = 0; p < y[2] * y[3]; ++p) {
        const int64_t at = (n * y[1] + k) * y[2] * y[3] + p;
        const float scaled =
            static_cast<float>(sum_at(a.conv, call, n, k, p / y[3], p % y[3])) * call.in[2].as<float>()[k];
        float value = scaled + call.in[3].as<float>()[k];
        if (a.conv.residual) {
          const float added = static_cast<float>(byte_at(call.in[5], at)) * call.in[6].as<float>()[0];
          value = value + added;
        }
        set_byte(call.out[0], at, saturated(value, range));
      }
    }
  }
}

Cost quantized_conv2d_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  Cost cost = elementwise_cost(in, out, 2);
  const Shape& w = in[1].shape;
  cost.flops += 2 * count(out[0]) * static_cast<double>(w[1] * w[2] * w[3]);
  return cost;
}

/// A result may be written over the residual.
constexpr InPlace kOverResidual[] = {{0, 5}};

}  // namespace

const OpDef kQuantizedConv2d = {.name = "quantized_conv2d",
                                .infer = quantized_conv2d_shape,
                                .grad = no_gradient,
                                .ref = quantized_conv2d_ref,
                                .cost = quantized_conv2d_cost,
                                .in_place = kOverResidual};

}  // namespace resnet
