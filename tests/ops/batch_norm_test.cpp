#include "ops/batch_norm.h"

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

TEST(BatchNorm, HandComputedTrainingCase) {
  Graph g;
  const BatchNormResult r = batch_norm_training(g.input("x", f64_type({2, 2, 1, 2})), g.input("gamma", f64_type({2})),
                                                g.input("beta", f64_type({2})), 3.0);
  g.set_output("y", r.y);
  g.set_output("mean", r.mean);
  g.set_output("var", r.var);
  const Tensors out = evaluate(g, {{"x", f64({2, 2, 1, 2}, {1, 3, 10, 10, 3, 1, 10, 10})},
                                   {"gamma", f64({2}, {4, 2})},
                                   {"beta", f64({2}, {1, -1})}});
  expect_near(out.at("mean"), {2, 10});
  expect_near(out.at("var"), {1, 0});  // biased
  // (x - 2) / sqrt(1 + 3) * 4 + 1 in the first channel; the constant second one becomes beta.
  expect_near(out.at("y"), {-1, 3, -1, -1, 3, -1, -1, -1});
}

TEST(BatchNorm, HandComputedInferenceCase) {
  Graph g;
  auto channel = [&](const char* name) { return g.input(name, f64_type({1})); };
  g.set_output("y", batch_norm_inference(g.input("x", f64_type({3, 1})), channel("gamma"), channel("beta"),
                                         channel("mean"), channel("var"), 1.0));
  const Tensors out = evaluate(g, {{"x", f64({3, 1}, {5, 7, 1})},
                                   {"gamma", f64({1}, {10})},
                                   {"beta", f64({1}, {1})},
                                   {"mean", f64({1}, {5})},
                                   {"var", f64({1}, {3})}});
  expect_near(out.at("y"), {1, 11, -19});
}

TEST(BatchNorm, StatisticsOfLargeOffsetsKeepTheirDigits) {
  Graph g;
  const BatchNormResult r = batch_norm_training(g.input("x", f64_type({4, 1})), g.input("gamma", f64_type({1})),
                                                g.input("beta", f64_type({1})), 0.0);
  g.set_output("var", r.var);
  const Tensors out = evaluate(
      g, {{"x", f64({4, 1}, {1e8 + 1, 1e8 - 1, 1e8 + 1, 1e8 - 1})}, {"gamma", f64({1}, {1})}, {"beta", f64({1}, {0})}});
  expect_near(out.at("var"), {1});
}

struct Form {
  bool training, residual, relu;
};

// The fused form, or with `tail` false what stands before its ReLU.
Value build(Graph& g, const Leaves& in, Form form, bool tail) {
  std::vector<Value> inputs{in.at("x"), in.at("gamma"), in.at("beta")};
  if (!form.training) inputs.insert(inputs.end(), {in.at("mean"), in.at("var")});
  if (form.residual) inputs.push_back(in.at("residual"));
  const BatchNormAttrs attrs{
      .epsilon = 1e-3, .training = form.training, .residual = form.residual, .relu = form.relu && tail};
  return g.add(form.training ? kBatchNorm : kBatchNormInference, std::move(inputs), attrs);
}

Tensor positive(const Shape& shape, Rng& rng) {
  Tensor t(DType::f64, shape);
  for (double& v : t.as<double>()) v = rng.uniform(0.2, 2);
  return t;
}

class BatchNormForms : public ::testing::TestWithParam<Form> {};

TEST_P(BatchNormForms, GradientsAgreeWithCentralDifferences) {
  const Form form = GetParam();
  check_gradients(12, [form](Rng& rng) {
    Shape shape{draw_between(rng, 1, 4), draw_between(rng, 1, 3)};
    if (rng.below(3) != 0) shape = {shape[0], shape[1], draw_between(rng, 1, 3), draw_between(rng, 2, 3)};
    if (shape.rank() == 2) shape[0] += 1;  // one value a channel has no variance
    const Shape channels{shape[1]};
    GradientCase c;
    c.inputs = {{"x", random_tensor(shape, rng)},
                {"gamma", random_tensor(channels, rng)},
                {"beta", random_tensor(channels, rng)}};
    if (form.residual) c.inputs["residual"] = random_tensor(shape, rng);
    if (!form.training) {
      c.inputs["mean"] = random_tensor(channels, rng);
      c.inputs["var"] = positive(channels, rng);
      c.constants = {"mean", "var"};
    }
    c.build = [form](Graph& g, const Leaves& in) { return build(g, in, form, true); };
    if (form.relu) c.kinks = [form](Graph& g, const Leaves& in) { return build(g, in, form, false); };
    return c;
  });
}

