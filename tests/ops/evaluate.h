#pragma once
// A tiny interpreter for tests: runs each op's reference loops over row-major tensors, nothing else.

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "base/tensor.h"
#include "graph/graph.h"

namespace resnet::testing {

using Tensors = std::map<std::string, Tensor>;

/// The graph's outputs by name, and what each assigned state becomes under the state's name.
inline Tensors evaluate(const Graph& graph, const Tensors& leaves) {
  std::map<std::pair<int32_t, int32_t>, Tensor> values;
  for (int32_t id : graph.live_nodes()) {
    const Node& node = graph.node(id);
    if (node.kind != NodeKind::op) {
      const auto found = leaves.find(node.name);
      check(found != leaves.end(), ("evaluate: no value for leaf " + node.name).c_str());
      check(found->second.type() == node.outputs[0], ("evaluate: wrong type for leaf " + node.name).c_str());
      values[{id, 0}] = found->second;
      continue;
    }
    std::vector<ConstView> in;
    for (const Value& input : node.inputs) {
      const Tensor& tensor = values.at({input.node, input.output});
      in.push_back({&tensor.type(), tensor.data()});
    }
    std::vector<View> out;
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      Tensor& tensor = values[{id, static_cast<int32_t>(i)}] = Tensor(node.outputs[i]);
      out.push_back({&tensor.type(), tensor.data()});
    }
    node.op->ref(RefCall{node.attributes, in, out});
  }
  Tensors results;
  for (const auto& [name, value] : graph.outputs()) results[name] = values.at({value.node, value.output});
  for (const auto& [state, value] : graph.assignments()) {
    results[graph.node(state).name] = values.at({value.node, value.output});
  }
  return results;
}

template <class T>
Tensor tensor(DType dtype, const Shape& shape, const std::vector<T>& values) {
  Tensor result(dtype, shape);
  check(result.elements() == static_cast<int64_t>(values.size()), "tensor: the shape wants another number of values");
  std::copy(values.begin(), values.end(), result.as<T>().begin());
  return result;
}
inline Tensor f64(const Shape& shape, const std::vector<double>& values) { return tensor(DType::f64, shape, values); }
inline Tensor i32(const Shape& shape, const std::vector<int32_t>& values) { return tensor(DType::i32, shape, values); }

inline Tensor random_tensor(const Shape& shape, Rng& rng) {
  Tensor result(DType::f64, shape);
  for (double& value : result.as<double>()) value = rng.uniform(-1, 1);
  return result;
}

template <class T>
std::vector<T> values(const Tensor& tensor) {
  const auto span = tensor.as<T>();
  return {span.begin(), span.end()};
}

inline void expect_near(const Tensor& actual, const std::vector<double>& expected, double tolerance = 1e-12) {
  ASSERT_EQ(actual.as<double>().size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(actual.as<double>()[i], expected[i], tolerance) << "at " << i;
}

/// Expects `action` to throw a UserError with exit code 2 whose message holds every part.
template <class Action>
void expect_user_error(Action&& action, const std::vector<std::string>& parts) {
  try {
    action();
    ADD_FAILURE() << "nothing was thrown; expected a UserError about " << parts[0];
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << part << " is not in: " << error.what();
    }
  }
}

inline TensorType f64_type(const Shape& shape) { return {DType::f64, shape}; }
inline TensorType f32_type(const Shape& shape) { return {DType::f32, shape}; }

}  // namespace resnet::testing
