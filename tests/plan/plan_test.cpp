#include "plan/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "backends/reference/reference_backend.h"
#include "ops/add.h"
#include "ops/channel_sum.h"
#include "ops/gradient_check.h"
#include "ops/linear.h"
#include "ops/max_pool.h"
#include "ops/relu.h"
#include "ops/sgd_update.h"
#include "runtime/on_backend.h"
#include "train/training_step.h"

namespace resnet {
namespace {

using namespace testing;

Plan plan_of(const Graph& graph) {
  const auto backend = make_reference_backend();
  return make_plan(graph, *backend);
}

/// The position of the only step of op `name`.
int step_of(const Graph& graph, const Plan& plan, const std::string& name) {
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    if (graph.node(plan.steps[i].node).name == name) return static_cast<int>(i);
  }
  return -1;
}

TEST(Layout, RoundTripsKeepEveryElementAndZeroThePadding) {
  Rng rng(3);
  for (const DType dtype : {DType::f32, DType::f64, DType::i32, DType::u8}) {
    for (const Layout layout : {Layout{}, Layout{Layout::Kind::channels, 8}, Layout{Layout::Kind::channels, 16},
                                Layout{Layout::Kind::weights, 8}}) {
      for (const int64_t channels : {1, 3, 8, 17}) {
        Tensor from(dtype, {5, channels, 2, 3});
        for (size_t i = 0; i < from.size_bytes(); ++i) from.data()[i] = static_cast<std::byte>(1 + rng.below(255));
        std::vector<uint64_t> storage((storage_bytes(from.type(), layout) + 7) / 8, ~uint64_t{0});
        to_layout(from, layout, storage.data());
        Tensor back(dtype, from.shape());
        from_layout(storage.data(), layout, back);
        EXPECT_EQ(back, from) << layout.str() << " " << from.type().str();
        size_t zeros = 0;
        const auto* bytes = reinterpret_cast<const std::byte*>(storage.data());
        for (size_t i = 0; i < storage_bytes(from.type(), layout); ++i) zeros += bytes[i] == std::byte{0};
        EXPECT_EQ(zeros, storage_bytes(from.type(), layout) - from.size_bytes())
            << layout.str() << " " << from.type().str();
      }
    }
  }
}

TEST(Layout, PlacesElementsAsOneDnnsFormatsSay) {
  Tensor x(DType::f32, {2, 10, 2, 2});
  for (size_t i = 0; i < x.as<float>().size(); ++i) x.as<float>()[i] = static_cast<float>(i + 1);
  const Layout channels{Layout::Kind::channels, 8};
  EXPECT_EQ(channels.str(), "nChw8c");
  std::vector<float> stored(static_cast<size_t>(storage_elements(x.shape(), channels)));
  to_layout(x, channels, stored.data());
  // [n=1][c=9][h=1][w=0]: block 1, lane 1.
  EXPECT_EQ(stored[static_cast<size_t>(((1 * 2 + 1) * 4 + 2) * 8 + 1)],
            x.as<float>()[static_cast<size_t>((1 * 10 + 9) * 4 + 2)]);
  const Layout weights{Layout::Kind::weights, 8};
  EXPECT_EQ(weights.str(), "OIhw8i8o");
  stored.assign(static_cast<size_t>(storage_elements(x.shape(), weights)), 0);
  to_layout(x, weights, stored.data());
  // [o=1][i=9][h=0][w=1]: output block 0, input block 1, then lane in 1, lane out 1.
  EXPECT_EQ(stored[static_cast<size_t>(((0 * 2 + 1) * 4 + 1) * 64 + 1 * 8 + 1)],
            x.as<float>()[static_cast<size_t>((1 * 10 + 9) * 4 + 1)]);
}

/// w is read late (after `depth` ops) and updated by an op that could run at once; another node reads the update.
void late_reader(Graph& g, int depth) {
  const TensorType t = f64_type({4});
  const Value x = g.input("x", t);
  const Value w = g.state("w", t, {}, true);
  Value deep = x;
  for (int i = 0; i < depth; ++i) deep = add(deep, x, "deep" + std::to_string(i));
  g.set_output("read", add(deep, w, "late reader"));
  const Value updated =
      sgd_update(w, x, g.input("lr", f64_type({})), g.input("guard", f64_type({})), {}, {}, "update").param;
  g.assign(w, updated);
  g.set_output("after", add(updated, x, "reads the update"));
}

TEST(Schedule, UpdatesComeAfterEveryReaderOfTheOldStateAndBeforeThoseOfTheNew) {
  for (const int depth : {0, 1, 6}) {
    const BuildGraph build = [=](Graph& g) { late_reader(g, depth); };
    Graph g;
    build(g);
    const Plan plan = plan_of(g);
    EXPECT_LT(step_of(g, plan, "late reader"), step_of(g, plan, "update")) << depth;
    EXPECT_LT(step_of(g, plan, "update"), step_of(g, plan, "reads the update")) << depth;
    const Tensors leaves{{"x", f64({4}, {1, 2, 3, 4})},
                         {"w", f64({4}, {10, 20, 30, 40})},
                         {"lr", f64({}, {0.5})},
                         {"guard", f64({}, {0})}};
    const Tensors out = run_on("reference", 1, build, leaves);
    const double copies = depth + 1;
    expect_near(out.at("read"), {10 + copies, 20 + 2 * copies, 30 + 3 * copies, 40 + 4 * copies});
    expect_near(out.at("w"), {9.5, 19, 28.5, 38});
    expect_near(out.at("after"), {10.5, 21, 31.5, 42});
  }
}

TEST(Schedule, TwoStatesThatEachNeedTheOthersOldValueCannotBeUpdatedInPlace) {
  Graph g;
  const TensorType t = f64_type({4});
  const Value a = g.state("a", t, {}, true), b = g.state("b", t, {}, true);
  const Value lr = g.input("lr", f64_type({})), guard = g.input("guard", f64_type({}));
  g.assign(a, sgd_update(a, b, lr, guard, {}, {}).param);
  g.assign(b, sgd_update(b, a, lr, guard, {}, {}).param);
  EXPECT_THROW(plan_of(g), InternalError);
}

TEST(Schedule, AStateAssignedByAnOpThatIsNoUpdateIsOurBug) {
  Graph g;
  const Value x = g.input("x", f64_type({4}));
  const Value w = g.state("w", f64_type({4}), {}, true);
  g.assign(w, add(x, x));
  EXPECT_THROW(plan_of(g), InternalError);
}

/// A random graph of sums and activations over vectors of two sizes, with a few outputs anywhere in it.
void random_graph(Graph& g, Rng& rng) {
  const TensorType types[] = {f64_type({3, 5}), f64_type({1, 40})};
  std::vector<Value> pool[2];
  for (size_t kind = 0; kind < 2; ++kind) {
    for (int i = 0; i < 2; ++i) pool[kind].push_back(g.input(fmt::format("in{}{}", kind, i), types[kind]));
  }
  int outputs = 0;
  for (int i = 0; i < 24; ++i) {
    std::vector<Value>& values = pool[rng.below(2)];
    // Mostly recent values, so that chains grow long enough to be done in place.
    auto draw = [&] { return values[rng.below(2) == 0 ? values.size() - 1 : rng.below(values.size())]; };
    const Value made = rng.below(3) == 0 ? relu(draw()) : draw() + draw();
    values.push_back(made);
    if (rng.below(5) == 0) g.set_output(fmt::format("out{}", outputs++), made);
  }
  g.set_output("last", pool[0].back());
}

/// Buffers that step by step took over each other's bytes.
std::vector<int> merged(const Graph& graph, const Plan& plan) {
  std::vector<int> group(plan.buffers.size());
  for (size_t i = 0; i < group.size(); ++i) group[i] = static_cast<int>(i);
  for (const Step& step : plan.steps) {
    for (const InPlace& pair : graph.node(step.node).op->in_place) {
      const auto in = static_cast<size_t>(step.in.at(static_cast<size_t>(pair.input)));
      const auto out = static_cast<size_t>(step.out.at(static_cast<size_t>(pair.output)));
      if (plan.buffers[in].offset != plan.buffers[out].offset || plan.buffers[in].bytes != plan.buffers[out].bytes)
        continue;
      const int from = group[out], to = group[in];
      std::replace(group.begin(), group.end(), from, to);
    }
  }
  return group;
}

TEST(Arena, BuffersAliveTogetherNeverShareBytesAndResultsAreRight) {
  int64_t in_place = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Graph g;
    Rng rng(mix(seed));
    random_graph(g, rng);
    const Plan plan = plan_of(g);
    const std::vector<int> group = merged(g, plan);
    for (size_t i = 0; i < plan.buffers.size(); ++i) {
      const Buffer& a = plan.buffers[i];
      EXPECT_EQ(a.offset % 64, 0u);
      EXPECT_LE(a.offset + a.bytes, plan.arena_bytes);
      for (size_t j = i + 1; j < plan.buffers.size(); ++j) {
        const Buffer& b = plan.buffers[j];
        const bool together = a.first <= b.last && b.first <= a.last;
        const bool share = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
        if (group[i] == group[j]) {
          in_place += together;
        } else {
          EXPECT_FALSE(together && share) << "seed " << seed << ": buffers " << i << " and " << j;
        }
      }
    }
    Tensors leaves;
    for (const auto& [name, id] : g.leaves()) leaves[name] = random_tensor(g.node(id).outputs[0].shape, rng);
    const Tensors expected = evaluate(g, leaves);
    Session session(make_backend("reference", 1));
    Rng again(mix(seed));
    Program& program = compile(session, [&](Graph& copy) { random_graph(copy, again); });
    EXPECT_TRUE(run(session, program, leaves) == expected) << "seed " << seed;
    program.run();  // inputs live throughout: fed once, run often
    EXPECT_TRUE(run(session, program, {}) == expected) << "seed " << seed << ", again without feeding";
  }
  EXPECT_GT(in_place, 200) << "nothing was ever done in place";
}

