#pragma once
// The one place that includes oneDNN (v2 API, Debian's 2.6.3).

#include <omp.h>

#include <array>
#include <dnnl.hpp>

#include "base/error.h"
#include "plan/backend.h"

namespace resnet::cpu {

inline dnnl::engine& engine() {
  static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

inline dnnl::stream& stream() {
  thread_local dnnl::stream on_cpu(engine());  // programs of several sessions may run at once, each on a thread
  return on_cpu;
}

/// Kernels give their scratch from the arena, so that nothing is allocated while running.
inline dnnl::primitive_attr scratchpad_from_user() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

/// A primitive takes as many threads as OpenMP would give the calling thread, both when it is made and when it runs:
/// its scratch holds a part for each. To be called before either, as another backend or thread may have set another
/// number.
inline void use_threads(int threads) {
  omp_set_dynamic(0);
  if (omp_in_parallel()) omp_set_max_active_levels(omp_get_active_level() + 1);  // a region within a caller's
  omp_set_num_threads(threads);
}

/// A primitive that runs on fewer threads than it was made for leaves parts of its result unwritten (seen of 2.6.3's
/// inner product for AVX-512): throws ResourceError when OpenMP gives another number than was asked for.
inline void require_threads(int given, int threads) {
  if (given == threads) return;
  throw ResourceError(ExitCode::limit, "OpenMP gives {} of {} threads; expected all of them; look at OMP_THREAD_LIMIT",
                      given, threads);
}
/// The same of the teams that the calling thread would be given from now on.
inline void require_team(int threads) {
  use_threads(threads);
  int team = 1;
#pragma omp parallel num_threads(threads)
#pragma omp master
  team = omp_get_num_threads();
  require_threads(team, threads);
}

/// What a primitive runs on. The C++ interface makes a map and a vector of it at every call; this is made once. The
/// memories must outlive it.
class PrimitiveArguments {
 public:
  void add(int role, const dnnl::memory& memory) {
    check(count_ < list_.size(), "onednn: a primitive with more arguments than expected");
    list_[count_++] = {role, memory.get()};
  }
  void execute(const dnnl::primitive& primitive) const {
    dnnl::error::wrap_c_api(
        dnnl_primitive_execute(primitive.get(), stream().get(), static_cast<int>(count_), list_.data()),
        "could not execute a primitive");
  }

 private:
  std::array<dnnl_exec_arg_t, 5> list_ = {};
  size_t count_ = 0;
};

}  // namespace resnet::cpu
