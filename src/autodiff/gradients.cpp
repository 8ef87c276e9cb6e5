#include "autodiff/gradients.h"

#include <algorithm>

#include "ops/add.h"
#include "ops/fill.h"

namespace resnet {
namespace {

bool is_float(const TensorType& type) { return type.dtype == DType::f32 || type.dtype == DType::f64; }

// The terms of one value's gradient, in the order in which the backward sweep meets them.
class Terms {
 public:
  explicit Terms(Graph& graph) : graph_(graph) {}

  void add(Value of, Value term, const Node& from) {
    if (of.type() != term.type()) {
      throw InternalError(fmt::format("gradients: {} '{}' gives {} as the gradient of {}",
                                      from.op ? from.op->name : "leaf", from.name, term.type().str(), of.type().str()));
    }
    terms_[of].push_back(term);
  }

  /// None when there are no terms. The sum replaces its terms, so asking twice adds no nodes.
  Value sum(Value of) {
    const auto found = terms_.find(of);
    if (found == terms_.end()) return {};
    std::vector<Value>& terms = found->second;
    const std::string name = graph_.node(of).name.empty() ? "" : "grad/" + graph_.node(of).name;
    Value total = terms[0];
    for (size_t i = 1; i < terms.size(); ++i) total = resnet::add(total, terms[i], name);
    terms = {total};
    return total;
  }

 private:
  Graph& graph_;
  std::map<Value, std::vector<Value>> terms_;
};

}  // namespace

std::vector<Value> gradients(Graph& graph, std::span<const std::pair<Value, Value>> outputs_and_cotangents,
                             std::span<const Value> wrt) {
  std::vector<int32_t> roots;
  Terms terms(graph);
  for (const auto& [output, cotangent] : outputs_and_cotangents) {
    roots.push_back(output.node);
    terms.add(output, cotangent, graph.node(output));
  }
  const std::vector<int32_t> order = graph.ordered(roots);

  // A value depends on `wrt` when it is one of them or its node reads one that does.
  std::vector<char> node_depends(graph.size(), 0);
  std::vector<Value> sorted(wrt.begin(), wrt.end());
  std::sort(sorted.begin(), sorted.end());
  auto depends = [&](Value value) {
    const bool reached =
        node_depends[static_cast<size_t>(value.node)] != 0 || std::binary_search(sorted.begin(), sorted.end(), value);
    return reached && is_float(value.type());
  };
  for (int32_t id : order) {
    const auto& inputs = graph.node(id).inputs;
    node_depends[static_cast<size_t>(id)] = std::any_of(inputs.begin(), inputs.end(), depends);
  }

  for (auto id = order.rbegin(); id != order.rend(); ++id) {
    if (!node_depends[static_cast<size_t>(*id)]) continue;
    GradContext context{graph, graph.node(*id), *id, {}, {}};
    bool any = false;
    for (size_t i = 0; i < context.node.outputs.size(); ++i) {
      context.cotangents.push_back(terms.sum(graph.value(*id, static_cast<int32_t>(i))));
      any = any || context.cotangents.back();
    }
    if (!any) continue;
    for (const Value& input : context.node.inputs) context.needed.push_back(depends(input));
    const std::vector<Value> gradients_of_inputs = context.node.op->grad(context);
    check(gradients_of_inputs.size() == context.node.inputs.size(), "gradients: a rule must answer for every input");
    for (size_t i = 0; i < gradients_of_inputs.size(); ++i) {
      if (!context.needed[i]) continue;
      if (gradients_of_inputs[i]) terms.add(context.node.inputs[i], gradients_of_inputs[i], context.node);
    }
  }

  std::vector<Value> result;
  for (const Value& value : wrt) {
    const Value total = terms.sum(value);
    result.push_back(total ? total : fill(graph, value.type(), 0));
  }
  return result;
}

std::vector<Value> gradients(Value loss, std::span<const Value> wrt) {
  const std::pair<Value, Value> seed{loss, fill(*loss.graph, loss.type(), 1)};
  return gradients(*loss.graph, std::span(&seed, 1), wrt);
}

}  // namespace resnet
