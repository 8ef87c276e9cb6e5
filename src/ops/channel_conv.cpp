#include "ops/channel_conv.h"

#include <algorithm>

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

bool is_kernel(const Shape& w) { return w.rank() == 3 && w[0] == 1 && w[1] == 1 && w[2] % 2 == 1; }

void require_pixel(const ShapeRule& rule, const char* what) {
  rule.rank(0, what, 4, "N,C,1,1");
  rule.floating(0, what);
  if (pixels(rule.shape(0)) != 1) rule.fail("{} has shape {}, expected one pixel a channel", what, rule.shape(0).str());
}

std::vector<TensorType> channel_conv_shape(const InferCall& call) {
  const ShapeRule rule("channel_conv", call);
  rule.inputs(2);
  require_pixel(rule, "input");
  if (rule.in(1).dtype != rule.in(0).dtype || !is_kernel(rule.shape(1)))
    rule.fail("the weight is {}, expected {}[1x1xk], k odd", rule.in(1).str(), name_of(rule.in(0).dtype));
  return {rule.in(0)};
}

std::vector<Value> channel_conv_grad(GradContext& context) {
  check(!context.attributes<ChannelConvAttrs>().flip, "channel_conv: the flipped form is a gradient and has none");
  const Value x = context.input(0), w = context.input(1);
  return {context.needs(0) ? context.add(kChannelConv, {context.dy(), w}, ChannelConvAttrs{.flip = true}) : Value{},
          context.needs(1) ? context.add(kChannelConvWeightGrad, {x, context.dy()}, ShapeAttrs{w.shape()}) : Value{}};
}

void channel_conv_ref(const RefCall& call) {
  const Shape& xs = call.in[0].shape();
  const int64_t C = xs[1], k = call.in[1].shape()[2], half = (k - 1) / 2;
  const bool flip = std::get<ChannelConvAttrs>(call.attributes).flip;
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* w = call.in[1].as<T>();
    for (int64_t n = 0; n < xs[0]; ++n) {
      const T* x = call.in[0].as<T>() + n * C;
      for (int64_t c = 0; c < C; ++c) {
        double sum = 0;
        for (int64_t j = 0; j < k; ++j) {
          const int64_t from = c + j - half;
          if (from >= 0 && from < C) sum += static_cast<double>(w[flip ? k - 1 - j : j]) * static_cast<double>(x[from]);
        }
        call.out[0].as<T>()[n * C + c] = static_cast<T>(sum);
      }
    }
  });
}

std::vector<TensorType> grad_shape(const InferCall& call) {
  const ShapeRule rule("channel_conv_weight_grad", call);
  rule.inputs(2);
  require_pixel(rule, "input");
  rule.type(1, "dy", rule.in(0));
  const Shape& w = std::get<ShapeAttrs>(call.attributes).shape;
  check(is_kernel(w), "channel_conv_weight_grad: the shape attribute is no weight's");
  return {{rule.in(0).dtype, w}};
}

void grad_ref(const RefCall& call) {
  const Shape& xs = call.in[0].shape();
  const int64_t C = xs[1], k = call.out[0].shape()[2], half = (k - 1) / 2;
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* x = call.in[0].as<T>();
    const T* dy = call.in[1].as<T>();
    for (int64_t j = 0; j < k; ++j) {
      double sum = 0;
      for (int64_t n = 0; n < xs[0]; ++n) {
        for (int64_t c = std::max<int64_t>(0, half - j); c < std::min(C, C + half - j); ++c)
          sum += static_cast<double>(dy[n * C + c]) * static_cast<double>(x[n * C + c + j - half]);
      }
      call.out[0].as<T>()[j] = static_cast<T>(sum);
    }
  });
}

double multiplies(const TensorType& x, const Shape& w) { return count(x) * static_cast<double>(w[2]); }

Cost channel_conv_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  Cost cost = elementwise_cost(in, out, 0);
  cost.flops = 2 * multiplies(in[0], in[1].shape);
  return cost;
}

Cost grad_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  Cost cost = elementwise_cost(in, out, 0);
  cost.flops = 2 * multiplies(in[0], out[0].shape);
  return cost;
}

}  // namespace

const OpDef kChannelConv = {.name = "channel_conv",
                            .infer = channel_conv_shape,
                            .grad = channel_conv_grad,
                            .ref = channel_conv_ref,
                            .cost = channel_conv_cost};

const OpDef kChannelConvWeightGrad = {
    .name = "channel_conv_weight_grad", .infer = grad_shape, .grad = no_gradient, .ref = grad_ref, .cost = grad_cost};

Value channel_conv(Value x, Value w, std::string name) {
  return x.graph->add(kChannelConv, {x, w}, ChannelConvAttrs{}, std::move(name));
}

}  // namespace resnet
