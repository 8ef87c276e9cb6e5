#include "ops/conv2d.h"

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

// Seven loops as in the definition, independent of the unfolding in src/ops.
Tensor direct(const Tensor& x, const Tensor& w, const Conv2dAttrs& a, const Shape& ys) {
  Tensor y(DType::f64, ys);
  const Shape& xs = x.shape();
  const Shape& ws = w.shape();
  const int64_t per_group = ws[0] / a.groups;
  auto at = [](const Tensor& t, int64_t i, int64_t j, int64_t k, int64_t l) {
    const Shape& s = t.shape();
    return t.as<double>()[static_cast<size_t>(((i * s[1] + j) * s[2] + k) * s[3] + l)];
  };
  size_t out = 0;
  for (int64_t n = 0; n < ys[0]; ++n)
    for (int64_t k = 0; k < ys[1]; ++k)
      for (int64_t ho = 0; ho < ys[2]; ++ho)
        for (int64_t wo = 0; wo < ys[3]; ++wo, ++out)
          for (int64_t c = 0; c < ws[1]; ++c)
            for (int64_t r = 0; r < ws[2]; ++r)
              for (int64_t s = 0; s < ws[3]; ++s) {
                const int64_t h = ho * a.stride.h - a.pad.h + r * a.dilation.h;
                const int64_t v = wo * a.stride.w - a.pad.w + s * a.dilation.w;
                if (h < 0 || h >= xs[2] || v < 0 || v >= xs[3]) continue;
                y.as<double>()[out] += at(x, n, k / per_group * ws[1] + c, h, v) * at(w, k, c, r, s);
              }
  return y;
}

struct Drawn {
  Shape x, w;
  Conv2dAttrs attrs;
};

Drawn draw_conv(Rng& rng) {
  Drawn d;
  d.attrs.groups = draw_between(rng, 1, 3);
  d.attrs.stride = {draw_between(rng, 1, 3), draw_between(rng, 1, 3)};
  d.attrs.dilation = {draw_between(rng, 1, 2), draw_between(rng, 1, 2)};
  d.w = {d.attrs.groups * draw_between(rng, 1, 2), draw_between(rng, 1, 2), draw_between(rng, 1, 3),
         draw_between(rng, 1, 3)};
  d.attrs.pad = {draw_between(rng, 0, 2), draw_between(rng, 0, 2)};
  auto size = [&](int64_t kernel, int64_t dilation, int64_t pad) {
    const int64_t least = std::max<int64_t>(1, dilation * (kernel - 1) + 1 - 2 * pad);
    return draw_between(rng, least, least + 4);
  };
  d.x = {draw_between(rng, 1, 3), d.attrs.groups * d.w[1], size(d.w[2], d.attrs.dilation.h, d.attrs.pad.h),
         size(d.w[3], d.attrs.dilation.w, d.attrs.pad.w)};
  return d;
}

TEST(Conv2d, HandComputedCaseWithBiasAndPadding) {
  Graph g;
  const Value x = g.input("x", f64_type({1, 1, 2, 2}));
  const Value w = g.input("w", f64_type({1, 1, 3, 3}));
  const Value b = g.input("b", f64_type({1}));
  g.set_output("y", conv2d(x, w, b, {.pad = {1, 1}}));
  const Tensors y = evaluate(g, {{"x", f64({1, 1, 2, 2}, {1, 2, 3, 4})},
                                 {"w", f64({1, 1, 3, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9})},
                                 {"b", f64({1}, {0.5})}});
  // Top left: 5*1 + 6*2 + 8*3 + 9*4; the kernel is not flipped.
  expect_near(y.at("y"), {77.5, 67.5, 47.5, 37.5});
}

TEST(Conv2d, EqualsSevenPlainLoopsOnRandomShapes) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Rng rng(mix(seed));
    const Drawn d = draw_conv(rng);
    Graph g;
    const Value y = conv2d(g.input("x", f64_type(d.x)), g.input("w", f64_type(d.w)), {}, d.attrs);
    g.set_output("y", y);
    const Tensor x = random_tensor(d.x, rng);
    const Tensor w = random_tensor(d.w, rng);
    const Tensor expected = direct(x, w, d.attrs, y.shape());
    SCOPED_TRACE(fmt::format("seed {}: x {} w {} {}", seed, d.x.str(), d.w.str(), to_string(Attributes(d.attrs))));
    expect_near(evaluate(g, {{"x", x}, {"w", w}}).at("y"), values<double>(expected));
  }
}

