#include "runtime/backends.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <latch>
#include <system_error>
#include <thread>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/simd/isa.h"
#include "backends/reference/reference_backend.h"
#include "base/control_groups.h"

namespace resnet {

namespace {

/// CPUs that this process may run on: its affinity and its control groups' quotas.
int allowed_cpus() {
  cpu_set_t set;
  int count = 1;
  if (sched_getaffinity(0, sizeof set, &set) == 0) count = std::max(1, CPU_COUNT(&set));
  for (const ControlGroup& group : control_groups("cpu")) {
    const std::string quota = group.version == 2
                                  ? group.text("cpu.max")
                                  : group.text("cpu.cfs_quota_us") + " " + group.text("cpu.cfs_period_us");
    count = std::min(count, group_threads(quota).value_or(count));
  }
  return count;
}

/// Threads beyond the CPUs only wait for one another: some are allowed, as results depend on their number and a run may
/// have to repeat another machine's, but hundreds would crawl.
int most_threads(int cpus) { return std::max(32, 4 * cpus); }

/// The OpenMP runtime ends the process when it gets no thread: ask for as many before it does.
void require_threads(int count) {
  require_thread_count(count);
  std::latch all_asked(1);
  std::vector<std::jthread> threads;
  try {
    for (int i = 1; i < count; ++i) threads.emplace_back([&] { all_asked.wait(); });
  } catch (const std::system_error& error) {
    all_asked.count_down();
    throw ResourceError(ExitCode::limit, "--threads: {}; the system gives {} ({}); expected no more than that", count,
                        threads.size() + 1, error.code().message());
  }
  all_asked.count_down();
}

}  // namespace

void require_thread_count(int64_t count) {
  const int cpus = allowed_cpus();
  if (count < 0 || count > most_threads(cpus))
    throw UserError("--threads: {}; expected 0 (all {} CPUs that this process may use) to {}", count, cpus,
                    most_threads(cpus));
}

int compute_threads(int64_t count) {
  require_thread_count(count);
  if (count == 0) return available_threads();
  const char* limit = std::getenv("OMP_THREAD_LIMIT");
  const auto given = static_cast<int>(count);
  return limit ? std::min(given, openmp_threads(limit).value_or(given)) : given;
}

std::optional<Precision> parse_precision(const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  for (const Precision precision : {Precision::f32, Precision::f16, Precision::int8}) {
    if (*name == name_of(precision)) return precision;
  }
  throw UserError("--precision: '{}'; expected f32, f16 or int8", escape_control(*name));
}

const char* name_of(Precision precision) {
  switch (precision) {
    case Precision::f32: return "f32";
    case Precision::f16: return "f16";
    case Precision::int8: return "int8";
  }
  return "?";
}

Precision precision_of(std::optional<Precision> asked, bool quantized) {
  const Precision own = quantized ? Precision::int8 : Precision::f32;
  if (!asked || *asked == own) return own;
  if (quantized)
    throw UserError("--precision: {}; the model computes in 8 bits; expected int8, or the f32 model it was made from",
                    name_of(*asked));
  if (*asked == Precision::int8)
    throw UserError("--precision: int8; the model is not in 8 bits; expected a file that `resnet quantize` wrote");
  return *asked;
}

std::unique_ptr<Backend> make_backend(const std::string& name, int threads, AlgorithmChoice choice,
                                      Precision precision) {
  if (name == "cpu") {
    require_threads(threads);
    return make_cpu_backend({.threads = threads,
                             .algorithms = conv_algorithms_from_environment(),
                             .without = conv_without_from_environment(),
                             .measure = choice == AlgorithmChoice::measured,
                             .half = precision == Precision::f16});
  }
  if (name == "reference") {
    if (precision == Precision::f16)
      throw UserError("--precision: f16 with the backend reference; expected f32, or the backend cpu");
    return make_reference_backend();
  }
  throw UserError("backend '{}' is unknown; expected cpu or reference; nearest: {}", escape_control(name),
                  nearest_names(name, {"cpu", "reference"}, 1));
}

double fma_peak(int threads) { return measure_fma_peak(threads); }

double memory_bandwidth(int threads) { return measure_memory_bandwidth(threads); }

int available_threads() {
  int count = allowed_cpus();
  for (const char* name : {"OMP_NUM_THREADS", "OMP_THREAD_LIMIT"}) {
    if (const char* text = std::getenv(name)) count = std::min(count, openmp_threads(text).value_or(count));
  }
  return count;
}

std::optional<int> openmp_threads(std::string_view value) {
  value = value.substr(0, value.find(','));
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number < 1) return std::nullopt;
  return number;
}

std::optional<int> group_threads(std::string_view quota) {
  int64_t numbers[2] = {};  // quota and period, in microseconds
  const char* at = quota.data();
  const char* const last = at + quota.size();
  for (int64_t& number : numbers) {
    while (at != last && (*at == ' ' || *at == '\n')) ++at;
    const auto [end, error] = std::from_chars(at, last, number);
    if (error != std::errc() || number <= 0) return std::nullopt;
    at = end;
  }
  const int64_t whole = numbers[0] / numbers[1] + (numbers[0] % numbers[1] > 0);
  return static_cast<int>(std::min<int64_t>(whole, INT_MAX));
}

std::string instruction_set() { return isa_name(detected_isa()); }

}  // namespace resnet
