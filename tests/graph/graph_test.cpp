#include "graph/graph.h"

#include <algorithm>

#include "ops/add.h"
#include "ops/conv2d.h"
#include "ops/evaluate.h"
#include "ops/fill.h"
#include "ops/max_pool.h"
#include "ops/relu.h"

namespace resnet {
namespace {

using namespace testing;

// An op whose shape rule can change its mind, to stand for a node that a faulty pass left behind.
int64_t fickle_size = 2;
std::vector<TensorType> fickle_shape(const InferCall&) { return {f32_type({fickle_size})}; }
void fickle_ref(const RefCall&) {}
Cost fickle_cost(const Attributes&, std::span<const TensorType>, std::span<const TensorType>) { return {}; }
const OpDef kFickle = {
    .name = "fickle", .infer = fickle_shape, .grad = no_gradient, .ref = fickle_ref, .cost = fickle_cost};

template <class Action>
std::string internal_error(Action&& action) {
  try {
    action();
  } catch (const InternalError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(Graph, PrintsOneLineANode) {
  Graph g;
  const Value x = g.input("x", f32_type({4, 1, 8, 8}));
  const Value w = g.state("conv1.weight", f32_type({6, 1, 3, 3}), {}, true);
  const Value y = conv2d(x, w, {}, {.stride = {2, 2}, .pad = {1, 1}}, "conv1");
  const Value pooled = max_pool(relu(y), {.kernel = {2, 2}, .stride = {2, 2}}, "pool");
  g.set_output("y", pooled);
  g.set_output("index", g.value(pooled.node, 1));
  std::string text = print(g);
  // The two leaves may stand in either order; everything else is fixed.
  for (const char* leaf : {"@x: input f32[4x1x8x8]\n", "@conv1.weight: state f32[6x1x3x3]\n"}) {
    const size_t at = text.find(leaf);
    ASSERT_NE(at, std::string::npos) << text;
    text.erase(at, std::string(leaf).size());
  }
  EXPECT_EQ(text,
            "%0 = conv2d(@x, @conv1.weight) stride=2 pad=1 -> f32[4x6x4x4]  # conv1\n"
            "%1 = relu(%0) -> f32[4x6x4x4]\n"
            "%2 = max_pool(%1) kernel=2 stride=2 -> f32[4x6x2x2], u8[4x6x2x2]  # pool\n"
            "output index = %2.1\n"
            "output y = %2.0\n");
}

TEST(Graph, PrintsAssignments) {
  Graph g;
  const Value s = g.state("count", f32_type({}), {}, false);
  g.assign(s, s + fill(g, f32_type({}), 1));
  EXPECT_TRUE(contains(print(g), "@count := %1\n")) << print(g);
  EXPECT_TRUE(contains(print(g), "%1 = add(@count, %0) -> f32[scalar]\n")) << print(g);
}

TEST(Graph, NodesNobodyNeedsAreNotLive) {
  Graph g;
  const Value x = g.input("x", f32_type({3}));
  const Value dead = relu(x, "dead");
  g.set_output("y", x + x);
  const std::vector<int32_t> live = g.live_nodes();
  EXPECT_EQ(live.size(), 2u);
  EXPECT_EQ(std::count(live.begin(), live.end(), dead.node), 0);
}

TEST(Graph, InputsComeBeforeTheirUsers) {
  Graph g;
  Value y = g.input("x", f32_type({3}));
  const Value x = y;
  for (int i = 0; i < 50; ++i) y = relu(y + x, "layer" + std::to_string(i));
  g.set_output("y", y);
  std::vector<char> seen(g.size(), 0);
  for (int32_t id : g.live_nodes()) {
    for (const Value& input : g.node(id).inputs) EXPECT_TRUE(seen[static_cast<size_t>(input.node)]);
    seen[static_cast<size_t>(id)] = 1;
  }
}

// Four branches, summed in a fixed order but built in the order given.
std::string branches(const std::vector<int>& creation) {
  Graph g;
  const TensorType type = f32_type({2, 3, 4, 4});
  std::map<int, Value> built;
  for (int i : creation) {
    const std::string name = "branch" + std::to_string(i);
    const Value w = g.state(name + ".weight", f32_type({3, 3, 1, 1}), {}, true);
    if (!g.leaves().contains("x")) g.input("x", type);
    const Value x = g.value(g.leaves().at("x"));
    built[i] = relu(conv2d(x, w, {}, {}, name), name);
    g.assign(g.state(name + ".mean", type, {}, false), built[i]);
  }
  g.set_output("y", (built[0] + built[1]) + (built[2] + built[3]));
  return print(g);
}

TEST(Graph, TheOrderOfCreationDoesNotShow) {
  std::vector<int> creation{0, 1, 2, 3};
  const std::string first = branches(creation);
  int permutations = 1;
  while (std::next_permutation(creation.begin(), creation.end())) {
    ASSERT_EQ(branches(creation), first);
    ++permutations;
  }
  EXPECT_EQ(permutations, 24);
}

TEST(Graph, ReplaceFollowsChains) {
  Graph g;
  const TensorType type = f32_type({3});
  const Value a = g.input("a", type);
  const Value b = g.input("b", type);
  const Value c = g.input("c", type);
  const Value s = g.state("s", type, {}, false);
  g.set_output("y", relu(a));
  g.set_output("z", a);
  g.assign(s, a);
  g.replace({{a, b}, {b, c}});
  EXPECT_EQ(g.node(g.outputs().at("y")).inputs[0], c);
  EXPECT_EQ(g.outputs().at("z"), c);
  EXPECT_EQ(g.assignments().at(s), c);
}

TEST(Graph, ReplaceRefusesACycleOfReplacements) {
  Graph g;
  const Value a = g.input("a", f32_type({3}));
  const Value b = g.input("b", f32_type({3}));
  g.set_output("y", a);
  EXPECT_TRUE(contains(internal_error([&] { g.replace({{a, b}, {b, a}}); }), "cycle"));
}

TEST(Graph, ANodeThatNeedsItselfIsFound) {
  Graph g;
  const Value x = g.input("x", f32_type({3}));
  const Value y = relu(x);
  g.set_output("y", relu(y));
  g.replace({{x, y}});
  EXPECT_TRUE(contains(internal_error([&] { g.live_nodes(); }), "cycle"));
  EXPECT_TRUE(contains(internal_error([&] { verify(g); }), "cycle"));
}

TEST(Graph, VeryDeepGraphsDoNotOverflowTheStack) {
  Graph g;
  Value y = g.input("x", f32_type({1}));
  for (int i = 0; i < 200000; ++i) y = relu(y);
  g.set_output("y", y);
  EXPECT_EQ(g.live_nodes().size(), 200001u);
}

TEST(Graph, TakenNamesAreNoticed) {
  Graph g;
  g.input("x", f32_type({3}));
  EXPECT_TRUE(contains(internal_error([&] { g.input("x", f32_type({3})); }), "taken"));
  const Value w = g.state("w", f32_type({3}), {}, true);
  EXPECT_EQ(g.state("w", f32_type({3}), {}, true), w) << "shared weights";
  expect_user_error([&] { g.state("w", f32_type({4}), {}, true); }, {"parameter 'w'", "f32[3]", "f32[4]"});
}

TEST(Graph, MisuseIsAnInternalError) {
  Graph g;
  Graph other;
  const Value x = g.input("x", f32_type({3}));
  EXPECT_TRUE(contains(internal_error([&] { other.add(kRelu, {x}); }), "another graph"));
  EXPECT_TRUE(contains(internal_error([&] { g.add(kRelu, {Value{}}); }), "none"));
  EXPECT_TRUE(contains(internal_error([&] { g.assign(x, x); }), "not a state"));
  const Value s = g.state("s", f32_type({4}), {}, false);
  EXPECT_TRUE(contains(internal_error([&] { g.assign(s, x); }), "type differs"));
  EXPECT_TRUE(contains(internal_error([&] { g.add(kAdd, {x}, NoAttrs{}, "sum"); }), "add 'sum': built with 1 inputs"));
}

TEST(Verify, AcceptsWhatTheBuildersMade) {
  Graph g;
  const Value x = g.input("x", f32_type({2, 3, 8, 8}));
  g.set_output("y", max_pool(relu(x) + x, {.kernel = {2, 2}, .stride = {2, 2}}));
  EXPECT_NO_THROW(verify(g));
}

TEST(Verify, FindsOutputsOtherThanTheShapeRuleSays) {
  Graph g;
  fickle_size = 2;
  g.set_output("y", g.add(kFickle, {}, NoAttrs{}, "layer9"));
  EXPECT_NO_THROW(verify(g));
  fickle_size = 3;
  const std::string message = internal_error([&] { verify(g); });
  EXPECT_TRUE(contains(message, "fickle 'layer9'")) << message;
}

TEST(Verify, FindsAReplacementOfAnotherShape) {
  Graph g;
  const Value a = g.input("a", f32_type({3}));
  const Value b = g.input("b", f32_type({4}));
  g.set_output("y", add(a, a, "sum") + a);
  g.replace({{a, b}});
  EXPECT_TRUE(contains(internal_error([&] { verify(g); }), "add"));
  Graph h;
  const Value c = h.input("c", f32_type({3}));
  const Value d = h.input("d", f32_type({4}));
  h.set_output("y", h.add(kAdd, {c, relu(c)}, NoAttrs{}, "tail"));
  h.replace({{c, d}});
  EXPECT_TRUE(contains(internal_error([&] { verify(h); }), "relu")) << "the relu's stored type is now wrong";
}

TEST(Verify, FindsAValueThatDoesNotExist) {
  Graph g;
  const Value x = g.input("x", f32_type({3}));
  g.set_output("y", relu(x, "act"));
  g.replace({{x, g.value(x.node, 1)}});
  const std::string message = internal_error([&] { verify(g); });
  EXPECT_TRUE(contains(message, "relu 'act' reads a value that does not exist")) << message;
  g.replace({{g.value(x.node, 1), g.value(999)}});
  EXPECT_TRUE(contains(internal_error([&] { verify(g); }), "does not exist"));
}

TEST(Verify, FindsAStateAssignedAnotherType) {
  Graph g;
  const Value s = g.state("running", f32_type({3}), {}, false);
  const Value x = g.input("x", f32_type({3}));
  const Value z = g.input("z", f32_type({4}));
  g.assign(s, x);
  g.replace({{x, z}});
  EXPECT_TRUE(contains(internal_error([&] { verify(g); }), "state 'running'"));
}

TEST(Attributes, TextShowsWhatDiffersFromTheDefaults) {
  EXPECT_EQ(to_string(NoAttrs{}), "");
  EXPECT_EQ(to_string(Conv2dAttrs{}), "");
  EXPECT_EQ(to_string(Conv2dAttrs{.stride = {2, 1}, .pad = {3, 3}, .groups = 4, .bias = true}),
            "stride=2x1 pad=3 groups=4 bias");
  EXPECT_EQ(to_string(PoolAttrs{.kernel = {3, 3}, .count_include_pad = false}), "kernel=3 exclude_pad");
  EXPECT_EQ(to_string(SgdAttrs{.momentum = 0.9, .weight_decay = 1e-4, .nesterov = true}),
            "momentum=0.9 weight_decay=0.0001 nesterov");
  EXPECT_EQ(to_string(ShapeAttrs{Shape{2, 3}}), "shape=2x3");
  EXPECT_EQ(to_string(LossAttrs{0.1}), "label_smoothing=0.1");
  EXPECT_EQ(to_string(BatchNormAttrs{.training = false, .residual = true, .relu = true}), "residual relu");
}

}  // namespace
}  // namespace resnet
