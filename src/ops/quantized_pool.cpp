#include "ops/quantized_pool.h"

#include <algorithm>

#include "ops/quantize.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

void require_bytes(const ShapeRule& rule) {
  const DType dtype = rule.in(0).dtype;
  if (dtype != DType::u8 && dtype != DType::i8) rule.fail("input is {}, expected u8 or i8", rule.in(0).str());
}

std::vector<TensorType> max_pool_shape(const InferCall& call) {
  const ShapeRule rule("quantized_max_pool", call);
  const auto& a = std::get<PoolAttrs>(call.attributes);
  rule.inputs(1);
  rule.rank(0, "input", 4, "N,C,H,W");
  require_bytes(rule);
  if (a.ceil_mode) rule.fail("ceil_mode is not supported; expected windows that end inside the padded image");
  return {{rule.in(0).dtype, pooled_shape(rule, rule.shape(0), a)}};
}

template <class T>
void max_pool_loops(const PoolAttrs& a, const Shape& xs, const Shape& ys, const T* x, T* y) {
  for (int64_t plane = 0; plane < xs[0] * xs[1]; ++plane, x += xs[2] * xs[3]) {
    for (int64_t ho = 0; ho < ys[2]; ++ho) {
      for (int64_t wo = 0; wo < ys[3]; ++wo) {
        const int64_t h0 = ho * a.stride.h - a.pad.h, w0 = wo * a.stride.w - a.pad.w;
        const int64_t h_first = std::max<int64_t>(0, h0), w_first = std::max<int64_t>(0, w0);
        T best = x[h_first * xs[3] + w_first];
        for (int64_t h = h_first; h < std::min(h0 + a.kernel.h, xs[2]); ++h) {
          for (int64_t w = w_first; w < std::min(w0 + a.kernel.w, xs[3]); ++w) best = std::max(best, x[h * xs[3] + w]);
        }
        *y++ = best;
      }
    }
  }
}

void max_pool_ref(const RefCall& call) {
  const auto& a = std::get<PoolAttrs>(call.attributes);
  const Shape& x = call.in[0].shape();
  const Shape& y = call.out[0].shape();
  if (call.in[0].type->dtype == DType::u8) {
    max_pool_loops(a, x, y, call.in[0].as<uint8_t>(), call.out[0].as<uint8_t>());
  } else {
    max_pool_loops(a, x, y, call.in[0].as<int8_t>(), call.out[0].as<int8_t>());
  }
}

Cost max_pool_cost(const Attributes& attributes, std::span<const TensorType> in, std::span<const TensorType> out) {
  const auto& a = std::get<PoolAttrs>(attributes);
  return elementwise_cost(in, out, static_cast<double>(a.kernel.h * a.kernel.w));
}

std::vector<TensorType> global_avg_pool_shape(const InferCall& call) {
  const ShapeRule rule("quantized_global_avg_pool", call);
  rule.inputs(2);
  rule.rank(0, "input", 4, "N,C,H,W");
  require_bytes(rule);
  rule.type(1, "scale", {DType::f32, {1}});
  return {{DType::f32, {rule.shape(0)[0], rule.shape(0)[1], 1, 1}}};
}

void global_avg_pool_ref(const RefCall& call) {
  const int64_t P = pixels(call.in[0].shape());
  const float share = call.in[1].as<float>()[0] / static_cast<float>(P);
  for (int64_t plane = 0; plane < call.out[0].shape().elements(); ++plane) {
    int64_t sum = 0;
    for (int64_t i = plane * P; i < (plane + 1) * P; ++i) sum += byte_at(call.in[0], i);
    call.out[0].as<float>()[plane] = static_cast<float>(sum) * share;
  }
}

Cost global_avg_pool_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  Cost cost = elementwise_cost(in, out, 1);
  cost.flops += count(in[0]);
  return cost;
}

}  // namespace

const OpDef kQuantizedMaxPool = {.name = "quantized_max_pool",
                                 .infer = max_pool_shape,
                                 .grad = no_gradient,
                                 .ref = max_pool_ref,
                                 .cost = max_pool_cost};

const OpDef kQuantizedGlobalAvgPool = {.name = "quantized_global_avg_pool",
                                       .infer = global_avg_pool_shape,
                                       .grad = no_gradient,
                                       .ref = global_avg_pool_ref,
                                       .cost = global_avg_pool_cost};

}  // namespace resnet
