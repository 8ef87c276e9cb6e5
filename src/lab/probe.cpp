#include "lab/probe.h"

#include <algorithm>
#include <cmath>
#include <queue>
#include <set>

#include "autodiff/gradients.h"
#include "lab/judgement.h"
#include "ops/conv2d.h"
#include "ops/l2_norm.h"
#include "ops/linear.h"
#include "ops/softmax_cross_entropy.h"

namespace resnet {
namespace {

struct ForwardGraph {
  std::unique_ptr<Graph> graph = std::make_unique<Graph>();
  Value images;
  Value loss;
};

/// The model in training mode with its loss; running statistics stay as they are.
ForwardGraph make_forward(const ModelSpec& model, const ModelOptions& options, const Shape& shape,
                          const std::set<std::string>& disabled_passes) {
  ForwardGraph f;
  f.images = f.graph->input("images", {DType::f32, shape});
  const Value labels = f.graph->input("labels", {DType::i32, Shape{shape[0]}});
  ModelBuilder builder{*f.graph, DType::f32, true, {}};
  f.graph->set_output("loss",
                      softmax_cross_entropy(build_model(model, Scope(builder), f.images, options), labels).loss);
  run_forward_passes(*f.graph, {.disabled = disabled_passes, .observer = {}});
  f.loss = f.graph->outputs().at("loss");
  return f;
}

std::string numbered(const char* what, size_t i) { return fmt::format("{}:{}", what, i); }

}  // namespace

std::unique_ptr<Graph> make_layer_probe(const ModelSpec& model, const ModelOptions& options, const Shape& images,
                                        std::vector<std::string>& layers) {
  ForwardGraph f = make_forward(model, options, images, {});
  Graph& graph = *f.graph;
  std::vector<Value> weights, outputs;
  layers.clear();
  for (const int32_t id : graph.live_nodes()) {
    const Node& node = graph.node(id);
    if (node.op != &kConv2d && node.op != &kLinear) continue;
    layers.push_back(node.name);
    weights.push_back(node.inputs[1]);
    outputs.push_back(graph.value(id));
  }
  std::vector<Value> wrt = weights;
  wrt.insert(wrt.end(), outputs.begin(), outputs.end());
  const std::vector<Value> found = gradients(f.loss, wrt);
  for (size_t i = 0; i < layers.size(); ++i) {
    graph.set_output(numbered("weight", i), l2_norm(found[i]));
    graph.set_output(numbered("output", i), l2_norm(found[layers.size() + i]));
  }
  return std::move(f.graph);
}

LayerProbe::LayerProbe(Specimen& net)
    : net_(net), program_(&net.compile(make_layer_probe(net.spec(), net.model_options(), net.images(), layers_))) {}

LayerGradients LayerProbe::measure() {
  net_.run_on_first_batch(*program_);
  LayerGradients g{.loss = program_->scalar("loss"), .layers = {}};
  for (size_t i = 0; i < layers_.size(); ++i) {
    g.layers.push_back({layers_[i], program_->scalar(numbered("weight", i)), program_->scalar(numbered("output", i))});
  }
  return g;
}

std::vector<ResidualSum> residual_sums(Graph& graph, Value input) {
  std::vector<int32_t> place(graph.size(), -1);  // in the order of the work
  std::vector<int32_t> order = graph.live_nodes();
  for (size_t i = 0; i < order.size(); ++i) place[static_cast<size_t>(order[i])] = static_cast<int32_t>(i);

  std::vector<ResidualSum> sums;
  for (const int32_t id : order) {
    const Node& node = graph.node(id);
    if (node.op != &kAdd) continue;
    // Walk back from both terms, last node first, marking who is reached from which: the first that both reach is
    // where the paths part.
    enum : char { kFirst = 1, kSecond = 2 };
    std::map<Value, char> reached;  // values, by the sides that depend on them
    std::priority_queue<std::pair<int32_t, Value>> next;
    const auto reach = [&](Value value, char side) {
      const auto [at, is_new] = reached.emplace(value, static_cast<char>(0));
      at->second = static_cast<char>(at->second | side);
      if (is_new) next.emplace(place[static_cast<size_t>(value.node)], value);
    };
    reach(node.inputs[0], kFirst);
    reach(node.inputs[1], kSecond);
    int64_t first_nodes = 0, second_nodes = 0;
    Value fork;
    while (!next.empty() && !fork) {
      const Value value = next.top().second;
      next.pop();
      const char sides = reached.at(value);
      if (sides == (kFirst | kSecond)) {
        fork = value;
      } else if (graph.node(value).kind == NodeKind::op) {
        ++(sides == kFirst ? first_nodes : second_nodes);
        for (const Value& operand : graph.node(value).inputs) reach(operand, sides);
      }
    }
    if (!fork || (graph.node(fork).kind != NodeKind::op && fork != input)) continue;
    const bool second_is_branch = second_nodes >= first_nodes;
    sums.push_back({.sum = graph.value(id),
                    .shortcut = node.inputs[second_is_branch ? 0 : 1],
                    .branch = node.inputs[second_is_branch ? 1 : 0],
                    .fork = fork});
  }
  return sums;
}

BlockProbe::BlockProbe(Specimen& net) : net_(net) {
  // The sums must stay nodes of their own.
  ForwardGraph f = make_forward(net.spec(), net.model_options(), net.images(), {"fuse_batch_norm_tail"});
  Graph& graph = *f.graph;
  const std::vector<ResidualSum> sums = residual_sums(graph, f.images);
  if (sums.empty()) throw UserError("{}: has no residual sum to measure; expected a residual net", net.spec().name);
  blocks_ = sums.size();
  std::vector<Value> wrt;
  for (const ResidualSum& s : sums) wrt.insert(wrt.end(), {s.sum, s.fork});
  const std::vector<Value> whole = gradients(f.loss, wrt);
  for (size_t i = 0; i < sums.size(); ++i) {
    const ResidualSum& s = sums[i];
    const Value dy = whole[2 * i];
    const auto through = [&](Value term) {
      if (term == s.fork) return dy;
      const std::pair<Value, Value> pair{term, dy};
      return gradients(graph, std::span(&pair, 1), std::span(&s.fork, 1))[0];
    };
    graph.set_output(numbered("whole", i), whole[2 * i + 1]);
    graph.set_output(numbered("through_shortcut", i), through(s.shortcut));
    graph.set_output(numbered("through_branch", i), through(s.branch));
    graph.set_output(numbered("shortcut_norm", i), l2_norm(s.shortcut));
    graph.set_output(numbered("branch_norm", i), l2_norm(s.branch));
  }
  program_ = &net.compile(std::move(f.graph));
}

std::vector<BlockGradient> BlockProbe::measure() {
  net_.run_on_first_batch(*program_);
  std::vector<BlockGradient> blocks;
  for (size_t i = 0; i < blocks_; ++i) {
    const Tensor whole = program_->output(numbered("whole", i));
    const Tensor shortcut = program_->output(numbered("through_shortcut", i));
    const Tensor branch = program_->output(numbered("through_branch", i));
    BlockGradient b;
    for (size_t k = 0; k < whole.as<float>().size(); ++k) {
      const double total = whole.as<float>()[k], direct = shortcut.as<float>()[k], learned = branch.as<float>()[k];
      b.shortcut += direct * direct;
      b.branch += learned * learned;
      b.total += total * total;
      b.largest_total = larger(b.largest_total, std::abs(total));
      b.largest_gap = larger(b.largest_gap, std::abs(direct + learned - total));
    }
    b.shortcut = std::sqrt(b.shortcut);
    b.branch = std::sqrt(b.branch);
    b.total = std::sqrt(b.total);
    b.branch_share = program_->scalar(numbered("branch_norm", i)) / program_->scalar(numbered("shortcut_norm", i));
    blocks.push_back(b);
  }
  return blocks;
}

}  // namespace resnet