TEST(Arena, AnOutputThatTheLastStepReadsIsNotOverwritten) {
  const BuildGraph build = [](Graph& g) {
    const Value x = g.input("x", f64_type({4}));
    const Value a = x + x;
    g.set_output("a", a);
    g.set_output("b", a + x);
  };
  const Tensors out = run_on("reference", 1, build, {{"x", f64({4}, {1, 2, 3, 4})}});
  expect_near(out.at("a"), {2, 4, 6, 8});
  expect_near(out.at("b"), {3, 6, 9, 12});
}

TEST(Arena, AChainIsDoneInPlaceButNeverOverItsInput) {
  Graph g;
  Value v = g.input("x", f64_type({64}));
  for (int i = 0; i < 10; ++i) v = relu(v + v);
  g.set_output("y", v);
  const Plan plan = plan_of(g);
  EXPECT_LE(plan.arena_bytes, 3u * 64 * 8) << "the input, and at most two of the chain at once";
  const Buffer& input = plan.buffers[static_cast<size_t>(plan.inputs.at("x"))];
  for (const Step& step : plan.steps) {
    for (int out : step.out) EXPECT_NE(plan.buffers[static_cast<size_t>(out)].offset, input.offset);
  }
}

TEST(Plan, TheSameGraphGivesTheSamePlanWhateverTheOrderOfCreation) {
  auto dump = [] {
    const auto graph = make_training_step(find_model("resnet18"),
                                          {.model = {}, .images = {1, 3, 64, 64}, .momentum = 0.9, .passes = {}});
    return print(*graph, plan_of(*graph));
  };
  const std::string first = dump();
  EXPECT_EQ(first, dump());
  EXPECT_NE(first.find("reference loops"), std::string::npos);
  EXPECT_NE(first.find("@layer4.1.conv2.weight"), std::string::npos);
  auto sum = [](bool swapped) {
    Graph g;
    const Value x = g.input("x", f64_type({4}));
    const Value a = swapped ? Value{} : relu(x, "a");
    const Value b = add(x, x, "b");
    g.set_output("y", (a ? a : relu(x, "a")) + b);
    return print(g, plan_of(g));
  };
  EXPECT_EQ(sum(false), sum(true));
}

