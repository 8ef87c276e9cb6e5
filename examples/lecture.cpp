// The lecture's code, step by step: the residual block and its shapes, the stem, a stage, the whole net.
// Each step is the sentence of the lesson in C++; a step that does not hold ends the program with code 1.

#include <algorithm>
#include <cstdio>
#include <exception>

#include "base/error.h"
#include "base/rng.h"
#include "models/lecture.h"
#include "runtime/backends.h"
#include "runtime/session.h"
#include "train/model_state.h"

using namespace resnet;

namespace {

/// Builds `block` over a random input of shape `x`, runs it in training mode, and returns the result.
template <class Block>
Tensor run(const Shape& x_shape, Block block) {
  auto graph = std::make_unique<Graph>();
  ModelBuilder builder{*graph, DType::f32, true, {}};
  const Value x = graph->input("x", {DType::f32, x_shape});
  graph->set_output("y", block(Scope(builder), x));

  std::vector<StateSpec> states;
  for (const auto& [name, id] : graph->leaves()) {
    const Node& node = graph->node(id);
    if (node.kind == NodeKind::state && node.trainable)
      states.push_back({name, node.outputs[0], node.initializer, true});
  }
  Session session(make_backend("cpu", available_threads()));
  Program& program = session.compile(std::move(graph));
  for (const StateSpec& state : states) session.write_state(state.name, initial_value(state, 0));
  Tensor input(DType::f32, x_shape);
  Rng rng(27);
  for (float& value : input.as<float>()) value = static_cast<float>(rng.normal());
  program.set_input("x", input);
  program.run();
  return program.output("y");
}

void expect(const char* what, const Tensor& y, const Shape& shape) {
  std::printf("%-52s -> %s\n", what, y.shape().str().c_str());
  check(y.shape() == shape, "the shape is not the lecture's");
  const auto values = y.as<float>();
  check(std::all_of(values.begin(), values.end(), [](float v) { return v >= 0; }), "a block ends in a relu");
  check(std::any_of(values.begin(), values.end(), [](float v) { return v > 0; }), "a block lets something through");
}

void walk() {
  // A residual block that keeps its shape: f(x) = relu(x + g(x)).
  expect("Residual(3, 3) on 4x3x6x6", run({4, 3, 6, 6}, [](Scope s, Value x) { return lecture::residual(s, x, 3); }),
         {4, 3, 6, 6});

  // With a 1x1 convolution on the shortcut the block may change channels and halve height and width.
  expect("Residual(3, 6, use_1x1conv, strides=2) on 4x3x6x6",
         run({4, 3, 6, 6},
             [](Scope s, Value x) { return lecture::residual(s, x, 6, {.use_1x1conv = true, .strides = 2}); }),
         {4, 6, 3, 3});

  // b1: 7x7 convolution with stride 2, batch norm, relu, 3x3 max pool with stride 2.
  expect("b1 on 1x1x96x96", run({1, 1, 96, 96}, [](Scope s, Value x) { return lecture::b1(s, x); }), {1, 64, 24, 24});
  expect("b1 with stem padding 0 (the listing) on 1x1x96x96",
         run({1, 1, 96, 96}, [](Scope s, Value x) { return lecture::b1(s, x, {.padding = 0}); }), {1, 64, 23, 23});

  // Stages: the first residual of each but the first halves the map and changes the channels.
  expect("resnet_block(64, 2, first_block) on 1x64x24x24",
         run({1, 64, 24, 24}, [](Scope s, Value x) { return lecture::resnet_block(s, x, 64, 2, true); }),
         {1, 64, 24, 24});
  expect("resnet_block(128, 2) on 1x64x24x24",
         run({1, 64, 24, 24}, [](Scope s, Value x) { return lecture::resnet_block(s, x, 128, 2); }), {1, 128, 12, 12});

  // The whole net, stage by stage.
  auto graph = std::make_unique<Graph>();
  ModelBuilder builder{*graph, DType::f32, false, {}};
  const Scope s(builder);
  Value x = graph->input("x", {DType::f32, {1, 1, 96, 96}});
  auto show = [&](const char* stage) { std::printf("%-10s output shape: %s\n", stage, x.shape().str().c_str()); };
  x = lecture::b1(s / 0, x);
  show("b1");
  for (int64_t stage = 1; stage <= 4; ++stage) {
    x = lecture::resnet_block(s / stage, x, int64_t{32} << stage, 2, stage == 1);
    show(("b" + std::to_string(stage + 1)).c_str());
  }
  check(x.shape() == Shape{1, 512, 3, 3}, "the last stage is 512x3x3");
  x = global_avg_pool(x);
  show("pool");
  x = flatten(x);
  show("flatten");
  x = linear(s / 7, x, 10, {.init = WeightInit::xavier});
  show("linear");
  int64_t parameters = 0;
  for (const auto& [name, id] : graph->leaves()) {
    if (graph->node(id).trainable) parameters += graph->value(id).shape().elements();
  }
  std::printf("parameters: %lld\n", static_cast<long long>(parameters));
  check(parameters == 11178378, "the lecture's net has 11,178,378 parameters");
}

}  // namespace

int main() {
  try {
    walk();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "example_lecture: %s\n", error.what());
    return 1;
  }
}