TEST_P(BatchNormForms, ValueEqualsTheSeparateOps) {
  const Form form = GetParam();
  Rng rng(8);
  const Shape shape{3, 2, 2, 3};
  const Tensors inputs{{"x", random_tensor(shape, rng)},  {"gamma", random_tensor({2}, rng)},
                       {"beta", random_tensor({2}, rng)}, {"mean", random_tensor({2}, rng)},
                       {"var", positive({2}, rng)},       {"residual", random_tensor(shape, rng)}};
  Graph g;
  const Leaves in = add_leaves(g, inputs);
  g.set_output("fused", build(g, in, form, true));
  g.set_output("plain", build(g, in, {form.training, false, false}, true));
  const Tensors out = evaluate(g, inputs);
  std::vector<double> expected = values<double>(out.at("plain"));
  for (size_t i = 0; i < expected.size(); ++i) {
    if (form.residual) expected[i] += inputs.at("residual").as<double>()[i];
    if (form.relu) expected[i] = std::max(0.0, expected[i]);
  }
  expect_near(out.at("fused"), expected);
}

INSTANTIATE_TEST_SUITE_P(All, BatchNormForms,
                         ::testing::Values(Form{true, false, false}, Form{true, false, true}, Form{true, true, false},
                                           Form{true, true, true}, Form{false, false, false}, Form{false, false, true},
                                           Form{false, true, false}, Form{false, true, true}),
                         [](const auto& form) {
                           return std::string(form.param.training ? "Training" : "Inference") +
                                  (form.param.residual ? "Residual" : "") + (form.param.relu ? "Relu" : "");
                         });

TEST(BatchNorm, StatisticsHaveNoGradient) {
  Graph g;
  const Value x = g.input("x", f64_type({4, 2}));
  const Value gamma = g.input("gamma", f64_type({2}));
  const Value beta = g.input("beta", f64_type({2}));
  const BatchNormResult r = batch_norm_training(x, gamma, beta, 1e-5);
  const std::vector<Value> wrt{x};
  EXPECT_THROW(gradients(r.mean, wrt), InternalError);
  const Value mean = g.input("mean", f64_type({2}));
  const Value var = g.input("var", f64_type({2}));
  const Value y = batch_norm_inference(x, gamma, beta, mean, var, 1e-5);
  const std::vector<Value> wrt_var{var};
  EXPECT_THROW(gradients(y, wrt_var), InternalError);
}

TEST(BatchNorm, ShapeErrorsNameThePathAndBothShapes) {
  Graph g;
  const Value x = g.input("x", f32_type({4, 3, 6, 6}));
  const Value c3 = g.input("c3", f32_type({3}));
  const Value c4 = g.input("c4", f32_type({4}));
  expect_user_error([&] { batch_norm_training(x, c4, c3, 1e-5, "bn1"); },
                    {"batch_norm 'bn1'", "gamma", "f32[4]", "f32[3]"});
  expect_user_error([&] { batch_norm_training(x, c3, c4, 1e-5, "bn1"); }, {"beta", "f32[4]", "f32[3]"});
  expect_user_error([&] { batch_norm_inference(x, c3, c3, c4, c3, 1e-5, "bn2"); },
                    {"batch_norm_inference 'bn2'", "mean", "f32[4]"});
  expect_user_error([&] { batch_norm_training(c3, c3, c3, 1e-5, "bn1"); }, {"bn1", "shape 3"});
  expect_user_error(
      [&] {
        batch_norm_training(g.input("one", f32_type({1, 3, 1, 1})), c3, c3, 1e-5, "4.1.bn2");
      },
      {"'4.1.bn2'", "1x3x1x1", "one value a channel"});
  expect_user_error(
      [&] {
        g.add(kBatchNorm, {x, c3, c3, c3}, BatchNormAttrs{.residual = true}, "bn1");
      },
      {"residual", "f32[3]", "4x3x6x6"});
}

}  // namespace
}  // namespace resnet
