#pragma once
// The one place that includes oneDNN (v2 API, Debian's 2.6.3).

#include <dnnl.hpp>

#include "base/error.h"
#include "plan/backend.h"

namespace resnet::cpu {

inline dnnl::engine& engine() {
  static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

inline dnnl::stream& stream() {
  static dnnl::stream on_cpu(engine());
  return on_cpu;
}

/// Kernels give their scratch from the arena, so that nothing is allocated while running.
inline dnnl::primitive_attr scratchpad_from_user() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

}  // namespace resnet::cpu
