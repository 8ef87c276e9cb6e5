#include "ops/conv2d.h"

#include <algorithm>

#include "base/tensor.h"
#include "ops/channel_sum.h"
#include "ops/matrix.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

Window rows_of(const Conv2dAttrs& a, const Shape& w) { return {w[2], a.stride.h, a.pad.h, a.dilation.h}; }
Window columns_of(const Conv2dAttrs& a, const Shape& w) { return {w[3], a.stride.w, a.pad.w, a.dilation.w}; }

Shape output_shape(const ShapeRule& rule, const Conv2dAttrs& a, const Shape& x, const Shape& w) {
  if (a.groups < 1 || w[0] % a.groups != 0) {
    rule.fail("weight {} has {} filters, which groups={} does not divide", w.str(), w[0], a.groups);
  }
  if (x[1] % a.groups != 0 || x[1] / a.groups != w[1]) {
    rule.fail("input {} has {} channels, weight {} wants {} (groups={}); check the width passed to the layer", x.str(),
              x[1], w.str(), w[1] * a.groups, a.groups);
  }
  return {x[0], w[0], window_count(rule, "height", x[2], rows_of(a, w)),
          window_count(rule, "width", x[3], columns_of(a, w))};
}

// The kernel's rows (or columns) that meet the image at all: one of three for a 3x3 kernel over one padded pixel. The
// rest multiply padding only, so the matrices leave them out.
Range used(const Window& window, int64_t size, int64_t outputs) {
  Range range{window.kernel, 0};
  for (int64_t i = 0; i < window.kernel; ++i) {
    const Range seen = inside(i * window.dilation - window.pad, window.stride, size, outputs);
    if (seen.begin < seen.end) range = {std::min(range.begin, i), i + 1};
  }
  return {std::min(range.begin, range.end), range.end};
}

// The usual letters of a convolution, per group: `channels` of the input and `filters` of the output.
struct Geometry {
  int64_t N, H, W, R, S, Ho, Wo, groups, channels, filters;
  Window rows, columns;
  Range r, s;  ///< the used part of the kernel

  Geometry(const Conv2dAttrs& a, const Shape& x, const Shape& w, const Shape& y)
      : N(x[0]),
        H(x[2]),
        W(x[3]),
        R(w[2]),
        S(w[3]),
        Ho(y[2]),
        Wo(y[3]),
        groups(a.groups),
        channels(w[1]),
        filters(w[0] / a.groups),
        rows(rows_of(a, w)),
        columns(columns_of(a, w)),
        r(used(rows, H, Ho)),
        s(used(columns, W, Wo)) {}

  int64_t taps() const { return channels * (r.end - r.begin) * (s.end - s.begin); }
  int64_t outputs() const { return Ho * Wo; }
  double flops() const {
    return 2.0 * static_cast<double>(N * groups * filters) * static_cast<double>(outputs()) *
           static_cast<double>(channels * R * S);
  }
  /// Images whose unfolded pixels are worked on together: enough for long inner loops, few enough for the cache.
  int64_t images_at_once() const { return std::clamp<int64_t>(1024 / outputs(), 1, N); }
};

// Calls visit(element of the weight) for one group's used taps: filter by filter, in the order of each_run's taps.
template <class Visit>
void each_weight(const Geometry& g, int64_t group, Visit&& visit) {
  for (int64_t plane = group * g.filters * g.channels; plane < (group + 1) * g.filters * g.channels; ++plane) {
    for (int64_t r = g.r.begin; r < g.r.end; ++r) {
      for (int64_t s = g.s.begin; s < g.s.end; ++s) visit((plane * g.R + r) * g.S + s);
    }
  }
}

template <class T>
std::vector<double> gather_weights(const Geometry& g, const T* w, int64_t group) {
  std::vector<double> filters;
  filters.reserve(static_cast<size_t>(g.filters * g.taps()));
  each_weight(g, group, [&](int64_t i) { filters.push_back(static_cast<double>(w[i])); });
  return filters;
}

