#pragma once
// Compiles a graph on a backend, feeds it, and gives back everything it makes.

#include <stdlib.h>

#include <functional>
#include <memory>

#include "formats/temporary_directory.h"
#include "ops/evaluate.h"
#include "runtime/backends.h"
#include "runtime/session.h"

namespace resnet::testing {

/// Sets an environment variable until the end of the scope.
class ScopedEnvironment {
 public:
  ScopedEnvironment(const char* name, const std::string& value) : name_(name) {
    if (const char* old = getenv(name)) old_ = old, had_ = true;
    setenv(name, value.c_str(), 1);
  }
  ~ScopedEnvironment() { had_ ? setenv(name_, old_.c_str(), 1) : unsetenv(name_); }
  ScopedEnvironment(const ScopedEnvironment&) = delete;
  ScopedEnvironment& operator=(const ScopedEnvironment&) = delete;

 private:
  const char* name_;
  std::string old_;
  bool had_ = false;
};

/// A tuning cache of the test's own: what somebody measured before must not decide what is tested.
class PrivateTuningCache {
 public:
  PrivateTuningCache() : environment_("XDG_CACHE_HOME", directory_.path()) {}

 private:
  TemporaryDirectory directory_;
  ScopedEnvironment environment_;
};

using BuildGraph = std::function<void(Graph&)>;

inline Program& compile(Session& session, const BuildGraph& build) {
  auto graph = std::make_unique<Graph>();
  build(*graph);
  return session.compile(std::move(graph));
}

/// Feeds the inputs and writes the states that `leaves` names, runs, and reads the outputs by name and each
/// assigned state under its own name.
inline Tensors run(Session& session, Program& program, const Tensors& leaves) {
  for (const auto& [name, tensor] : leaves) {
    if (program.plan().inputs.contains(name)) program.set_input(name, tensor);
    if (session.has_state(name)) session.write_state(name, tensor);
  }
  program.run();
  Tensors results;
  for (const auto& [name, index] : program.plan().outputs) results[name] = program.output(name);
  for (const auto& [state, value] : program.graph().assignments()) {
    const std::string& name = program.graph().node(state).name;
    results[name] = session.read_state(name);
  }
  return results;
}

inline Tensors run_on(const std::string& backend, int threads, const BuildGraph& build, const Tensors& leaves) {
  Session session(make_backend(backend, threads));
  return run(session, compile(session, build), leaves);
}

inline Tensor f32_scalar(float value) { return tensor<float>(DType::f32, {}, {value}); }

/// Whole numbers in [-range, range]: sums of their products are exact in f32, so results must be equal.
inline Tensor random_integers(const Shape& shape, Rng& rng, int64_t range = 3) {
  Tensor result(DType::f32, shape);
  for (float& value : result.as<float>()) {
    value = static_cast<float>(static_cast<int64_t>(rng.below(static_cast<uint64_t>(2 * range + 1))) - range);
  }
  return result;
}

inline Tensor random_floats(const Shape& shape, Rng& rng, double low = -1, double high = 1) {
  Tensor result(DType::f32, shape);
  for (float& value : result.as<float>()) value = static_cast<float>(rng.uniform(low, high));
  return result;
}

}  // namespace resnet::testing