TEST(Conv2d, ManyImagesAreWorkedOnInSeveralChunks) {
  Rng rng(5);
  Graph g;
  const Shape xs{5, 2, 24, 24};
  const Shape ws{3, 2, 3, 3};
  const Value y = conv2d(g.input("x", f64_type(xs)), g.input("w", f64_type(ws)), {}, {.pad = {1, 1}});
  g.set_output("y", y);
  const Tensor x = random_tensor(xs, rng);
  const Tensor w = random_tensor(ws, rng);
  expect_near(evaluate(g, {{"x", x}, {"w", w}}).at("y"), values<double>(direct(x, w, {.pad = {1, 1}}, y.shape())));
}

TEST(Conv2d, FusedFormsEqualTheSeparateOps) {
  Rng rng(6);
  const Shape xs{2, 3, 5, 4};
  const Shape ws{4, 3, 3, 3};
  const Shape ys{2, 4, 5, 4};
  Graph g;
  const Value x = g.input("x", f64_type(xs));
  const Value w = g.input("w", f64_type(ws));
  const Value b = g.input("b", f64_type({4}));
  const Value r = g.input("r", f64_type(ys));
  const Conv2dAttrs attrs{.pad = {1, 1}};
  g.set_output("plain", conv2d(x, w, b, attrs));
  g.set_output("fused",
               g.add(kConv2d, {x, w, b, r}, Conv2dAttrs{.pad = {1, 1}, .bias = true, .residual = true, .relu = true}));
  const Tensor residual = random_tensor(ys, rng);
  const Tensors y = evaluate(
      g,
      {{"x", random_tensor(xs, rng)}, {"w", random_tensor(ws, rng)}, {"b", random_tensor({4}, rng)}, {"r", residual}});
  std::vector<double> expected = values<double>(y.at("plain"));
  int zeros = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i] = std::max(0.0, expected[i] + residual.as<double>()[i]);
    zeros += expected[i] == 0;
  }
  EXPECT_GT(zeros, 0);
  EXPECT_LT(zeros, 160);
  expect_near(y.at("fused"), expected);
}

TEST(Conv2d, SinglePrecisionRoundsTheDoubleResultOnce) {
  Graph g;
  const Value x = g.input("x", f32_type({1, 3, 1, 1}));
  const Value w = g.input("w", f32_type({1, 3, 1, 1}));
  g.set_output("y", conv2d(x, w, {}, {}));
  // In single precision 1e8 + 1 - 1e8 is 0; the double accumulator keeps the 1.
  const Tensors y = evaluate(g, {{"x", tensor<float>(DType::f32, {1, 3, 1, 1}, {1e8F, 1, -1e8F})},
                                 {"w", tensor<float>(DType::f32, {1, 3, 1, 1}, {1, 1, 1})}});
  EXPECT_EQ(y.at("y").as<float>()[0], 1.0F);
}

TEST(Conv2d, GradientsAgreeWithCentralDifferences) {
  check_gradients(40, [](Rng& rng) {
    const Drawn d = draw_conv(rng);
    const bool bias = rng.below(2) == 1;
    GradientCase c;
    c.inputs = {{"x", random_tensor(d.x, rng)}, {"w", random_tensor(d.w, rng)}};
    if (bias) c.inputs["b"] = random_tensor({d.w[0]}, rng);
    c.build = [d, bias](Graph&, const Leaves& in) {
      return conv2d(in.at("x"), in.at("w"), bias ? in.at("b") : Value{}, d.attrs);
    };
    return c;
  });
}

