#include "ops/avg_pool.h"

#include <algorithm>

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> avg_pool_shape(const InferCall& call) {
  const ShapeRule rule("avg_pool", call);
  rule.inputs(1);
  rule.rank(0, "input", 4, "N,C,H,W");
  rule.floating(0, "input");
  return {{rule.in(0).dtype, pooled_shape(rule, rule.shape(0), std::get<PoolAttrs>(call.attributes))}};
}

std::vector<TensorType> grad_shape(const InferCall& call) {
  const ShapeRule rule("avg_pool_grad", call);
  const auto& a = std::get<PoolGradAttrs>(call.attributes);
  rule.inputs(1);
  rule.floating(0, "dy");
  check(a.shape.rank() == 4, "avg_pool_grad: the shape attribute is not [N,C,H,W]");
  const DType dtype = rule.in(0).dtype;
  rule.type(0, "dy", {dtype, pooled_shape(rule, a.shape, a.pool)});
  return {{dtype, a.shape}};
}

std::vector<Value> avg_pool_grad(GradContext& context) {
  return {context.add(kAvgPoolGrad, {context.dy()},
                      PoolGradAttrs{context.attributes<PoolAttrs>(), context.input(0).shape()})};
}

// The part of one window that lies inside the image, and what the sum over it is divided by.
struct Cell {
  Range rows;
  Range columns;
  double divisor;
};

Cell cell(const PoolAttrs& a, const Shape& x, int64_t ho, int64_t wo) {
  const int64_t h0 = ho * a.stride.h - a.pad.h;
  const int64_t w0 = wo * a.stride.w - a.pad.w;
  // In ceil mode a window may pass the padded edge, and what lies behind that does not count even as padding.
  const int64_t padded_rows = std::min(a.kernel.h, x[2] + a.pad.h - h0);
  const int64_t padded_columns = std::min(a.kernel.w, x[3] + a.pad.w - w0);
  Cell result{{std::max<int64_t>(0, h0), std::min(x[2], h0 + a.kernel.h)},
              {std::max<int64_t>(0, w0), std::min(x[3], w0 + a.kernel.w)},
              static_cast<double>(padded_rows * padded_columns)};
  if (!a.count_include_pad) {
    result.divisor =
        static_cast<double>((result.rows.end - result.rows.begin) * (result.columns.end - result.columns.begin));
  }
  return result;
}

void avg_pool_ref(const RefCall& call) {
  const auto& a = std::get<PoolAttrs>(call.attributes);
  const Shape& xs = call.in[0].shape();
  const Shape& ys = call.out[0].shape();
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    T* y = call.out[0].as<T>();
    for (int64_t plane = 0; plane < xs[0] * xs[1]; ++plane) {
      const T* x = call.in[0].as<T>() + plane * xs[2] * xs[3];
      for (int64_t ho = 0; ho < ys[2]; ++ho) {
        for (int64_t wo = 0; wo < ys[3]; ++wo) {
          const Cell window = cell(a, xs, ho, wo);
          double sum = 0;
          for (int64_t h = window.rows.begin; h < window.rows.end; ++h) {
            for (int64_t w = window.columns.begin; w < window.columns.end; ++w)
              sum += static_cast<double>(x[h * xs[3] + w]);
          }
          *y++ = static_cast<T>(sum / window.divisor);
        }
      }
    }
  });
}

void grad_ref(const RefCall& call) {
  const auto& a = std::get<PoolGradAttrs>(call.attributes);
  const Shape& ys = call.in[0].shape();
  const int64_t W = a.shape[3];
  const int64_t size = a.shape[2] * W;
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* dy = call.in[0].as<T>();
    for (int64_t plane = 0; plane < a.shape[0] * a.shape[1]; ++plane) {
      std::vector<double> sums(static_cast<size_t>(size));
      for (int64_t ho = 0; ho < ys[2]; ++ho) {
        for (int64_t wo = 0; wo < ys[3]; ++wo) {
          const Cell window = cell(a.pool, a.shape, ho, wo);
          const double share = static_cast<double>(*dy++) / window.divisor;
          for (int64_t h = window.rows.begin; h < window.rows.end; ++h) {
            for (int64_t w = window.columns.begin; w < window.columns.end; ++w)
              sums[static_cast<size_t>(h * W + w)] += share;
          }
        }
      }
      for (int64_t i = 0; i < size; ++i)
        call.out[0].as<T>()[plane * size + i] = static_cast<T>(sums[static_cast<size_t>(i)]);
    }
  });
}

Cost avg_pool_cost(const Attributes& attributes, std::span<const TensorType> in, std::span<const TensorType> out) {
  const auto& a = std::get<PoolAttrs>(attributes);
  return elementwise_cost(in, out, static_cast<double>(a.kernel.h * a.kernel.w));
}

Cost grad_cost(const Attributes& attributes, std::span<const TensorType> in, std::span<const TensorType> out) {
  const auto& a = std::get<PoolGradAttrs>(attributes);
  Cost cost = elementwise_cost(in, out, 0);
  cost.flops = count(in[0]) * static_cast<double>(a.pool.kernel.h * a.pool.kernel.w);
  return cost;
}

}  // namespace

const OpDef kAvgPool = {
    .name = "avg_pool", .infer = avg_pool_shape, .grad = avg_pool_grad, .ref = avg_pool_ref, .cost = avg_pool_cost};

const OpDef kAvgPoolGrad = {
    .name = "avg_pool_grad", .infer = grad_shape, .grad = no_gradient, .ref = grad_ref, .cost = grad_cost};

Value avg_pool(Value x, PoolAttrs attrs, std::string name) {
  return x.graph->add(kAvgPool, {x}, attrs, std::move(name));
}

}  // namespace resnet
