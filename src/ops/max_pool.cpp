#include "ops/max_pool.h"

#include <algorithm>
#include <cmath>

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

std::vector<TensorType> max_pool_shape(const InferCall& call) {
  const ShapeRule rule("max_pool", call);
  const auto& a = std::get<PoolAttrs>(call.attributes);
  rule.inputs(1);
  rule.rank(0, "input", 4, "N,C,H,W");
  rule.floating(0, "input");
  const Shape y = pooled_shape(rule, rule.shape(0), a);
  if (a.ceil_mode) rule.fail("ceil_mode is not supported; expected windows that end inside the padded image");
  if (a.kernel.h * a.kernel.w > 255) {
    rule.fail("kernel {}x{} has {} elements, at most 255 are supported (the index is a byte)", a.kernel.h, a.kernel.w,
              a.kernel.h * a.kernel.w);
  }
  return {{rule.in(0).dtype, y}, {DType::u8, y}};
}

std::vector<TensorType> grad_shape(const InferCall& call) {
  const ShapeRule rule("max_pool_grad", call);
  const auto& a = std::get<PoolGradAttrs>(call.attributes);
  rule.inputs(2);
  rule.floating(0, "dy");
  check(a.shape.rank() == 4, "max_pool_grad: the shape attribute is not [N,C,H,W]");
  const Shape y = pooled_shape(rule, a.shape, a.pool);
  rule.type(0, "dy", {rule.in(0).dtype, y});
  rule.type(1, "index", {DType::u8, y});
  return {{rule.in(0).dtype, a.shape}};
}

std::vector<Value> max_pool_grad(GradContext& context) {
  return {context.add(kMaxPoolGrad, {context.dy(), context.output(1)},
                      PoolGradAttrs{context.attributes<PoolAttrs>(), context.input(0).shape()})};
}

// Tells body(element of y, first row, first column) for each window; rows and columns may lie in the padding.
template <class Body>
void each_window(const PoolAttrs& a, const Shape& y, int64_t plane, Body&& body) {
  for (int64_t ho = 0; ho < y[2]; ++ho) {
    for (int64_t wo = 0; wo < y[3]; ++wo) {
      body((plane * y[2] + ho) * y[3] + wo, ho * a.stride.h - a.pad.h, wo * a.stride.w - a.pad.w);
    }
  }
}

void max_pool_ref(const RefCall& call) {
  const auto& a = std::get<PoolAttrs>(call.attributes);
  const Shape& xs = call.in[0].shape();
  const int64_t H = xs[2];
  const int64_t W = xs[3];
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    for (int64_t plane = 0; plane < xs[0] * xs[1]; ++plane) {
      const T* x = call.in[0].as<T>() + plane * H * W;
      each_window(a, call.out[0].shape(), plane, [&](int64_t element, int64_t h0, int64_t w0) {
        bool found = false;
        T best{};
        int64_t index = 0;
        for (int64_t r = std::max<int64_t>(0, -h0); r < std::min(a.kernel.h, H - h0); ++r) {
          for (int64_t s = std::max<int64_t>(0, -w0); s < std::min(a.kernel.w, W - w0); ++s) {
            const T value = x[(h0 + r) * W + w0 + s];
            if (!found || value > best || std::isnan(value)) {
              found = true;
              best = value;
              index = r * a.kernel.w + s;
            }
          }
        }
        call.out[0].as<T>()[element] = best;
        call.out[1].as<uint8_t>()[element] = static_cast<uint8_t>(index);
      });
    }
  });
}

void grad_ref(const RefCall& call) {
  const auto& a = std::get<PoolGradAttrs>(call.attributes);
  const int64_t W = a.shape[3];
  const int64_t size = a.shape[2] * W;
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* dy = call.in[0].as<T>();
    const uint8_t* index = call.in[1].as<uint8_t>();
    for (int64_t plane = 0; plane < a.shape[0] * a.shape[1]; ++plane) {
      std::vector<double> sums(static_cast<size_t>(size));
      each_window(a.pool, call.in[0].shape(), plane, [&](int64_t element, int64_t h0, int64_t w0) {
        const int64_t r = index[element] / a.pool.kernel.w;
        const int64_t s = index[element] % a.pool.kernel.w;
        sums[static_cast<size_t>((h0 + r) * W + w0 + s)] += static_cast<double>(dy[element]);
      });
      for (int64_t i = 0; i < size; ++i)
        call.out[0].as<T>()[plane * size + i] = static_cast<T>(sums[static_cast<size_t>(i)]);
    }
  });
}

Cost max_pool_cost(const Attributes& attributes, std::span<const TensorType> in, std::span<const TensorType> out) {
  const auto& a = std::get<PoolAttrs>(attributes);
  return elementwise_cost(in, out, static_cast<double>(a.kernel.h * a.kernel.w));
}

Cost grad_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  Cost cost = elementwise_cost(in, out, 0);
  cost.flops = count(in[0]);
  return cost;
}

}  // namespace

const OpDef kMaxPool = {
    .name = "max_pool", .infer = max_pool_shape, .grad = max_pool_grad, .ref = max_pool_ref, .cost = max_pool_cost};

const OpDef kMaxPoolGrad = {
    .name = "max_pool_grad", .infer = grad_shape, .grad = no_gradient, .ref = grad_ref, .cost = grad_cost};

Value max_pool(Value x, PoolAttrs attrs, std::string name) {
  return x.graph->add(kMaxPool, {x}, attrs, std::move(name));
}

}  // namespace resnet
