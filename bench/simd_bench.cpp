// Bandwidth of the SIMD kernels beside plain streams with as many reads and writes, timed in turn in
// one process: simd_bench [threads [filter]]. A ratio of 1 is the speed of memory (or of the cache
// that holds the small case). Every figure counts the bytes a kernel must move, not what a cache adds.

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backends/cpu/simd_kernels.h"
#include "base/format.h"

namespace {

using namespace resnet;
using namespace resnet::simd;

constexpr int kRounds = 25;

struct Buffer {
  explicit Buffer(size_t count, float value = 1)
      : data(static_cast<float*>(std::aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64)), &std::free) {
    std::fill_n(data.get(), count, value);
  }
  operator float*() const { return data.get(); }
  std::unique_ptr<float, decltype(&std::free)> data;
};

/// Streams of this many reads and one write (or none), in plain C++ that any compiler vectorises.
struct Streams {
  int threads;
  float* out;
  const float* a;
  const float* b;
  const float* c;
  int64_t n;

  float read() const {
    constexpr int kChains = 32;
    float total = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : total) schedule(static)
    for (int64_t strip = 0; strip < n / 4096; ++strip) {
      float sums[kChains] = {};
      for (int64_t i = strip * 4096; i < (strip + 1) * 4096; i += kChains)
        for (int k = 0; k < kChains; ++k) sums[k] += a[i + k];
      for (float s : sums) total += s;
    }
    return total;
  }
  void copy() const {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; ++i) out[i] = a[i] * 0.5f;
  }
  void in_place() const {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; ++i) out[i] = out[i] * 0.999f;
  }
  void triad() const {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; ++i) out[i] = a[i] + 0.5f * b[i];
  }
  void three_reads() const {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; ++i) out[i] = a[i] + 0.5f * b[i] + 0.25f * c[i];
  }
};

