#include "ops/quantize.h"

#include <cmath>

#include "ops/shape_rule.h"

namespace resnet {
namespace {

bool is_byte(DType dtype) { return dtype == DType::u8 || dtype == DType::i8; }

std::vector<TensorType> quantize_shape(const InferCall& call) {
  const ShapeRule rule("quantize", call);
  const DType output = std::get<QuantizeAttrs>(call.attributes).output;
  check(is_byte(output), "quantize: the output attribute is neither u8 nor i8");
  rule.inputs(3);
  rule.rank(0, "input", 4, "N,C,H,W");
  if (rule.in(0).dtype != DType::f32) rule.fail("input is {}, expected f32", rule.in(0).str());
  const Shape channels{rule.shape(0)[1]};
  rule.type(1, "factor", {DType::f32, channels});
  rule.type(2, "zero", {DType::f32, channels});
  return {{output, rule.shape(0)}};
}

void quantize_ref(const RefCall& call) {
  const Shape& shape = call.in[0].shape();
  const ByteRange range = byte_range(call.out[0].type->dtype);
  const float* x = call.in[0].as<float>();
  for (int64_t plane = 0; plane < shape[0] * shape[1]; ++plane) {
    const float factor = call.in[1].as<float>()[plane % shape[1]];
    const float zero = call.in[2].as<float>()[plane % shape[1]];
    for (int64_t i = plane * pixels(shape); i < (plane + 1) * pixels(shape); ++i) {
      const float scaled = x[i] * factor;
      set_byte(call.out[0], i, saturated(scaled + zero, range));
    }
  }
}

std::vector<TensorType> dequantize_shape(const InferCall& call) {
  const ShapeRule rule("dequantize", call);
  rule.inputs(3);
  rule.rank(0, "input", 4, "N,C,H,W");
  if (!is_byte(rule.in(0).dtype)) rule.fail("input is {}, expected u8 or i8", rule.in(0).str());
  rule.type(1, "scale", {DType::f32, {1}});
  rule.type(2, "zero", {DType::f32, {1}});
  return {{DType::f32, rule.shape(0)}};
}

void dequantize_ref(const RefCall& call) {
  const float scale = call.in[1].as<float>()[0];
  const float zero = call.in[2].as<float>()[0];
  for (int64_t i = 0; i < call.in[0].shape().elements(); ++i)
    call.out[0].as<float>()[i] = (static_cast<float>(byte_at(call.in[0], i)) - zero) * scale;
}

Cost two_flops_each(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  return elementwise_cost(in, out, 2);
}

}  // namespace

ByteRange byte_range(DType dtype) {
  check(is_byte(dtype), "byte_range: neither u8 nor i8");
  return dtype == DType::u8 ? ByteRange{0, 255} : ByteRange{-128, 127};
}

int32_t byte_at(const ConstView& view, int64_t i) {
  return view.type->dtype == DType::i8 ? int32_t{view.as<int8_t>()[i]} : int32_t{view.as<uint8_t>()[i]};
}

void set_byte(const View& view, int64_t i, float value) {
  if (view.type->dtype == DType::i8) {
    view.as<int8_t>()[i] = static_cast<int8_t>(value);
  } else {
    view.as<uint8_t>()[i] = static_cast<uint8_t>(value);
  }
}

float saturated(float value, const ByteRange& range) {
  const float above = value > range.least ? value : range.least;
  return std::nearbyint(above < range.largest ? above : range.largest);
}

const OpDef kQuantize = {
    .name = "quantize", .infer = quantize_shape, .grad = no_gradient, .ref = quantize_ref, .cost = two_flops_each};

const OpDef kDequantize = {.name = "dequantize",
                           .infer = dequantize_shape,
                           .grad = no_gradient,
                           .ref = dequantize_ref,
                           .cost = two_flops_each};

}  // namespace resnet