TEST(Plan, TheTrainingGraphOfTwelveHundredLayersSharesItsArena) {
  const auto graph = make_training_step(find_model("resnet1202_cifar_a"),
                                        {.model = {}, .images = {2, 3, 32, 32}, .momentum = 0.9, .passes = {}});
  const Plan plan = plan_of(*graph);
  EXPECT_GT(graph->live_nodes().size(), 20000u);
  EXPECT_GT(plan.steps.size(), 10000u);
  // What the steps make lives in far less than the sum of it.
  size_t bytes = 0;
  for (const Buffer& buffer : plan.buffers) bytes += buffer.state.empty() ? buffer.bytes : 0;
  EXPECT_LT(static_cast<double>(plan.arena_bytes), 0.7 * static_cast<double>(bytes));
}

/// The reference backend, which notes what it is asked to prepare.
class RecordingBackend : public Backend {
 public:
  std::string name() const override { return "recording"; }
  std::string identity() const override { return name(); }
  Support supports(const NodeRequest& request) const override { return inner_->supports(request); }
  Layout layout(const TensorType& type, const ValueRole& role) const override { return inner_->layout(type, role); }
  std::unique_ptr<Kernel> prepare(const NodeRequest& request) override {
    used[std::string(request.op.name)].assign(request.used.begin(), request.used.end());
    depths.insert(request.depth);
    return inner_->prepare(request);
  }

