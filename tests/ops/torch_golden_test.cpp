// Every op, forward and backward, against PyTorch's double-precision results. tools/op_goldens.py made the file;
// its first line names the versions.

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "ops/add.h"
#include "ops/avg_pool.h"
#include "ops/batch_norm.h"
#include "ops/blur_pool.h"
#include "ops/channel_conv.h"
#include "ops/conv2d.h"
#include "ops/global_avg_pool.h"
#include "ops/gradient_check.h"
#include "ops/linear.h"
#include "ops/max_pool.h"
#include "ops/relu.h"
#include "ops/reshape.h"
#include "ops/running_average.h"
#include "ops/scale.h"
#include "ops/sgd_update.h"
#include "ops/sigmoid.h"
#include "ops/softmax_cross_entropy.h"

namespace resnet {
namespace {

using namespace testing;

constexpr uint64_t kCotangentSeed = 99;

struct Golden {
  std::string name, op;
  std::map<std::string, std::vector<double>> attrs;
  Tensors inputs;
  Tensors results;

  double number(const std::string& key) const { return attrs.at(key)[0]; }
  Size2 size(const std::string& key) const {
    return {static_cast<int64_t>(attrs.at(key)[0]), static_cast<int64_t>(attrs.at(key)[1])};
  }
};

// The same formula as draw() in tools/op_goldens.py.
Tensor draw(const Shape& shape, uint64_t seed, bool positive = false) {
  Tensor tensor(DType::f64, shape);
  uint64_t index = 1000003 * seed + 1;
  for (double& value : tensor.as<double>()) {
    uint64_t bits = index++ * 2654435761u % (uint64_t{1} << 32);
    bits = (bits ^ (bits >> 15)) * 2246822519u % (uint64_t{1} << 32);
    value = static_cast<double>(bits) * 0x1.0p-31 - 1;
    if (positive) value = std::abs(value) + 0.5;
  }
  return tensor;
}

Shape parse_shape(std::string text) {
  if (text == "scalar") return {};
  std::replace(text.begin(), text.end(), 'x', ' ');
  std::istringstream stream(text);
  std::vector<int64_t> dims;
  for (int64_t dim = 0; stream >> dim;) dims.push_back(dim);
  return Shape(dims);
}

std::vector<double> rest_of(std::istream& line) {
  std::vector<double> numbers;
  for (std::string word; line >> word;) numbers.push_back(std::stod(word));
  return numbers;
}

std::vector<Golden> read_goldens() {
  std::ifstream file(RESNET_SOURCE_DIR "/tests/ops/op_goldens.txt");
  std::vector<Golden> goldens;
  for (std::string text; std::getline(file, text);) {
    std::istringstream line(text);
    std::string kind, name, shape;
    line >> kind >> name;
    if (kind == "case") {
      goldens.push_back({.name = name, .op = {}, .attrs = {}, .inputs = {}, .results = {}});
      line >> goldens.back().op;
    } else if (kind == "attr") {
      goldens.back().attrs[name] = rest_of(line);
    } else if (kind == "input") {
      uint64_t seed = 0;
      std::string positive;
      line >> shape >> seed >> positive;
      goldens.back().inputs[name] = draw(parse_shape(shape), seed, positive == "positive");
    } else if (kind == "labels") {
      std::vector<int32_t> labels{std::stoi(name)};
      for (double label : rest_of(line)) labels.push_back(static_cast<int32_t>(label));
      goldens.back().inputs["labels"] = i32({static_cast<int64_t>(labels.size())}, labels);
    } else if (kind == "result") {
      line >> shape;
      goldens.back().results[name] = f64(parse_shape(shape), rest_of(line));
    }
  }
  return goldens;
}

PoolAttrs pool_attrs(const Golden& c) {
  PoolAttrs attrs{.kernel = c.size("kernel"), .stride = c.size("stride"), .pad = c.size("pad")};
  if (c.attrs.contains("count_include_pad")) attrs.count_include_pad = c.number("count_include_pad") != 0;
  attrs.ceil_mode = c.attrs.contains("ceil_mode");
  return attrs;
}

Value batch_norm_of(Graph& g, const Leaves& in, const Golden& c) {
  const BatchNormAttrs attrs{.epsilon = c.number("epsilon"),
                             .training = c.number("training") != 0,
                             .residual = c.number("residual") != 0,
                             .relu = c.number("relu") != 0};
  std::vector<Value> inputs{in.at("x"), in.at("gamma"), in.at("beta")};
  if (!attrs.training) inputs.insert(inputs.end(), {in.at("mean"), in.at("var")});
  if (attrs.residual) inputs.push_back(in.at("residual"));
  const Value y = g.add(attrs.training ? kBatchNorm : kBatchNormInference, std::move(inputs), attrs);
  if (attrs.training) {
    // PyTorch's running variance is the unbiased one.
    const auto count = static_cast<double>(y.shape().elements() / y.shape()[1]);
    const Value guard = g.input("guard", f64_type({}));
    g.set_output("running_mean", running_average(in.at("mean"), g.value(y.node, 1), guard, {.momentum = 0.1}));
    g.set_output("running_var", running_average(in.at("var"), g.value(y.node, 2), guard,
                                                {.momentum = 0.1, .scale = count / (count - 1)}));
  }
  return y;
}

Value residual_of(const Leaves& in, const Golden& c) {
  auto norm = [&](const std::string& name, Value v) {
    return batch_norm_training(v, in.at(name + ".weight"), in.at(name + ".bias"), 1e-5, name).y;
  };
  auto conv = [&](const std::string& name, Value v, Conv2dAttrs attrs) {
    return conv2d(v, in.at(name + ".weight"), in.at(name + ".bias"), attrs, name);
  };
  const auto stride = static_cast<int64_t>(c.number("stride"));
  const Value x = in.at("x");
  const Value y = relu(norm("bn1", conv("conv1", x, {.stride = {stride, stride}, .pad = {1, 1}})));
  const Value branch = norm("bn2", conv("conv2", y, {.pad = {1, 1}}));
  return relu(branch + (in.contains("conv3.weight") ? conv("conv3", x, {.stride = {stride, stride}}) : x));
}

// Builds the op and names its further results as outputs; returns y.
Value build(Graph& g, const Leaves& in, const Golden& c) {
  auto bias = [&] { return in.contains("b") ? in.at("b") : Value{}; };
  if (c.op == "conv2d") {
    return conv2d(in.at("x"), in.at("w"), bias(),
                  {.stride = c.size("stride"),
                   .pad = c.size("pad"),
                   .dilation = c.size("dilation"),
                   .groups = static_cast<int64_t>(c.number("groups"))});
  }
  if (c.op == "batch_norm") return batch_norm_of(g, in, c);
  if (c.op == "relu") return relu(in.at("x"));
  if (c.op == "add") return in.at("a") + in.at("b");
  if (c.op == "max_pool") {
    const Value y = max_pool(in.at("x"), pool_attrs(c));
    g.set_output("index", g.value(y.node, 1));
    return y;
  }
  if (c.op == "avg_pool") return avg_pool(in.at("x"), pool_attrs(c));
  if (c.op == "sigmoid") return sigmoid(in.at("x"));
  if (c.op == "scale") return scale(in.at("x"), in.at("s"));
  if (c.op == "channel_conv") return channel_conv(in.at("x"), in.at("w"));
  if (c.op == "blur_pool") return blur_pool(in.at("x"), static_cast<int64_t>(c.number("stride")));
  if (c.op == "global_avg_pool") return global_avg_pool(in.at("x"));
  if (c.op == "flatten") return flatten(in.at("x"));
  if (c.op == "linear") return linear(in.at("x"), in.at("w"), bias());
  if (c.op == "softmax_cross_entropy") {
    const auto r = softmax_cross_entropy(in.at("x"), in.at("labels"), c.number("label_smoothing"));
    g.set_output("probabilities", r.probabilities);
    g.set_output("correct", r.correct);
    return r.loss;
  }
  check(c.op == "residual", "the golden file has an op this test does not know");
  return residual_of(in, c);
}

Tensors forward_and_backward(const Golden& c) {
  Graph g;
  const Leaves leaves = add_leaves(g, c.inputs);
  const Value y = build(g, leaves, c);
  g.set_output("y", y);
  std::vector<Value> wrt;
  std::vector<std::string> names;
  for (const auto& [name, leaf] : leaves) {
    if (!c.results.contains("d/" + name)) continue;
    wrt.push_back(leaf);
    names.push_back(name);
  }
  const std::pair<Value, Value> seed{y, g.input("cotangent", y.type())};
  const std::vector<Value> gradients_of = gradients(g, std::span(&seed, 1), wrt);
  for (size_t i = 0; i < names.size(); ++i) g.set_output("d/" + names[i], gradients_of[i]);
  verify(g);
  Tensors fed = c.inputs;
  fed["cotangent"] = draw(y.shape(), kCotangentSeed);
  fed["guard"] = f64({}, {1});
  return evaluate(g, fed);
}

Tensors sgd_steps(const Golden& c) {
  const SgdAttrs attrs{.momentum = c.number("momentum"),
                       .weight_decay = c.number("weight_decay"),
                       .nesterov = c.number("nesterov") != 0};
  const TensorType type = c.inputs.at("param").type();
  Graph g;
  const Value param = g.state("param", type, {}, true);
  const Value buffer = attrs.momentum != 0 ? g.state("buffer", type, {}, false) : Value{};
  const auto r = sgd_update(param, g.input("grad", type), g.input("lr", f64_type({})), g.input("guard", f64_type({})),
                            buffer, attrs);
  g.assign(param, r.param);
  if (buffer) g.assign(buffer, r.buffer);
  Tensors states{{"param", c.inputs.at("param")}, {"buffer", Tensor(type)}};
  for (uint64_t step = 0; step < static_cast<uint64_t>(c.number("steps")); ++step) {
    Tensors fed = states;
    fed["grad"] = draw(type.shape, 50 + step);
    fed["lr"] = f64({}, {c.number("lr")});
    fed["guard"] = f64({}, {1});
    for (auto& [name, value] : evaluate(g, fed)) states[name] = value;
  }
  return states;
}

void expect_equal(const Tensor& actual, const Tensor& expected) {
  ASSERT_EQ(actual.shape(), expected.shape());
  std::vector<double> numbers;
  if (actual.dtype() == DType::u8) {
    for (uint8_t value : actual.as<uint8_t>()) numbers.push_back(value);
  } else {
    numbers = values<double>(actual);
  }
  double scale = 1;
  for (double value : expected.as<double>()) scale = std::max(scale, std::abs(value));
  // A few hundred roundings at most stand between the two orders of summation.
  for (size_t i = 0; i < numbers.size(); ++i) EXPECT_NEAR(numbers[i], expected.as<double>()[i], 1e-13 * scale) << i;
}

TEST(TorchGoldens, EveryOpEqualsPyTorchForwardAndBackward) {
  const std::vector<Golden> goldens = read_goldens();
  std::set<std::string> ops;
  size_t gradients_compared = 0;
  for (const Golden& c : goldens) {
    SCOPED_TRACE(c.name);
    ops.insert(c.op);
    const Tensors actual = c.op == "sgd_update" ? sgd_steps(c) : forward_and_backward(c);
    ASSERT_FALSE(c.results.empty());
    for (const auto& [name, expected] : c.results) {
      SCOPED_TRACE(name);
      ASSERT_TRUE(actual.contains(name));
      expect_equal(actual.at(name), expected);
      gradients_compared += name.starts_with("d/");
    }
  }
  EXPECT_EQ(goldens.size(), 46u);
  EXPECT_EQ(ops.size(), 16u);
  EXPECT_GE(gradients_compared, 80u);
}

}  // namespace
}  // namespace resnet
