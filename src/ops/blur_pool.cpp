#include "ops/blur_pool.h"

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

constexpr double kTaps[3] = {0.25, 0.5, 0.25};

Shape blurred_shape(const ShapeRule& rule, const Shape& x, const PoolAttrs& a) {
  check(a.kernel == Size2{3, 3} && a.pad == Size2{1, 1} && !a.ceil_mode, "blur_pool: the filter is 3x3 with pad 1");
  if (x[2] < 2 || x[3] < 2)
    rule.fail("input has shape {}; expected 2 pixels or more on each side, to mirror the border", x.str());
  return pooled_shape(rule, x, a);
}

std::vector<TensorType> blur_pool_shape(const InferCall& call) {
  const ShapeRule rule("blur_pool", call);
  rule.inputs(1);
  rule.rank(0, "input", 4, "N,C,H,W");
  rule.floating(0, "input");
  return {{rule.in(0).dtype, blurred_shape(rule, rule.shape(0), std::get<PoolAttrs>(call.attributes))}};
}

std::vector<TensorType> grad_shape(const InferCall& call) {
  const ShapeRule rule("blur_pool_grad", call);
  const auto& a = std::get<PoolGradAttrs>(call.attributes);
  rule.inputs(1);
  rule.floating(0, "dy");
  check(a.shape.rank() == 4, "blur_pool_grad: the shape attribute is not [N,C,H,W]");
  const DType dtype = rule.in(0).dtype;
  rule.type(0, "dy", {dtype, blurred_shape(rule, a.shape, a.pool)});
  return {{dtype, a.shape}};
}

std::vector<Value> blur_pool_grad(GradContext& context) {
  return {context.add(kBlurPoolGrad, {context.dy()},
                      PoolGradAttrs{context.attributes<PoolAttrs>(), context.input(0).shape()})};
}

/// Where index i, which may lie one beyond either end of [0, size), is mirrored to.
int64_t mirrored(int64_t i, int64_t size) { return i < 0 ? -i : i < size ? i : 2 * (size - 1) - i; }

/// Tells body(element of y, element of x, weight) for each tap of each window of one map.
template <class Body>
void each_tap(const PoolAttrs& a, const Shape& x, const Shape& y, Body&& body) {
  for (int64_t ho = 0; ho < y[2]; ++ho) {
    for (int64_t wo = 0; wo < y[3]; ++wo) {
      for (int64_t r = 0; r < 3; ++r) {
        for (int64_t s = 0; s < 3; ++s) {
          const int64_t h = mirrored(ho * a.stride.h + r - 1, x[2]), w = mirrored(wo * a.stride.w + s - 1, x[3]);
          body(ho * y[3] + wo, h * x[3] + w, kTaps[r] * kTaps[s]);
        }
      }
    }
  }
}

void blur_pool_ref(const RefCall& call) {
  const Shape& xs = call.in[0].shape();
  const Shape& ys = call.out[0].shape();
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    for (int64_t plane = 0; plane < xs[0] * xs[1]; ++plane) {
      const T* x = call.in[0].as<T>() + plane * pixels(xs);
      std::vector<double> sums(static_cast<size_t>(pixels(ys)));
      each_tap(std::get<PoolAttrs>(call.attributes), xs, ys, [&](int64_t to, int64_t from, double weight) {
        sums[static_cast<size_t>(to)] += weight * static_cast<double>(x[from]);
      });
      T* y = call.out[0].as<T>() + plane * pixels(ys);
      for (size_t i = 0; i < sums.size(); ++i) y[i] = static_cast<T>(sums[i]);
    }
  });
}

void grad_ref(const RefCall& call) {
  const auto& a = std::get<PoolGradAttrs>(call.attributes);
  const Shape& ys = call.in[0].shape();
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    for (int64_t plane = 0; plane < a.shape[0] * a.shape[1]; ++plane) {
      const T* dy = call.in[0].as<T>() + plane * pixels(ys);
      std::vector<double> sums(static_cast<size_t>(pixels(a.shape)));
      each_tap(a.pool, a.shape, ys, [&](int64_t from, int64_t to, double weight) {
        sums[static_cast<size_t>(to)] += weight * static_cast<double>(dy[from]);
      });
      T* dx = call.out[0].as<T>() + plane * pixels(a.shape);
      for (size_t i = 0; i < sums.size(); ++i) dx[i] = static_cast<T>(sums[i]);
    }
  });
}

Cost blur_pool_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  return elementwise_cost(in, out, 2 * 9);
}

Cost grad_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  Cost cost = elementwise_cost(in, out, 0);
  cost.flops = 2 * 9 * count(in[0]);
  return cost;
}

}  // namespace

const OpDef kBlurPool = {.name = "blur_pool",
                         .infer = blur_pool_shape,
                         .grad = blur_pool_grad,
                         .ref = blur_pool_ref,
                         .cost = blur_pool_cost};

const OpDef kBlurPoolGrad = {
    .name = "blur_pool_grad", .infer = grad_shape, .grad = no_gradient, .ref = grad_ref, .cost = grad_cost};

Value blur_pool(Value x, int64_t stride, std::string name) {
  const PoolAttrs attrs{.kernel = {3, 3}, .stride = {stride, stride}, .pad = {1, 1}};
  return x.graph->add(kBlurPool, {x}, attrs, std::move(name));
}

}  // namespace resnet