/// Wall time; with one thread, processor time, so that a busy machine disturbs less.
double now(int threads) {
  if (threads == 1) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double seconds_of(const std::function<void()>& f, int repeats, int threads) {
  const double start = now(threads);
  for (int i = 0; i < repeats; ++i) f();
  return (now(threads) - start) / repeats;
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

struct Case {
  std::string name;
  double bytes;  ///< that must move at least
  std::function<void()> kernel;
  std::function<void()> stream;
  double stream_bytes;
};

void report(const Case& c, int repeats, int threads) {
  std::vector<double> kernel, stream, ratio;
  for (int round = 0; round < kRounds; ++round) {
    const double k = seconds_of(c.kernel, repeats, threads), s = seconds_of(c.stream, repeats, threads);
    kernel.push_back(c.bytes / k / 1e9);
    stream.push_back(c.stream_bytes / s / 1e9);
    ratio.push_back(kernel.back() / stream.back());
  }
  fmt::print("{:<34} {:8.2f} {:8.2f} {:8.2f} {:8.2f} {:7.2f}\n", c.name, median(kernel),
             *std::max_element(kernel.begin(), kernel.end()), median(stream),
             *std::max_element(stream.begin(), stream.end()), median(ratio));
}

void bench(const SimdKernels& k, const MapSize& s, int threads, const std::string& filter) {
  const int64_t B = k.block;
  const int64_t blocks = (s.C + B - 1) / B;
  const size_t n = static_cast<size_t>(s.N * blocks * s.H * s.W * B), C = static_cast<size_t>(s.C);
  const Buffer x(n), y(n), dy(n), r(n), out(n), mean(C), variance(C), gamma(C), beta(C), dgamma(C), dbeta(C);
  const Buffer scratch(batch_norm_scratch_bytes(s) / sizeof(float) + 1);
  const MapSize half{s.N, s.C, s.H / 2, s.W / 2};
  const size_t n4 = n / 4;
  std::vector<uint8_t> index(n4);
  const PoolWindow window{3, 3, 2, 2, 1, 1};
  const Streams streams{threads, out, x, y, dy, static_cast<int64_t>(n)};
  const double unit = static_cast<double>(n) * 4;
  const int repeats = std::max(1, static_cast<int>(4e6 / unit));
  volatile float sink = 0;
  const std::function<void()> read = [&] { sink = streams.read(); }, copy = [&] { streams.copy(); },
                              triad = [&] { streams.triad(); }, three = [&] { streams.three_reads(); },
                              in_place = [&] { streams.in_place(); };
  const auto apply = [&](const float* residual, float* to, bool relu) {
    return [=, &k, &x, &mean, &variance, &gamma, &beta, &scratch] {
      k.batch_norm_apply({.size = s,
                          .x = x,
                          .mean = mean,
                          .variance = variance,
                          .gamma = gamma,
                          .beta = beta,
                          .residual = residual,
                          .y = to,
                          .relu = relu,
                          .scratch = scratch,
                          .threads = threads});
    };
  };
  const auto training = [&](const float* residual) {
    return [=, &k, &x, &mean, &variance, &gamma, &beta, &scratch, &out] {
      k.batch_norm_training({.size = s,
                             .x = x,
                             .gamma = gamma,
                             .beta = beta,
                             .residual = residual,
                             .mean = mean,
                             .variance = variance,
                             .y = out,
                             .relu = true,
                             .scratch = scratch,
                             .threads = threads});
    };
  };
  const auto backward = [&](const float* mask, float* dx, float* dresidual) {
    return [=, &k, &x, &dy, &mean, &variance, &gamma, &dgamma, &dbeta, &scratch] {
      k.batch_norm_backward({.size = s,
                             .dy = dy,
                             .x = x,
                             .y = mask,
                             .mean = mean,
                             .variance = variance,
                             .gamma = gamma,
                             .dx = dx,
                             .dgamma = dgamma,
                             .dbeta = dbeta,
                             .dresidual = dresidual,
                             .scratch = scratch,
                             .threads = threads});
    };
  };
  const auto flat = [&](void (*kernel)(const Elementwise&)) {
    return [=, &x, &y, &out] { kernel({x, y, out, static_cast<int64_t>(n), threads}); };
  };
  const MaxPool max_pool{.size = s,
                         .window = window,
                         .Ho = half.H,
                         .Wo = half.W,
                         .x = x,
                         .y = out,
                         .index = index.data(),
                         .threads = threads};
  const MaxPoolBackward max_pool_backward{.size = s,
                                          .window = window,
                                          .Ho = half.H,
                                          .Wo = half.W,
                                          .dy = y,
                                          .index = index.data(),
                                          .dx = out,
                                          .threads = threads};
  const std::vector<Case> cases = {
      {"batch_norm_apply relu", 2 * unit, apply(nullptr, out, true), copy, 2 * unit},
      {"batch_norm_apply add relu", 3 * unit, apply(y, out, true), triad, 3 * unit},
      {"batch_norm_training relu", 3 * unit, training(nullptr), triad, 3 * unit},
      {"batch_norm_training add relu", 4 * unit, training(y), three, 4 * unit},
      {"batch_norm_backward", 5 * unit, backward(nullptr, out, nullptr), triad, 3 * unit},
      {"batch_norm_backward relu", 7 * unit, backward(y, out, nullptr), three, 4 * unit},
      {"batch_norm_backward relu dresidual", 7 * unit, backward(y, out, r), three, 4 * unit},
      {"relu", 2 * unit, flat(k.relu), copy, 2 * unit},
      {"relu_grad", 3 * unit, flat(k.relu_grad), triad, 3 * unit},
      {"add", 3 * unit, flat(k.add), triad, 3 * unit},
      {"channel_sum", unit,
       [&] { k.channel_sum({.size = s, .x = x, .sum = mean, .scratch = scratch, .threads = threads}); }, read, unit},
      {"max_pool 3x3/2 with index", unit * 1.3125, [&] { k.max_pool(max_pool); }, read, unit},
      {"max_pool_backward 3x3/2", unit * 1.3125, [&] { k.max_pool_backward(max_pool_backward); }, copy, 2 * unit},
      {"global_avg_pool", unit, [&] { k.global_avg_pool({.size = s, .x = x, .y = out, .threads = threads}); }, read,
       unit},
      {"sgd_update momentum", 5 * unit,
       [&] {
         k.sgd_update({.p = out,
                       .g = x,
                       .buffer = y,
                       .n = static_cast<int64_t>(n),
                       .lr = 1e-9f,
                       .momentum = 0.9f,
                       .threads = threads});
       },
       in_place, 2 * unit},
      {"to_blocked", 2 * unit, [&] { k.to_blocked({.size = s, .from = x, .to = out, .threads = threads}); }, copy,
       2 * unit},
      {"to_plain", 2 * unit, [&] { k.to_plain({.size = s, .from = x, .to = out, .threads = threads}); }, copy,
       2 * unit},
  };
  fmt::print("\n{}x{}x{}x{}, {:.1f} MB a tensor, block {}, {} threads, GB/s of the bytes that must move\n", s.N, s.C,
             s.H, s.W, unit / 1e6, B, threads);
  fmt::print("{:<34} {:>8} {:>8} {:>8} {:>8} {:>7}\n", "kernel", "median", "best", "stream", "best", "ratio");
  for (const Case& c : cases)
    if (c.name.find(filter) != std::string::npos) report(c, repeats, threads);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 2;
  const std::string filter = argc > 2 ? argv[2] : "";
  const Isa isa = detected_isa();
  fmt::print("{}\n", isa_name(isa));
  const SimdKernels& kernels = simd_kernels(isa);
  bench(kernels, {256, 64, 24, 24}, threads, filter);  // beyond the last-level cache
  bench(kernels, {256, 256, 6, 6}, threads, filter);   // in the last-level cache
  bench(kernels, {8, 64, 12, 12}, threads, filter);    // in the second-level cache
}
