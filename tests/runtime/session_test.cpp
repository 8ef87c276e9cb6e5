#include "runtime/session.h"

#include <gtest/gtest.h>
#include <omp.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <optional>
#include <thread>
#include <vector>

#include "base/memory.h"
#include "ops/add.h"
#include "ops/relu.h"
#include "ops/sgd_update.h"
#include "runtime/on_backend.h"

namespace resnet {
namespace {

using namespace testing;

/// y = w + x (elements of `size`).
BuildGraph reader(int64_t size) {
  return
      [=](Graph& g) { g.set_output("y", g.state("w", f64_type({size}), {}, true) + g.input("x", f64_type({size}))); };
}

/// w = w - lr * grad.
void updater(Graph& g) {
  const Value w = g.state("w", f64_type({2}), {}, true);
  g.assign(w, sgd_update(w, g.input("grad", f64_type({2})), g.input("lr", f64_type({})), g.input("guard", f64_type({})),
                         {}, {})
                  .param);
}

TEST(Session, StatesStartAtZeroAndAreSharedByNameBetweenPrograms) {
  Session session(make_backend("reference", 1));
  Program& read = compile(session, reader(2));
  Program& update = compile(session, updater);
  EXPECT_TRUE(session.has_state("w"));
  EXPECT_FALSE(session.has_state("v"));
  EXPECT_EQ(session.state_type("w"), f64_type({2}));
  expect_near(session.read_state("w"), {0, 0});
  session.write_state("w", f64({2}, {1, 2}));
  run(session, update, {{"grad", f64({2}, {10, 20})}, {"lr", f64({}, {0.5})}, {"guard", f64({}, {0})}});
  expect_near(session.read_state("w"), {-4, -8});
  expect_near(run(session, read, {{"x", f64({2}, {1, 1})}}).at("y"), {-3, -7});
}

/// y = relu(w + x), of a stream.
Program& stream_of(Session& session, int stream) {
  auto graph = std::make_unique<Graph>();
  const TensorType type{DType::f32, {2}};
  graph->set_output("y", relu(graph->state("w", type, {}, true) + graph->input("x", type)));
  return session.compile(std::move(graph), {}, stream);
}

Tensor f32_pair(float a, float b) {
  Tensor t(DType::f32, Shape{2});
  t.as<float>()[0] = a;
  t.as<float>()[1] = b;
  return t;
}

/// Two or three streams can only be had of as many threads.
class Streams : public ::testing::Test {
 protected:
  void SetUp() override {
    if (omp_get_thread_limit() < 3) GTEST_SKIP() << "OMP_THREAD_LIMIT leaves no three threads";
  }
};

TEST_F(Streams, RunAtOnceOverOneSetOfStates) {
  Session session(make_backend("cpu", 3));
  std::vector<Program*> programs;
  for (int stream = 0; stream < 3; ++stream) programs.push_back(&stream_of(session, stream));
  Tensor results[3];
  for (int round = 1; round < 3; ++round) {
    session.write_state("w", f32_pair(static_cast<float>(round), -9));
    std::atomic<int> there = 0;
    session.run_streams(programs, [&](int i) {
      ++there;
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (there < 3 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
      EXPECT_EQ(there, 3) << "one came after the other";
      programs[static_cast<size_t>(i)]->set_input("x", f32_pair(static_cast<float>(10 * i), 4));
      programs[static_cast<size_t>(i)]->run();
      results[i] = programs[static_cast<size_t>(i)]->output("y");
    });
    for (int i = 0; i < 3; ++i) EXPECT_EQ(results[i], f32_pair(static_cast<float>(10 * i + round), 0)) << i;
  }
}

TEST_F(Streams, WhatOneThrowsComesOutWhenAllAreDone) {
  Session session(make_backend("cpu", 2));
  const std::vector<Program*> programs = {&stream_of(session, 0), &stream_of(session, 1)};
  std::atomic<int> done = 0;
  const auto fail = [&](int i) {
    if (i == 1) throw UserError("of stream {}", i);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    ++done;
  };
  try {
    session.run_streams(programs, fail);
    FAIL() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(), "of stream 1");
  }
  EXPECT_EQ(done, 1) << "the other was not waited for";
}

TEST_F(Streams, WhatIsNoStreamsIsOurBug) {
  Session session(make_backend("cpu", 2));
  Program& stream = stream_of(session, 0);
  EXPECT_THROW(stream.run(), InternalError) << "outside of run_streams";
  const std::vector<Program*> one = {&stream}, same = {&stream, &stream}, none;
  session.run_streams(one, [&](int) { stream.run(); });
  EXPECT_THROW(stream.run(), InternalError) << "outside of it again";
  EXPECT_THROW(session.run_streams(same, [](int) {}), InternalError);
  EXPECT_THROW(session.run_streams(none, [](int) {}), InternalError);
  EXPECT_THROW(stream_of(session, 2), InternalError) << "two threads have streams 0 and 1";
  EXPECT_THROW(stream_of(session, -1), InternalError);
  auto graph = std::make_unique<Graph>();
  updater(*graph);
  EXPECT_THROW(session.compile(std::move(graph), {}, 0), InternalError) << "it assigns a state";
  auto plain = std::make_unique<Graph>();
  plain->set_output("y", relu(plain->input("x", {DType::f32, {2}})));
  const std::vector<Program*> programs = {&stream, &session.compile(std::move(plain))};
  EXPECT_THROW(session.run_streams(programs, [](int) {}), InternalError);
  EXPECT_THROW(stream_of(*std::make_unique<Session>(make_backend("reference", 1)), 1), InternalError);
}

TEST(Session, AStateOfAnotherTypeInASecondProgramIsOurBug) {
  Session session(make_backend("reference", 1));
  compile(session, reader(2));
  EXPECT_THROW(compile(session, reader(3)), InternalError);
}

TEST(Session, AddStateKeepsWhatIsThere) {
  Session session(make_backend("reference", 1));
  session.add_state("w", f64_type({2}));
  session.write_state("w", f64({2}, {5, 6}));
  session.add_state("w", f64_type({2}));
  Program& read = compile(session, reader(2));
  expect_near(run(session, read, {{"x", f64({2}, {1, 1})}}).at("y"), {6, 7});
  EXPECT_GE(session.state_bytes(), 16u);
}

TEST(Session, AGrowingArenaRebindsTheOlderPrograms) {
  Session session(make_backend("reference", 1));
  Program& small = compile(session, reader(2));
  const size_t before = session.arena_bytes();
  Program& large = compile(session, [](Graph& g) {
    const Value x = g.input("big", f64_type({100000}));
    g.set_output("z", relu(x + x));
  });
  EXPECT_GT(session.arena_bytes(), before);
  EXPECT_GE(session.arena_bytes(), large.arena_bytes());
  session.write_state("w", f64({2}, {1, 2}));
  expect_near(run(session, small, {{"x", f64({2}, {3, 4})}}).at("y"), {4, 6});
  Tensor big(DType::f64, {100000});
  for (double& v : big.as<double>()) v = 1.5;
  EXPECT_EQ(run(session, large, {{"big", big}}).at("z").as<double>()[99999], 3.0);
  expect_near(run(session, small, {{"x", f64({2}, {3, 4})}}).at("y"), {4, 6});
}

TEST(Session, AReleasedProgramLeavesItsStates) {
  Session session(make_backend("reference", 1));
  Program& first = compile(session, reader(2));
  session.write_state("w", f64({2}, {1, 2}));
  session.release(first);
  expect_near(run(session, compile(session, reader(2)), {{"x", f64({2}, {0, 0})}}).at("y"), {1, 2});
}

TEST(Session, WrongNamesAndTypesAreInternalErrors) {
  Session session(make_backend("reference", 1));
  Program& program = compile(session, reader(2));
  EXPECT_THROW(session.read_state("v"), InternalError);
  EXPECT_THROW(session.state_type("v"), InternalError);
  EXPECT_THROW(session.write_state("v", f64({2}, {1, 2})), InternalError);
  EXPECT_THROW(session.write_state("w", f64({3}, {1, 2, 3})), InternalError);
  EXPECT_THROW(session.write_state("w", tensor<float>(DType::f32, {2}, {1, 2})), InternalError);
  EXPECT_THROW(program.set_input("y", f64({2}, {1, 2})), InternalError);
  EXPECT_THROW(program.set_input("x", f64({1, 2}, {1, 2})), InternalError);
  EXPECT_THROW(program.output("x"), InternalError);
  EXPECT_THROW(program.scalar("y"), InternalError) << "two elements";
  EXPECT_THROW(program.input_data("nothing"), InternalError);
}

TEST(Program, InputDataIsTheInputItselfAndTimesAreOnlyTakenWhenAsked) {
  Session session(make_backend("reference", 1));
  Program& program = compile(session, reader(2));
  auto* x = static_cast<double*>(program.input_data("x"));
  x[0] = 7;
  x[1] = 8;
  program.run();
  expect_near(program.output("y"), {7, 8});
  EXPECT_EQ(program.step_seconds(), std::vector<double>(1, 0.0));
  program.profile(true);
  program.run();
  EXPECT_GT(program.step_seconds()[0], 0);
  EXPECT_EQ(program.flops(), 2);
}

TEST(Session, MemoryThatIsNotToBeHadIsALimit) {
  try {
    AlignedMemory memory(size_t{1} << 60);
    FAIL() << "an exabyte was had";
  } catch (const ResourceError& error) {
    EXPECT_EQ(error.code(), ExitCode::limit);
  }
}

void expect_limit(const std::function<void()>& action) {
  try {
    action();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const ResourceError& error) {
    EXPECT_EQ(error.code(), ExitCode::limit) << error.what();
    EXPECT_NE(std::string(error.what()).find("memory"), std::string::npos) << error.what();
  }
}

/// Two values of `elements` doubles beside a state of its own.
BuildGraph large(int64_t elements) {
  return [=](Graph& g) {
    const Value x = g.input("large", f64_type({elements}));
    g.set_output("z", relu(x + x));
    g.set_output("v", g.state("v", f64_type({2}), {}, true) + g.input("u", f64_type({2})));
  };
}

TEST(Session, AProgramThatNoMachineCanHoldIsRefusedAndTheOthersGoOn) {
  Session session(make_backend("reference", 1));
  Program& good = compile(session, reader(2));
  const Tensors leaves{{"w", f64({2}, {1, 2})}, {"x", f64({2}, {3, 4})}};
  expect_near(run(session, good, leaves).at("y"), {4, 6});
  expect_limit([&] { compile(session, large(int64_t{1} << 45)); });
  EXPECT_FALSE(session.has_state("v"));
  good.run();
  expect_near(good.output("y"), {4, 6});
}

/// y = relu(x) of about so many bytes in all, of a stream or of the team.
Program& touching_nothing(Session& session, size_t bytes, std::optional<int> stream = {}) {
  auto graph = std::make_unique<Graph>();
  graph->set_output("y", relu(graph->input("x", {DType::f32, {static_cast<int64_t>(bytes / 8)}})));
  return session.compile(std::move(graph), {}, stream);
}

TEST_F(Streams, AreRefusedWhereTheyDoNotFitInMemoryTogether) {
  Session session(make_backend("cpu", 2));
  const size_t most = available_memory() / 10 * 6;
  touching_nothing(session, most, 0);  // the system still counts what is not touched as free
  expect_limit([&] { touching_nothing(session, most, 1); });
  EXPECT_NO_THROW(touching_nothing(session, most / 4, 1));
}

TEST(Session, AnArenaThatNothingHasRunInIsCountedOnce) {
  Session session(make_backend("reference", 1));
  const size_t most = available_memory() / 10 * 6;
  touching_nothing(session, most);
  EXPECT_NO_THROW(touching_nothing(session, most)) << "in the same arena";
  expect_limit([&] { touching_nothing(session, 2 * most); });
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(Session, AnArenaThatIsNotToBeHadLeavesTheOlderProgramsRunning) {
  Session session(make_backend("reference", 1));
  Program& good = compile(session, reader(2));
  const Tensors leaves{{"w", f64({2}, {1, 2})}, {"x", f64({2}, {3, 4})}};
  run(session, good, leaves);
  const size_t arena = session.arena_bytes(), states = session.state_bytes();
  // The machine may have the gigabyte that the program needs; this process may not take it.
  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  rlimit tight = before;
  tight.rlim_cur = pages * static_cast<size_t>(sysconf(_SC_PAGESIZE)) + (size_t{64} << 20);
  ASSERT_EQ(setrlimit(RLIMIT_AS, &tight), 0);
  expect_limit([&] { compile(session, large(int64_t{1} << 26)); });
  ASSERT_EQ(setrlimit(RLIMIT_AS, &before), 0);
  EXPECT_EQ(session.arena_bytes(), arena);
  EXPECT_EQ(session.state_bytes(), states);
  EXPECT_FALSE(session.has_state("v"));
  expect_near(run(session, good, leaves).at("y"), {4, 6});
  // The refused program is forgotten: a later one may grow the arena.
  compile(session, large(1000));
  expect_near(run(session, good, leaves).at("y"), {4, 6});
}
#endif

/// What the programs of a session read, copied to where another session may find it.
struct Copied {
  std::vector<Constant> constants;
  std::vector<const std::byte*> places;
  std::shared_ptr<std::vector<AlignedMemory>> memory = std::make_shared<std::vector<AlignedMemory>>();
};

Copied copy_constants(Session& session) {
  Copied copied{.constants = session.constants(false)};
  for (const Constant& constant : copied.constants) {
    const auto bytes = session.constant_bytes(constant);
    copied.memory->emplace_back(bytes.size());
    std::memcpy(copied.memory->back().data(), bytes.data(), bytes.size());
    copied.places.push_back(copied.memory->back().data());
  }
  return copied;
}

TEST(Session, AdoptedConstantsAreReadWhereTheyLie) {
  Session first(make_backend("reference", 1));
  compile(first, reader(2));
  first.write_state("w", f64({2}, {1, 2}));
  Copied copied = copy_constants(first);
  ASSERT_EQ(copied.constants.size(), 1u);
  EXPECT_EQ(copied.constants[0].str(), "state w f64[2] plain 16");

  Session session(make_backend("reference", 1));
  Program& program = compile(session, reader(2));
  session.adopt_constants(copied.constants, copied.places, copied.memory);
  EXPECT_EQ(session.adopted_bytes(), 16u);
  program.set_input("x", f64({2}, {1, 1}));
  program.run();
  expect_near(program.output("y"), {2, 3});
  // A program that is compiled later reads them too, and one that writes them gets a copy.
  Program& update = compile(session, updater);
  EXPECT_EQ(session.adopted_bytes(), 0u);
  run(session, update, {{"grad", f64({2}, {10, 20})}, {"lr", f64({}, {0.5})}, {"guard", f64({}, {0})}});
  expect_near(session.read_state("w"), {-4, -8});
  program.set_input("x", f64({2}, {1, 1}));
  program.run();
  expect_near(program.output("y"), {-3, -7});
  EXPECT_EQ(reinterpret_cast<const double*>(copied.places[0])[0], 1) << "the memory was not written to";
  EXPECT_THROW(session.adopt_constants(copied.constants, copied.places, copied.memory), InternalError)
      << "a program assigns states";
}

TEST(Session, AnAdoptedStateMayBeWritten) {
  Session first(make_backend("reference", 1));
  compile(first, reader(2));
  Copied copied = copy_constants(first);
  Session session(make_backend("reference", 1));
  Program& program = compile(session, reader(2));
  session.adopt_constants(copied.constants, copied.places, copied.memory);
  expect_near(run(session, program, {{"w", f64({2}, {3, 4})}, {"x", f64({2}, {1, 1})}}).at("y"), {4, 5});
  EXPECT_EQ(session.adopted_bytes(), 0u);
  EXPECT_EQ(reinterpret_cast<const double*>(copied.places[0])[0], 0);
}

}  // namespace
}  // namespace resnet
