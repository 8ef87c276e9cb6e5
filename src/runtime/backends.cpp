#include "runtime/backends.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/simd/isa.h"
#include "backends/reference/reference_backend.h"

namespace resnet {

std::unique_ptr<Backend> make_backend(const std::string& name, int threads) {
  if (name == "cpu") return make_cpu_backend({.threads = threads, .algorithms = conv_algorithms_from_environment()});
  if (name == "reference") return make_reference_backend();
  throw UserError("backend '{}' is unknown; expected cpu or reference; nearest: {}", escape_control(name),
                  nearest_names(name, {"cpu", "reference"}, 1));
}

double fma_peak(int threads) { return measure_fma_peak(threads); }

int available_threads() {
  cpu_set_t set;
  int count = 1;
  if (sched_getaffinity(0, sizeof set, &set) == 0) count = std::max(1, CPU_COUNT(&set));
  // cgroup v2: "max 100000" or "QUOTA PERIOD", in microseconds
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (file >> quota >> period && quota != "max" && period > 0) {
    count = std::min(count, std::max(1, static_cast<int>(std::ceil(std::atof(quota.c_str()) / period))));
  }
  return count;
}

std::string instruction_set() { return isa_name(detected_isa()); }

}  // namespace resnet
