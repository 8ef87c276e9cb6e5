#include "ops/pad_channels.h"

#include <algorithm>

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

const ChannelPadAttrs& checked_attributes(const ShapeRule& rule, const Attributes& attributes) {
  constexpr int64_t kMost = int64_t{1} << 30;  // keeps sums of channels far from overflow
  const auto& a = std::get<ChannelPadAttrs>(attributes);
  rule.inputs(1);
  rule.floating(0, "input");
  if (rule.shape(0).rank() < 2) rule.fail("input has shape {}, expected [N,C,...]", rule.shape(0).str());
  if (std::min(a.before, a.after) < 0 || std::max(a.before, a.after) > kMost) {
    rule.fail("{} channels before and {} after, expected 0 to {} of each", a.before, a.after, kMost);
  }
  return a;
}

TensorType with_channels(TensorType type, int64_t channels) {
  type.shape[1] = channels;
  return type;
}

std::vector<TensorType> pad_shape(const InferCall& call) {
  const ShapeRule rule("pad_channels", call);
  const ChannelPadAttrs& a = checked_attributes(rule, call.attributes);
  return {with_channels(rule.in(0), a.before + rule.shape(0)[1] + a.after)};
}

std::vector<TensorType> slice_shape(const InferCall& call) {
  const ShapeRule rule("slice_channels", call);
  const ChannelPadAttrs& a = checked_attributes(rule, call.attributes);
  const int64_t left = rule.shape(0)[1] - a.before - a.after;
  if (left < 1) {
    rule.fail("input {} has {} channels; without the first {} and the last {} none is left", rule.shape(0).str(),
              rule.shape(0)[1], a.before, a.after);
  }
  return {with_channels(rule.in(0), left)};
}

std::vector<Value> pad_grad(GradContext& context) {
  return {context.add(kSliceChannels, {context.dy()}, context.attributes<ChannelPadAttrs>())};
}

std::vector<Value> slice_grad(GradContext& context) {
  return {context.add(kPadChannels, {context.dy()}, context.attributes<ChannelPadAttrs>())};
}

/// y[n][k] = x[n][k + offset] where x has that channel, 0 elsewhere.
void shift_channels(const RefCall& call, int64_t offset) {
  const Shape& xs = call.in[0].shape();
  const Shape& ys = call.out[0].shape();
  const int64_t P = pixels(xs);
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* x = call.in[0].as<T>();
    T* y = call.out[0].as<T>();
    for (int64_t n = 0; n < ys[0]; ++n) {
      for (int64_t k = 0; k < ys[1]; ++k, y += P) {
        const int64_t c = k + offset;
        if (c < 0 || c >= xs[1]) {
          std::fill_n(y, P, T{0});
        } else {
          std::copy_n(x + (n * xs[1] + c) * P, P, y);
        }
      }
    }
  });
}

void pad_ref(const RefCall& call) { shift_channels(call, -std::get<ChannelPadAttrs>(call.attributes).before); }
void slice_ref(const RefCall& call) { shift_channels(call, std::get<ChannelPadAttrs>(call.attributes).before); }

/// Only what is copied or zeroed: channels that a slice leaves out are not read.
Cost copy_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  const double read = std::min(count(in[0]), count(out[0]));
  return {.flops = 0, .bytes = (read + count(out[0])) * static_cast<double>(size_of(in[0].dtype))};
}

}  // namespace

const OpDef kPadChannels = {
    .name = "pad_channels", .infer = pad_shape, .grad = pad_grad, .ref = pad_ref, .cost = copy_cost};

const OpDef kSliceChannels = {
    .name = "slice_channels", .infer = slice_shape, .grad = slice_grad, .ref = slice_ref, .cost = copy_cost};

Value pad_channels(Value x, ChannelPadAttrs attrs, std::string name) {
  return x.graph->add(kPadChannels, {x}, attrs, std::move(name));
}

Value slice_channels(Value x, ChannelPadAttrs attrs, std::string name) {
  return x.graph->add(kSliceChannels, {x}, attrs, std::move(name));
}

}  // namespace resnet