TEST(Conv2d, AGradientNobodyAsksForIsNotBuilt) {
  Graph g;
  const Value x = g.input("x", f64_type({1, 2, 4, 4}));
  const Value w = g.state("w", f64_type({3, 2, 3, 3}), {}, true);
  const Value y = conv2d(x, w, {}, {}, "conv1");
  const size_t before = g.size();
  const std::vector<Value> wrt{w};
  const Value dw = gradients(y, wrt)[0];
  EXPECT_EQ(g.size(), before + 2) << "a seed and the weight's gradient";
  EXPECT_EQ(g.node(dw).op, &kConv2dWeightGrad);
  EXPECT_EQ(g.node(dw).name, "grad/conv1");
}

TEST(Conv2d, FusedFormsHaveNoGradient) {
  Graph g;
  const Value x = g.input("x", f64_type({1, 2, 4, 4}));
  const Value w = g.input("w", f64_type({3, 2, 3, 3}));
  const Value y = g.add(kConv2d, {x, w}, Conv2dAttrs{.relu = true});
  const std::vector<Value> wrt{w};
  EXPECT_THROW(gradients(y, wrt), InternalError);
}

TEST(Conv2d, ShapeErrorsNameThePathAndBothShapes) {
  Graph g;
  const Value x = g.input("x", f32_type({4, 3, 6, 6}));
  auto weight = [&](const std::string& name, const Shape& shape) { return g.input(name, f32_type(shape)); };
  expect_user_error(
      [&] {
        conv2d(x, weight("w1", {8, 4, 3, 3}), {}, {}, "layer1.0.conv1");
      },
      {"conv2d 'layer1.0.conv1'", "4x3x6x6", "3 channels", "8x4x3x3 wants 4", "groups=1"});
  expect_user_error([&] { conv2d(x, weight("w2", {8, 1, 3, 3}), {}, {.groups = 3}, "c"); }, {"conv2d 'c'", "groups=3"});
  expect_user_error([&] { conv2d(x, weight("w3", {8, 1, 3, 3}), {}, {.groups = 0}); }, {"conv2d:", "groups=0"});
  expect_user_error(
      [&] {
        conv2d(x, weight("w4", {8, 3, 7, 3}), {}, {}, "stem");
      },
      {"'stem'", "spans 7", "height", "4x3x6x6"});
  expect_user_error([&] { conv2d(x, weight("w5", {8, 3, 3, 3}), {}, {.stride = {1, 0}}); }, {"stride", "width", "0"});
  expect_user_error([&] { conv2d(x, weight("w6", {8, 3, 3, 3}), {}, {.pad = {-1, 0}}); }, {"pad", "height", "-1"});
  expect_user_error([&] { conv2d(x, weight("w7", {8, 3, 3, 3}), {}, {.dilation = {3, 1}}); }, {"spans 7", "height"});
  expect_user_error([&] { conv2d(x, weight("w8", {8, 3, 3}), {}, {}); }, {"weight", "8x3x3", "4 axes"});
  expect_user_error(
      [&] {
        conv2d(x, weight("w9", {8, 3, 3, 3}), weight("b9", {7}), {});
      },
      {"bias", "f32[7]", "f32[8]"});
  expect_user_error([&] { conv2d(x, g.input("wd", f64_type({8, 3, 3, 3})), {}, {}); }, {"weight", "f64", "f32"});
  expect_user_error([&] { conv2d(x, weight("wh", {8, 3, 3, 3}), {}, {.pad = {int64_t{1} << 62, 0}}); }, {"pad"});
}

TEST(Conv2d, CostCountsTwoFlopsAMultiplyAdd) {
  const std::vector<TensorType> in{f32_type({2, 4, 5, 5}), f32_type({6, 2, 3, 3}), f32_type({6})};
  const std::vector<TensorType> out{f32_type({2, 6, 5, 5})};
  const Cost cost = kConv2d.cost(Conv2dAttrs{.pad = {1, 1}, .groups = 2, .bias = true}, in, out);
  EXPECT_EQ(cost.flops, 2.0 * 2 * 6 * 25 * 2 * 9 + 2 * 6 * 25);
  EXPECT_EQ(cost.bytes, 4.0 * (200 + 108 + 6 + 300));
}

}  // namespace
}  // namespace resnet
