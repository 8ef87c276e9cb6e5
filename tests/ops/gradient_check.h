#pragma once
// Gradient rules against central differences, in double. The loss is dot(output, random cotangent): with
// sum(output), training batch norm and softmax have a true gradient of zero and prove nothing.

#include <functional>
#include <set>

#include "autodiff/gradients.h"
#include "ops/evaluate.h"
#include "ops/relu.h"

namespace resnet::testing {

using Leaves = std::map<std::string, Value>;
using Build = std::function<Value(Graph&, const Leaves&)>;

struct GradientCase {
  Tensors inputs;                        ///< each f64 one is differentiated
  Build build;                           ///< must build the output from the leaves
  Build kinks = {};                      ///< optional: values that must keep away from 0 besides the inputs of relu ops
  std::set<std::string> constants = {};  ///< inputs that are not differentiated
};

struct GradientReport {
  bool near_kink = false;
  double worst = 0;    ///< largest |rule - difference| / (1 + |difference|)
  double largest = 0;  ///< largest gradient seen: a check of zeros against zeros proves nothing
  std::string where;
};

inline Leaves add_leaves(Graph& graph, const Tensors& inputs) {
  Leaves leaves;
  for (const auto& [name, tensor] : inputs) leaves[name] = graph.input(name, tensor.type());
  return leaves;
}

inline double dot(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (size_t i = 0; i < a.as<double>().size(); ++i) sum += a.as<double>()[i] * b.as<double>()[i];
  return sum;
}

inline bool near_kink(const GradientCase& c) {
  constexpr double kMargin = 1e-3;
  Graph graph;
  const Leaves leaves = add_leaves(graph, c.inputs);
  graph.set_output("y", c.build(graph, leaves));
  if (c.kinks) graph.set_output("kinks", c.kinks(graph, leaves));
  for (int32_t id : graph.live_nodes()) {
    if (graph.node(id).op == &kRelu) graph.set_output("relu" + std::to_string(id), graph.node(id).inputs[0]);
  }
  for (const auto& [name, tensor] : evaluate(graph, c.inputs)) {
    if (name == "y") continue;
    for (double value : tensor.as<double>()) {
      if (std::abs(value) < kMargin) return true;
    }
  }
  return false;
}

inline GradientReport compare_gradients(const GradientCase& c, Rng& rng) {
  GradientReport report;
  report.near_kink = near_kink(c);
  if (report.near_kink) return report;

  Graph forward;
  forward.set_output("y", c.build(forward, add_leaves(forward, c.inputs)));
  const Tensor cotangent = random_tensor(forward.outputs().at("y").shape(), rng);

  Graph backward;
  const Leaves leaves = add_leaves(backward, c.inputs);
  const Value y = c.build(backward, leaves);
  const std::pair<Value, Value> seed{y, backward.input("cotangent", cotangent.type())};
  std::vector<Value> wrt;
  std::vector<std::string> names;
  for (const auto& [name, leaf] : leaves) {
    if (leaf.type().dtype != DType::f64 || c.constants.contains(name)) continue;
    wrt.push_back(leaf);
    names.push_back(name);
  }
  const std::vector<Value> results = gradients(backward, std::span(&seed, 1), wrt);
  for (size_t i = 0; i < names.size(); ++i) backward.set_output(names[i], results[i]);
  verify(backward);
  Tensors fed = c.inputs;
  fed["cotangent"] = cotangent;
  const Tensors rules = evaluate(backward, fed);

  constexpr double kStep = 1e-6;
  for (const std::string& name : names) {
    Tensors moved = c.inputs;
    for (size_t i = 0; i < moved[name].as<double>().size(); ++i) {
      double& element = moved[name].as<double>()[i];
      const double before = element;
      element = before + kStep;
      const double above = dot(evaluate(forward, moved).at("y"), cotangent);
      element = before - kStep;
      const double below = dot(evaluate(forward, moved).at("y"), cotangent);
      element = before;
      const double difference = (above - below) / (2 * kStep);
      const double rule = rules.at(name).as<double>()[i];
      const double error = std::abs(rule - difference) / (1 + std::abs(difference));
      report.largest = std::max(report.largest, std::abs(rule));
      if (!(error <= report.worst)) {
        report.worst = error;
        report.where = fmt::format("d/d{}[{}]: rule {}, difference {}", name, i, rule, difference);
      }
    }
  }
  return report;
}

/// Draws `cases` random cases (again where one sits on a kink) and expects every gradient to be right.
inline void check_gradients(int cases, const std::function<GradientCase(Rng&)>& draw) {
  double largest = 0;
  int checked = 0;
  for (uint64_t seed = 0; checked < cases; ++seed) {
    ASSERT_LT(seed, 20u * static_cast<uint64_t>(cases)) << "nearly every case sits on a kink";
    Rng rng(mix(seed));
    const GradientCase c = draw(rng);
    const GradientReport report = compare_gradients(c, rng);
    if (report.near_kink) continue;
    ++checked;
    largest = std::max(largest, report.largest);
    EXPECT_LT(report.worst, 2e-6) << "seed " << seed << ": " << report.where;
  }
  EXPECT_GT(largest, 1e-2) << "every gradient was zero";
}

/// Uniform in [low, high], both included.
inline int64_t draw_between(Rng& rng, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(rng.below(static_cast<uint64_t>(high - low + 1)));
}

}  // namespace resnet::testing