// The one place that knows which input pixel meets which weight. For `images` images from `first` on, calls
// run(tap, column, pixel, length): tap `tap` at output columns column..column+length-1 reads the input's
// elements pixel, pixel + stride.w, ...; what lies in the padding is left out.
template <class Run>
void each_run(const Geometry& g, int64_t group, int64_t first, int64_t images, Run&& run) {
  int64_t tap = 0;
  for (int64_t c = 0; c < g.channels; ++c) {
    for (int64_t r = g.r.begin; r < g.r.end; ++r) {
      const int64_t dy = r * g.rows.dilation - g.rows.pad;
      const Range ho_range = inside(dy, g.rows.stride, g.H, g.Ho);
      for (int64_t s = g.s.begin; s < g.s.end; ++s, ++tap) {
        const int64_t dx = s * g.columns.dilation - g.columns.pad;
        const Range wo_range = inside(dx, g.columns.stride, g.W, g.Wo);
        const int64_t length = wo_range.end - wo_range.begin;
        if (length == 0) continue;
        for (int64_t i = 0; i < images; ++i) {
          const int64_t plane = ((first + i) * g.groups + group) * g.channels + c;
          for (int64_t ho = ho_range.begin; ho < ho_range.end; ++ho) {
            run(tap, (i * g.Ho + ho) * g.Wo + wo_range.begin,
                (plane * g.H + ho * g.rows.stride + dy) * g.W + wo_range.begin * g.columns.stride + dx, length);
          }
        }
      }
    }
  }
}

// Rows of the output (or its gradient) of one group, [filters][images * Ho * Wo].
template <class Move>
void each_output_row(const Geometry& g, int64_t group, int64_t first, int64_t images, Move&& move) {
  for (int64_t k = 0; k < g.filters; ++k) {
    for (int64_t i = 0; i < images; ++i) {
      const int64_t plane = ((first + i) * g.groups + group) * g.filters + k;
      move(group * g.filters + k, (k * images + i) * g.outputs(), plane * g.outputs());
    }
  }
}

template <class T>
std::vector<double> gather_outputs(const Geometry& g, const T* dy, int64_t group, int64_t first, int64_t images) {
  std::vector<double> rows(static_cast<size_t>(g.filters * images * g.outputs()));
  each_output_row(g, group, first, images, [&](int64_t, int64_t row, int64_t plane) {
    std::copy_n(dy + plane, g.outputs(), rows.data() + row);
  });
  return rows;
}

// y = W * unfold(x), group by group.
template <class T>
void forward(const Geometry& g, const T* x, const T* w, const T* bias, const T* residual, bool relu, T* y) {
  for (int64_t group = 0; group < g.groups; ++group) {
    const std::vector<double> filters = gather_weights(g, w, group);
    for (int64_t first = 0; first < g.N; first += g.images_at_once()) {
      const int64_t images = std::min(g.images_at_once(), g.N - first);
      const int64_t columns = images * g.outputs();
      std::vector<double> unfolded(static_cast<size_t>(g.taps() * columns));
      each_run(g, group, first, images, [&](int64_t tap, int64_t column, int64_t pixel, int64_t length) {
        double* to = unfolded.data() + tap * columns + column;
        for (int64_t i = 0; i < length; ++i) to[i] = static_cast<double>(x[pixel + i * g.columns.stride]);
      });
      std::vector<double> rows(static_cast<size_t>(g.filters * columns));
      add_product(filters.data(), unfolded.data(), rows.data(), g.filters, g.taps(), columns);
      each_output_row(g, group, first, images, [&](int64_t filter, int64_t row, int64_t plane) {
        for (int64_t p = 0; p < g.outputs(); ++p) {
          double sum = rows[static_cast<size_t>(row + p)];
          if (bias) sum += static_cast<double>(bias[filter]);
          if (residual) sum += static_cast<double>(residual[plane + p]);
          y[plane + p] = static_cast<T>(relu && sum <= 0 ? 0.0 : sum);
        }
      });
    }
  }
}

// dx = fold(W^T * dy).
template <class T>
void input_gradient(const Geometry& g, const T* dy, const T* w, T* dx) {
  for (int64_t group = 0; group < g.groups; ++group) {
    const std::vector<double> filters = transposed(gather_weights(g, w, group).data(), g.filters, g.taps());
    for (int64_t first = 0; first < g.N; first += g.images_at_once()) {
      const int64_t images = std::min(g.images_at_once(), g.N - first);
      const int64_t columns = images * g.outputs();
      const std::vector<double> rows = gather_outputs(g, dy, group, first, images);
      std::vector<double> unfolded(static_cast<size_t>(g.taps() * columns));
      add_product(filters.data(), rows.data(), unfolded.data(), g.taps(), g.filters, columns);
      // Pixels of these images, of all groups: each_run counts them from the tensor's start.
      const int64_t image_size = g.groups * g.channels * g.H * g.W;
      std::vector<double> sums(static_cast<size_t>(images * image_size));
      each_run(g, group, first, images, [&](int64_t tap, int64_t column, int64_t pixel, int64_t length) {
        const double* from = unfolded.data() + tap * columns + column;
        double* to = sums.data() + pixel - first * image_size;
        for (int64_t i = 0; i < length; ++i) to[i * g.columns.stride] += from[i];
      });
      const int64_t group_size = g.channels * g.H * g.W;
      for (int64_t i = 0; i < images; ++i) {
        const int64_t at = i * image_size + group * group_size;
        for (int64_t p = at; p < at + group_size; ++p) {
          dx[first * image_size + p] = static_cast<T>(sums[static_cast<size_t>(p)]);
        }
      }
    }
  }
}