  std::map<std::string, std::vector<char>> used;
  std::set<int64_t> depths;

 private:
  std::unique_ptr<Backend> inner_ = make_reference_backend();
};

TEST(Plan, TellsABackendWhichOutputsAreRead) {
  enum class Reader { none, output, gradient };
  for (const Reader reader : {Reader::none, Reader::output, Reader::gradient}) {
    Graph g;
    const Value x = g.input("x", f64_type({1, 1, 4, 4}));
    const Value y = max_pool(x, {.kernel = {2, 2}, .stride = {2, 2}});
    g.set_output("y", y);
    if (reader == Reader::output) g.set_output("index", g.value(y.node, 1));
    if (reader == Reader::gradient) {
      const std::pair<Value, Value> seed{y, g.input("dy", y.type())};
      const std::vector<Value> wrt{x};
      g.set_output("dx", gradients(g, std::span(&seed, 1), wrt)[0]);
    }
    RecordingBackend backend;
    make_plan(g, backend);
    EXPECT_EQ(backend.used.at("max_pool"), (std::vector<char>{1, reader != Reader::none}));
  }
  // What a state becomes is read by the next run.
  Graph g;
  const Value w = g.state("w", f64_type({4}), {}, true), buffer = g.state("m", f64_type({4}), {}, false);
  const Value lr = g.input("lr", f64_type({})), guard = g.input("guard", f64_type({}));
  const SgdUpdateResult updated = sgd_update(w, g.input("x", f64_type({4})), lr, guard, buffer, {.momentum = 0.5});
  g.assign(w, updated.param);
  g.assign(buffer, updated.buffer);
  RecordingBackend backend;
  make_plan(g, backend);
  EXPECT_EQ(backend.used.at("sgd_update"), (std::vector<char>{1, 1}));
  EXPECT_TRUE(backend.take_warnings().empty());
}

TEST(Plan, TellsABackendOfTheLongestWay) {
  Graph g;
  const Value x = g.input("x", f64_type({4})), w = g.state("w", f64_type({4}), {}, true);
  Value way = x + w;                                // 1
  for (int i = 0; i < 3; ++i) way = relu(way) + x;  // 7: what comes in beside it begins anew
  g.set_output("y", way + relu(x));                 // 8
  g.set_output("z", relu(relu(w)));
  RecordingBackend backend;
  make_plan(g, backend);
  EXPECT_EQ(backend.depths, std::set<int64_t>{8});
}

TEST(Plan, ANodeThatPassesTheMemoryIsRefusedBeforeAnyKernelIsMade) {
  const size_t needed = 3 * 100 * sizeof(double);
  Graph g;
  const Value x = g.input("x", f64_type({100}));
  g.set_output("y", relu(x + x));
  RecordingBackend backend;
  try {
    make_plan(g, backend, {}, needed - 1);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const ResourceError& error) {
    EXPECT_EQ(error.code(), ExitCode::limit);
    EXPECT_NE(std::string(error.what()).find("smaller batch"), std::string::npos) << error.what();
  }
  EXPECT_TRUE(backend.used.empty());
  EXPECT_EQ(make_plan(g, backend, {}, needed).steps.size(), 2u);
}

TEST(Plan, ReportsProgressOnceAStep) {
  Graph g;
  const Value x = g.input("x", f64_type({4}));
  g.set_output("y", relu(x + x));
  std::vector<std::pair<int, int>> heard;
  const auto backend = make_reference_backend();
  make_plan(g, *backend, [&](const std::string& what, int done, int total) {
    EXPECT_EQ(what, "choosing kernels");
    heard.emplace_back(done, total);
  });
  EXPECT_EQ(heard, (std::vector<std::pair<int, int>>{{1, 2}, {2, 2}}));
}

}  // namespace
}  // namespace resnet