// dW = dy * unfold(x)^T.
template <class T>
void weight_gradient(const Geometry& g, const T* x, const T* dy, T* dw) {
  std::fill_n(dw, g.groups * g.filters * g.channels * g.R * g.S, T{0});
  for (int64_t group = 0; group < g.groups; ++group) {
    std::vector<double> sums(static_cast<size_t>(g.filters * g.taps()));
    for (int64_t first = 0; first < g.N; first += g.images_at_once()) {
      const int64_t images = std::min(g.images_at_once(), g.N - first);
      const int64_t columns = images * g.outputs();
      const std::vector<double> rows = gather_outputs(g, dy, group, first, images);
      std::vector<double> unfolded(static_cast<size_t>(columns * g.taps()));
      each_run(g, group, first, images, [&](int64_t tap, int64_t column, int64_t pixel, int64_t length) {
        double* to = unfolded.data() + column * g.taps() + tap;
        for (int64_t i = 0; i < length; ++i) to[i * g.taps()] = static_cast<double>(x[pixel + i * g.columns.stride]);
      });
      add_product(rows.data(), unfolded.data(), sums.data(), g.filters, columns, g.taps());
    }
    auto sum = sums.begin();
    each_weight(g, group, [&](int64_t i) { dw[i] = static_cast<T>(*sum++); });
  }
}

std::vector<TensorType> conv2d_shape(const InferCall& call) {
  const ShapeRule rule("conv2d", call);
  const auto& a = std::get<Conv2dAttrs>(call.attributes);
  rule.inputs(size_t{2} + a.bias + a.residual);
  rule.rank(0, "input", 4, "N,C,H,W");
  rule.floating(0, "input");
  rule.rank(1, "weight", 4, "K,C/groups,R,S");
  const TensorType y{rule.in(0).dtype, output_shape(rule, a, rule.shape(0), rule.shape(1))};
  rule.type(1, "weight", {y.dtype, rule.shape(1)});
  if (a.bias) rule.type(2, "bias", {y.dtype, {y.shape[1]}});
  if (a.residual) rule.type(call.in.size() - 1, "residual", y);
  return {y};
}

std::vector<Value> conv2d_grad(GradContext& context) {
  const auto& a = context.attributes<Conv2dAttrs>();
  if (a.residual || a.relu) {
    throw InternalError(
        fmt::format("conv2d '{}': the fused forms are for inference and have no gradient", context.node.name));
  }
  const Value x = context.input(0);
  const Value w = context.input(1);
  Conv2dAttrs plain = a;
  plain.bias = false;
  std::vector<Value> gradients(context.node.inputs.size());
  if (context.needs(0)) {
    gradients[0] = context.add(kConv2dInputGrad, {context.dy(), w}, Conv2dGradAttrs{plain, x.shape()});
  }
  if (context.needs(1)) {
    gradients[1] = context.add(kConv2dWeightGrad, {x, context.dy()}, Conv2dGradAttrs{plain, w.shape()});
  }
  if (a.bias && context.needs(2)) gradients[2] = context.add(kChannelSum, {context.dy()});
  return gradients;
}

void conv2d_ref(const RefCall& call) {
  const auto& a = std::get<Conv2dAttrs>(call.attributes);
  const Geometry g(a, call.in[0].shape(), call.in[1].shape(), call.out[0].shape());
  with_float(call.out[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    forward(g, call.in[0].as<T>(), call.in[1].as<T>(), a.bias ? call.in[2].as<T>() : nullptr,
            a.residual ? call.in.back().as<T>() : nullptr, a.relu, call.out[0].as<T>());
  });
}

Cost conv2d_cost(const Attributes& attributes, std::span<const TensorType> in, std::span<const TensorType> out) {
  const auto& a = std::get<Conv2dAttrs>(attributes);
  const int per_output = int{a.bias} + int{a.residual} + int{a.relu};
  Cost cost = elementwise_cost(in, out, per_output);
  cost.flops += Geometry(a, in[0].shape, in[1].shape, out[0].shape).flops();
  return cost;
}

std::vector<TensorType> input_grad_shape(const InferCall& call) {
  const ShapeRule rule("conv2d_input_grad", call);
  const auto& a = std::get<Conv2dGradAttrs>(call.attributes);
  rule.inputs(2);
  rule.rank(0, "dy", 4, "N,K,Ho,Wo");
  rule.floating(0, "dy");
  rule.rank(1, "weight", 4, "K,C/groups,R,S");
  check(a.shape.rank() == 4, "conv2d_input_grad: the shape attribute is not [N,C,H,W]");
  const DType dtype = rule.in(0).dtype;
  rule.type(0, "dy", {dtype, output_shape(rule, a.conv, a.shape, rule.shape(1))});
  rule.type(1, "weight", {dtype, rule.shape(1)});
  return {{dtype, a.shape}};
}

void input_grad_ref(const RefCall& call) {
  const auto& a = std::get<Conv2dGradAttrs>(call.attributes);
  const Geometry g(a.conv, a.shape, call.in[1].shape(), call.in[0].shape());
  with_float(call.out[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    input_gradient(g, call.in[0].as<T>(), call.in[1].as<T>(), call.out[0].as<T>());
  });
}

Cost input_grad_cost(const Attributes& attributes, std::span<const TensorType> in, std::span<const TensorType> out) {
  const auto& a = std::get<Conv2dGradAttrs>(attributes);
  Cost cost = elementwise_cost(in, out, 0);
  cost.flops = Geometry(a.conv, a.shape, in[1].shape, in[0].shape).flops();
  return cost;
}

std::vector<TensorType> weight_grad_shape(const InferCall& call) {
  const ShapeRule rule("conv2d_weight_grad", call);
  const auto& a = std::get<Conv2dGradAttrs>(call.attributes);
  rule.inputs(2);
  rule.rank(0, "input", 4, "N,C,H,W");
  rule.floating(0, "input");
  check(a.shape.rank() == 4, "conv2d_weight_grad: the shape attribute is not [K,C/groups,R,S]");
  const DType dtype = rule.in(0).dtype;
  rule.type(1, "dy", {dtype, output_shape(rule, a.conv, rule.shape(0), a.shape)});
  return {{dtype, a.shape}};
}

void weight_grad_ref(const RefCall& call) {
  const auto& a = std::get<Conv2dGradAttrs>(call.attributes);
  const Geometry g(a.conv, call.in[0].shape(), a.shape, call.in[1].shape());
  with_float(call.out[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    weight_gradient(g, call.in[0].as<T>(), call.in[1].as<T>(), call.out[0].as<T>());
  });
}

Cost weight_grad_cost(const Attributes& attributes, std::span<const TensorType> in, std::span<const TensorType> out) {
  const auto& a = std::get<Conv2dGradAttrs>(attributes);
  Cost cost = elementwise_cost(in, out, 0);
  cost.flops = Geometry(a.conv, in[0].shape, a.shape, in[1].shape).flops();
  return cost;
}

}  // namespace

// The residual comes last: behind a bias, or behind the weight.
constexpr InPlace kOverResidual[] = {{0, 3, false}, {0, 2, false}};

const OpDef kConv2d = {.name = "conv2d",
                       .infer = conv2d_shape,
                       .grad = conv2d_grad,
                       .ref = conv2d_ref,
                       .cost = conv2d_cost,
                       .in_place = kOverResidual};

const OpDef kConv2dInputGrad = {.name = "conv2d_input_grad",
                                .infer = input_grad_shape,
                                .grad = no_gradient,
                                .ref = input_grad_ref,
                                .cost = input_grad_cost};

const OpDef kConv2dWeightGrad = {.name = "conv2d_weight_grad",
                                 .infer = weight_grad_shape,
                                 .grad = no_gradient,
                                 .ref = weight_grad_ref,
                                 .cost = weight_grad_cost};

Value conv2d(Value x, Value w, Value bias, Conv2dAttrs attrs, std::string name) {
  attrs.bias = static_cast<bool>(bias);
  std::vector<Value> inputs{x, w};
  if (bias) inputs.push_back(bias);
  return x.graph->add(kConv2d, std::move(inputs), attrs, std::move(name));
}

}  // namespace resnet
