// The SIMD kernels against plain double loops over plain NCHW data, for every instruction set this
// CPU runs and for both block widths (16 on a CPU with 8 lanes is the same template, lowered).

#include "backends/cpu/simd_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "base/format.h"
#include "base/rng.h"

namespace resnet::simd {
namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

constexpr double kUnit = 0x1p-24;  // rounding of one f32 operation, relative
// Longest chain of f32 additions in a sum: a run of 64 pixels in two chains, and what joins them.
constexpr double kChain = 64 / 2 + 4;

std::string describe(const MapSize& s) { return fmt::format("N={} C={} H={} W={}", s.N, s.C, s.H, s.W); }
size_t elements(const MapSize& s) { return static_cast<size_t>(s.N * s.C * s.H * s.W); }
size_t at(const MapSize& s, int64_t n, int64_t c, int64_t p) {
  return static_cast<size_t>((n * s.C + c) * s.H * s.W + p);
}

/// Uniform with this mean and standard deviation.
Floats noise(uint64_t seed, size_t count, double mean = 0, double deviation = 1) {
  Rng rng(seed);
  Floats v(count);
  for (float& x : v) x = static_cast<float>(mean + deviation * 3.4641016 * (rng.uniform() - 0.5));
  return v;
}
Floats small_integers(uint64_t seed, size_t count) {
  Rng rng(seed);
  Floats v(count);
  for (float& x : v) x = static_cast<float>(static_cast<int>(rng.below(17)) - 8);
  return v;
}

/// Scratch that notices being written past its end.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : bytes_(bytes), memory_(bytes / 64 + 2) { std::memset(data(), 0xff, bytes_ + 64); }
  ~Scratch() {
    const unsigned char* end = static_cast<unsigned char*>(data()) + bytes_;
    EXPECT_TRUE(std::all_of(end, end + 64, [](unsigned char c) { return c == 0xff; })) << "scratch was overrun";
  }
  void* data() { return memory_.data(); }

 private:
  struct alignas(64) Line {
    unsigned char bytes[64];
  };
  size_t bytes_;
  std::vector<Line> memory_;
};

struct Table {
  Isa isa;
  int64_t block;
  const SimdKernels& kernels() const { return simd_kernels(isa, block); }
};

class SimdTest : public testing::TestWithParam<Table> {
 protected:
  const int64_t B = GetParam().block;
  const SimdKernels& kernels = GetParam().kernels();

  struct Statistics {
    Floats mean, variance;
  };
  /// What batch_norm_training finds for a blocked x.
  Statistics statistics(const MapSize& s, const Floats& x, int threads = 1) const {
    const size_t C = static_cast<size_t>(s.C);
    const Floats gamma(C, 1.0f), beta(C);
    Statistics result{Floats(C), Floats(C)};
    Floats y(x.size());
    Scratch scratch(batch_norm_scratch_bytes(s));
    kernels.batch_norm_training({.size = s,
                                 .x = x.data(),
                                 .gamma = gamma.data(),
                                 .beta = beta.data(),
                                 .mean = result.mean.data(),
                                 .variance = result.variance.data(),
                                 .y = y.data(),
                                 .scratch = scratch.data(),
                                 .threads = threads});
    return result;
  }

  int64_t blocks(int64_t C) const { return (C + B - 1) / B; }
  size_t blocked_elements(const MapSize& s) const { return static_cast<size_t>(s.N * blocks(s.C) * s.H * s.W * B); }

  template <class T>
  std::vector<T> blocked(const MapSize& s, const std::vector<T>& plain) const {
    std::vector<T> out(blocked_elements(s));
    each(s, [&](size_t from, size_t to) { out[to] = plain[from]; });
    return out;
  }
  /// Back to plain; fails the test if a padding channel is not zero.
  template <class T>
  std::vector<T> plain(const MapSize& s, const std::vector<T>& from, bool padding_is_zero = true) const {
    std::vector<T> out(elements(s));
    std::vector<bool> seen(from.size());
    each(s, [&](size_t to, size_t i) {
      out[to] = from[i];
      seen[i] = true;
    });
    size_t dirty = 0;
    for (size_t i = 0; i < from.size(); ++i) dirty += !seen[i] && from[i] != T{};
    if (padding_is_zero) {
      EXPECT_EQ(dirty, 0u) << "padding channels that are not zero";
    }
    return out;
  }

 private:
  template <class F>
  void each(const MapSize& s, const F& f) const {
    for (int64_t n = 0; n < s.N; ++n)
      for (int64_t c = 0; c < s.C; ++c)
        for (int64_t p = 0; p < s.H * s.W; ++p)
          f(at(s, n, c, p), static_cast<size_t>(((n * blocks(s.C) + c / B) * s.H * s.W + p) * B + c % B));
  }
};

/// |value - expected| <= bound everywhere, and the expectation is not mostly zeros.
void expect_within(const Floats& value, const Doubles& expected, const Doubles& bound, const char* what) {
  ASSERT_EQ(value.size(), expected.size()) << what;
  ASSERT_EQ(bound.size(), expected.size()) << what;
  size_t wrong = 0;
  for (size_t i = 0; i < value.size(); ++i) {
    const double error = std::abs(static_cast<double>(value[i]) - expected[i]);
    if (!(error <= bound[i]) && ++wrong <= 3)
      ADD_FAILURE() << what << "[" << i << "] is " << value[i] << ", expected " << expected[i] << " within "
                    << bound[i];
  }
  EXPECT_EQ(wrong, 0u) << what;
}
void expect_meaningful(const Doubles& expected, const char* what) {
  const auto zeros = std::count(expected.begin(), expected.end(), 0.0);
  EXPECT_LE(zeros, static_cast<int64_t>(expected.size() * 9 / 10 + 1)) << what << " is mostly zero";
}

void expect_same_bytes(const Floats& a, const Floats& b, const char* what) {
  if (a.empty() && b.empty()) return;
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << what << " differs";
}

bool is_large(const MapSize& s) { return elements(s) > 1000000; }

std::vector<MapSize> odd_sizes() {
  std::vector<MapSize> sizes;
  for (int64_t C : {1, 3, 8, 17, 40})
    for (const auto& [H, W] : {std::pair<int64_t, int64_t>{1, 1}, {2, 3}, {9, 7}})
      for (int64_t N : {1, 2, 5})
        if (N * H * W > 1) sizes.push_back({N, C, H, W});
  sizes.push_back({300, 17, 2, 2});   // several images in a part of a sum
  sizes.push_back({3, 20, 24, 24});   // several runs in an image
  sizes.push_back({32, 64, 32, 32});  // several groups of channel blocks in the cache
  sizes.push_back({8, 9, 160, 160});  // a channel block larger than the cache
  return sizes;
}

/// One batch normalisation in double, with the sizes of the terms for tolerances.
struct BatchNormReference {
  Doubles mean, variance, mean_magnitude;

  BatchNormReference(const MapSize& s, const Floats& x)
      : mean(static_cast<size_t>(s.C)), variance(mean), mean_magnitude(mean) {
    const double count = static_cast<double>(s.N * s.H * s.W);
    for (int64_t c = 0; c < s.C; ++c) {
      const size_t k = static_cast<size_t>(c);
      for_channel(s, c, [&](size_t i) {
        mean[k] += static_cast<double>(x[i]) / count;
        mean_magnitude[k] += std::abs(static_cast<double>(x[i])) / count;
      });
      for_channel(s, c, [&](size_t i) {
        const double d = static_cast<double>(x[i]) - mean[k];
        variance[k] += d * d / count;
      });
    }
  }

  template <class F>
  static void for_channel(const MapSize& s, int64_t c, const F& f) {
    for (int64_t n = 0; n < s.N; ++n)
      for (int64_t p = 0; p < s.H * s.W; ++p) f(at(s, n, c, p));
  }
};

TEST_P(SimdTest, TableIsComplete) {
  EXPECT_EQ(kernels.block, B);
  // The first member is the block, all others are pointers.
  const auto* members = reinterpret_cast<const unsigned char*>(&kernels);
  for (size_t i = sizeof(int64_t); i < sizeof(SimdKernels); i += sizeof(void*)) {
    void* pointer = nullptr;
    std::memcpy(&pointer, members + i, sizeof pointer);
    EXPECT_NE(pointer, nullptr) << "kernel " << (i - sizeof(int64_t)) / sizeof(void*);
  }
}

TEST_P(SimdTest, BatchNormStatisticsMatchDoubleForAnyThreads) {
  uint64_t seed = 11;
  for (const MapSize& s : odd_sizes()) {
    SCOPED_TRACE(describe(s) + fmt::format(" seed={}", ++seed));
    const Floats x = noise(seed, elements(s), 0.5, 2);
    const Floats xb = blocked(s, x);
    const BatchNormReference reference(s, x);
    const auto [mean, variance] = statistics(s, xb);
    const Statistics with_two = statistics(s, xb, 2);
    expect_same_bytes(mean, with_two.mean, "mean");
    expect_same_bytes(variance, with_two.variance, "variance");
    Doubles mean_bound, variance_bound;
    for (size_t c = 0; c < mean.size(); ++c) {
      // The mean of a run is off by at most `e`; squares about it and between runs feel it.
      const double e = kChain * kUnit * reference.mean_magnitude[c];
      mean_bound.push_back(e);
      variance_bound.push_back(kChain * kUnit * reference.variance[c] + 2 * std::sqrt(reference.variance[c]) * e +
                               e * e);
    }
    expect_within(mean, reference.mean, mean_bound, "mean");
    expect_within(variance, reference.variance, variance_bound, "variance");
  }
}

TEST_P(SimdTest, VarianceKeepsItsDigitsWhenTheMeanIsAThousandDeviations) {
  const MapSize s{16, 17, 24, 24};
  const Floats x = noise(5, elements(s), 1000, 1);
  const BatchNormReference reference(s, x);
  const auto [mean, variance] = statistics(s, blocked(s, x));
  for (size_t c = 0; c < 17; ++c) {
    EXPECT_NEAR(static_cast<double>(mean[c]), reference.mean[c], 1000 * 2 * kUnit);
    EXPECT_NEAR(static_cast<double>(variance[c]) / reference.variance[c], 1, 1e-5);
  }
}

TEST_P(SimdTest, ConstantChannelHasNoVariance) {
  const MapSize s{3, 5, 9, 7};
  Floats xb = blocked(s, Floats(elements(s), 1234.567f));
  for (float v : statistics(s, xb).variance) {
    EXPECT_GE(v, 0.0f);
    EXPECT_LE(v, 1e-6f);
  }
  xb[0] = std::numeric_limits<float>::quiet_NaN();
  const auto [mean, variance] = statistics(s, xb);
  EXPECT_TRUE(std::isnan(mean[0]) && std::isnan(variance[0])) << "a NaN must be seen";
  EXPECT_FALSE(std::isnan(mean[1]));
}

TEST_P(SimdTest, BatchNormApplyMatchesDoubleInPlaceAndNot) {
  enum class Where { apart, x, residual };
  uint64_t seed = 211;
  for (const MapSize& s : odd_sizes()) {
    for (const bool relu : {false, true})
      for (const bool with_residual : {false, true})
        for (const Where where : {Where::apart, Where::x, Where::residual}) {
          if (where == Where::residual && !with_residual) continue;
          if (is_large(s) && !(relu && with_residual && where == Where::apart)) continue;
          SCOPED_TRACE(describe(s) + fmt::format(" seed={} relu={} residual={} where={}", ++seed, relu, with_residual,
                                                 static_cast<int>(where)));
          const size_t C = static_cast<size_t>(s.C);
          const Floats x = noise(seed, elements(s), 3), residual = noise(seed + 1000, elements(s));
          const Floats gamma = noise(seed + 2000, C, 1, 0.3), beta = noise(seed + 3000, C, 1, 0.3);
          const Floats mean = noise(seed + 4000, C, 3, 0.1);
          Floats variance = noise(seed + 5000, C);
          for (float& v : variance) v = v * v;
          Floats results[2];
          for (int t : {0, 1}) {
            Floats xb = blocked(s, x), rb = blocked(s, residual);
            Floats apart(blocked_elements(s), 7.0f);
            Floats& y = where == Where::apart ? apart : where == Where::x ? xb : rb;
            Scratch scratch(batch_norm_scratch_bytes(s));
            kernels.batch_norm_apply({.size = s,
                                      .x = xb.data(),
                                      .mean = mean.data(),
                                      .variance = variance.data(),
                                      .gamma = gamma.data(),
                                      .beta = beta.data(),
                                      .residual = with_residual ? rb.data() : nullptr,
                                      .y = y.data(),
                                      .relu = relu,
                                      .scratch = scratch.data(),
                                      .threads = t + 1});
            results[t] = plain(s, y);
          }
          expect_same_bytes(results[0], results[1], "y");
          Doubles expected(elements(s)), bound(elements(s));
          for (int64_t c = 0; c < s.C; ++c)
            BatchNormReference::for_channel(s, c, [&](size_t i) {
              const size_t k = static_cast<size_t>(c);
              const double scale = static_cast<double>(gamma[k]) /
                                   std::sqrt(static_cast<double>(variance[k]) + static_cast<double>(1e-5f));
              const double a = (static_cast<double>(x[i]) - static_cast<double>(mean[k])) * scale;
              const double r = with_residual ? static_cast<double>(residual[i]) : 0;
              const double y = a + static_cast<double>(beta[k]) + r;
              expected[i] = relu ? std::max(y, 0.0) : y;
              bound[i] = 6 * kUnit * (std::abs(a) + std::abs(static_cast<double>(beta[k])) + std::abs(r));
            });
          expect_meaningful(expected, "y");
          expect_within(results[0], expected, bound, "y");
        }
  }
}

TEST_P(SimdTest, BatchNormTrainingHasTheBytesOfApplyOnItsStatistics) {
  uint64_t seed = 411;
  for (const MapSize& s : odd_sizes()) {
    SCOPED_TRACE(describe(s) + fmt::format(" seed={}", ++seed));
    const size_t C = static_cast<size_t>(s.C);
    const Floats xb = blocked(s, noise(seed, elements(s), 3)), rb = blocked(s, noise(seed + 1, elements(s)));
    const Floats gamma = noise(seed + 2, C), beta = noise(seed + 3, C);
    Scratch scratch(batch_norm_scratch_bytes(s));
    const auto [mean, variance] = statistics(s, xb);
    Floats y(xb.size());
    kernels.batch_norm_apply({.size = s,
                              .x = xb.data(),
                              .mean = mean.data(),
                              .variance = variance.data(),
                              .gamma = gamma.data(),
                              .beta = beta.data(),
                              .residual = rb.data(),
                              .y = y.data(),
                              .relu = true,
                              .scratch = scratch.data()});
    for (int threads : {1, 2, 3}) {
      Floats mean2(C), variance2(C), y2 = xb;
      kernels.batch_norm_training({.size = s,
                                   .x = y2.data(),
                                   .gamma = gamma.data(),
                                   .beta = beta.data(),
                                   .residual = rb.data(),
                                   .mean = mean2.data(),
                                   .variance = variance2.data(),
                                   .y = y2.data(),
                                   .relu = true,
                                   .scratch = scratch.data(),
                                   .threads = threads});
      expect_same_bytes(mean, mean2, "mean");
      expect_same_bytes(variance, variance2, "variance");
      expect_same_bytes(y, y2, "y");
    }
  }
}

TEST_P(SimdTest, BatchNormBackwardMatchesDoubleInPlaceAndNot) {
  enum class Where { apart, dx_is_dy, dresidual_is_dy };
  uint64_t seed = 611;
  for (const MapSize& s : odd_sizes()) {
    for (const bool relu : {false, true})
      for (const bool training : {false, true})
        for (const bool with_residual : {false, true})
          for (const Where where : {Where::apart, Where::dx_is_dy, Where::dresidual_is_dy}) {
            if (where == Where::dresidual_is_dy && !with_residual) continue;
            if (is_large(s) && !(relu && training && where == Where::apart)) continue;
            SCOPED_TRACE(describe(s) + fmt::format(" seed={} relu={} training={} residual={} where={}", ++seed, relu,
                                                   training, with_residual, static_cast<int>(where)));
            const size_t C = static_cast<size_t>(s.C);
            const Floats x = noise(seed, elements(s), 2), dy = noise(seed + 1000, elements(s), 0.2);
            const Floats y = noise(seed + 2000, elements(s)), gamma = noise(seed + 3000, C, 1, 0.3);
            const Floats mean = noise(seed + 4000, C, 2, 0.1);
            Floats variance = noise(seed + 5000, C);
            for (float& v : variance) v = v * v + 0.1f;
            Floats dx[2], dgamma[2], dbeta[2], dresidual[2];
            for (int t : {0, 1}) {
              const Floats xb = blocked(s, x), yb = blocked(s, y);
              Floats dyb = blocked(s, dy), dxb(dyb.size(), 7.0f), drb(dyb.size(), 7.0f);
              Floats& dx_out = where == Where::dx_is_dy ? dyb : dxb;
              Floats& dr_out = where == Where::dresidual_is_dy ? dyb : drb;
              dgamma[t].resize(C);
              dbeta[t].resize(C);
              Scratch scratch(batch_norm_scratch_bytes(s));
              kernels.batch_norm_backward({.size = s,
                                           .dy = dyb.data(),
                                           .x = xb.data(),
                                           .y = relu ? yb.data() : nullptr,
                                           .mean = mean.data(),
                                           .variance = variance.data(),
                                           .gamma = gamma.data(),
                                           .dx = dx_out.data(),
                                           .dgamma = dgamma[t].data(),
                                           .dbeta = dbeta[t].data(),
                                           .dresidual = with_residual ? dr_out.data() : nullptr,
                                           .training = training,
                                           .scratch = scratch.data(),
                                           .threads = t + 1});
              dx[t] = plain(s, dx_out);
              if (with_residual) dresidual[t] = plain(s, dr_out);
            }
            expect_same_bytes(dx[0], dx[1], "dx");
            expect_same_bytes(dgamma[0], dgamma[1], "dgamma");
            expect_same_bytes(dbeta[0], dbeta[1], "dbeta");
            expect_same_bytes(dresidual[0], dresidual[1], "dresidual");

            Doubles want_dx(elements(s)), bound_dx(elements(s)), want_dr(elements(s));
            Doubles want_dgamma(C), bound_dgamma(C), want_dbeta(C), bound_dbeta(C);
            const double count = static_cast<double>(s.N * s.H * s.W);
            for (int64_t c = 0; c < s.C; ++c) {
              const size_t k = static_cast<size_t>(c);
              const double inverse = 1 / std::sqrt(static_cast<double>(variance[k]) + static_cast<double>(1e-5f));
              const double scale = static_cast<double>(gamma[k]) * inverse;
              const auto xhat = [&](size_t i) {
                return (static_cast<double>(x[i]) - static_cast<double>(mean[k])) * inverse;
              };
              double sum_g = 0, sum_gx = 0, size_g = 0, size_gx = 0;
              BatchNormReference::for_channel(s, c, [&](size_t i) {
                const double g = !relu || y[i] > 0 ? static_cast<double>(dy[i]) : 0;
                want_dr[i] = g;
                sum_g += g;
                sum_gx += g * xhat(i);
                size_g += std::abs(g);
                size_gx += std::abs(g * xhat(i));
              });
              want_dbeta[k] = sum_g;
              want_dgamma[k] = sum_gx;
              bound_dbeta[k] = kChain * kUnit * size_g;
              bound_dgamma[k] = kChain * kUnit * size_gx;
              BatchNormReference::for_channel(s, c, [&](size_t i) {
                const double g = want_dr[i];
                const double a = training ? sum_g / count : 0, b = training ? xhat(i) * sum_gx / count : 0;
                want_dx[i] = scale * (g - a - b);
                bound_dx[i] = kUnit * std::abs(scale) *
                              (6 * (std::abs(g) + std::abs(a) + std::abs(b)) +
                               (training ? kChain * (size_g + std::abs(xhat(i)) * size_gx) / count : 0));
              });
            }
            expect_meaningful(want_dx, "dx");
            expect_within(dx[0], want_dx, bound_dx, "dx");
            expect_within(dgamma[0], want_dgamma, bound_dgamma, "dgamma");
            expect_within(dbeta[0], want_dbeta, bound_dbeta, "dbeta");
            if (with_residual) expect_within(dresidual[0], want_dr, Doubles(elements(s)), "dresidual");
          }
  }
}

TEST_P(SimdTest, LargeOutputsThatBypassTheCachesHaveTheSameBytes) {
  // Apart and aligned, an output of this size is streamed to memory; in place or unaligned it is not.
  const MapSize s{4, 17, 320, 320};
  const size_t n = blocked_elements(s);
  const Floats xb = blocked(s, noise(1, elements(s), 2)), yb = blocked(s, noise(2, elements(s)));
  const Floats mean = noise(3, 17, 2, 0.1), variance(17, 1.5f), gamma = noise(4, 17), beta = noise(5, 17);
  Scratch out(n * sizeof(float)), scratch(batch_norm_scratch_bytes(s));
  float* streamed = static_cast<float*>(out.data());
  Floats dgamma(17), dbeta(17);
  for (int threads : {1, 2}) {
    Floats in_place = xb;
    for (const bool apart : {true, false})
      kernels.batch_norm_apply({.size = s,
                                .x = apart ? xb.data() : in_place.data(),
                                .mean = mean.data(),
                                .variance = variance.data(),
                                .gamma = gamma.data(),
                                .beta = beta.data(),
                                .residual = yb.data(),
                                .y = apart ? streamed : in_place.data(),
                                .relu = true,
                                .scratch = scratch.data(),
                                .threads = threads});
    expect_same_bytes(Floats(streamed, streamed + n), in_place, "y");
    in_place = xb;
    for (const bool apart : {true, false})
      kernels.batch_norm_backward({.size = s,
                                   .dy = apart ? xb.data() : in_place.data(),
                                   .x = xb.data(),
                                   .y = yb.data(),
                                   .mean = mean.data(),
                                   .variance = variance.data(),
                                   .gamma = gamma.data(),
                                   .dx = apart ? streamed : in_place.data(),
                                   .dgamma = dgamma.data(),
                                   .dbeta = dbeta.data(),
                                   .scratch = scratch.data(),
                                   .threads = threads});
    expect_same_bytes(Floats(streamed, streamed + n), in_place, "dx");
  }
  const MapSize half{s.N, s.C, 160, 160};
  Floats y(blocked_elements(half)), plain_dx(n + 1);
  std::vector<uint8_t> index(y.size());
  kernels.max_pool({.size = s,
                    .window = {3, 3, 2, 2, 1, 1},
                    .Ho = 160,
                    .Wo = 160,
                    .x = xb.data(),
                    .y = y.data(),
                    .index = index.data()});
  const bool unaligned = reinterpret_cast<uintptr_t>(plain_dx.data()) % 64 != 0;
  float* dx = plain_dx.data() + (unaligned ? 0 : 1);
  for (float* to : {streamed, dx})
    kernels.max_pool_backward({.size = s,
                               .window = {3, 3, 2, 2, 1, 1},
                               .Ho = 160,
                               .Wo = 160,
                               .dy = y.data(),
                               .index = index.data(),
                               .dx = to,
                               .threads = 2});
  expect_same_bytes(Floats(streamed, streamed + n), Floats(dx, dx + n), "dx");
}

TEST_P(SimdTest, BatchNormBackwardWithoutDxStillGivesTheParameters) {
  const MapSize s{2, 3, 9, 7};
  const Floats xb = blocked(s, noise(1, elements(s))), dyb = blocked(s, noise(2, elements(s), 1));
  const Floats mean(3), variance(3, 1.0f), gamma(3, 1.0f);
  Floats dx(xb.size()), dgamma[2] = {Floats(3), Floats(3)}, dbeta[2] = {Floats(3), Floats(3)};
  Scratch scratch(batch_norm_scratch_bytes(s));
  for (int without : {0, 1})
    kernels.batch_norm_backward({.size = s,
                                 .dy = dyb.data(),
                                 .x = xb.data(),
                                 .mean = mean.data(),
                                 .variance = variance.data(),
                                 .gamma = gamma.data(),
                                 .dx = without ? nullptr : dx.data(),
                                 .dgamma = dgamma[without].data(),
                                 .dbeta = dbeta[without].data(),
                                 .scratch = scratch.data()});
  EXPECT_EQ(dgamma[0], dgamma[1]);
  EXPECT_EQ(dbeta[0], dbeta[1]);
  EXPECT_NE(dbeta[0], Floats(3));
}

TEST_P(SimdTest, ElementwiseKernelsAreExactAtAnyLengthAndAlignment) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (int64_t n : {0, 1, 7, 8, 9, 31, 1000, 100003})
    for (size_t shift : {0, 1})
      for (int threads : {1, 2}) {
        SCOPED_TRACE(fmt::format("n={} shift={} threads={} seed={}", n, shift, threads, n));
        const size_t count = static_cast<size_t>(n) + shift;
        Floats a = noise(static_cast<uint64_t>(n), count), b = noise(static_cast<uint64_t>(n) + 1, count);
        if (n > 5) a[5] = nan;
        if (n > 3) b[3] = 0.0f;
        const auto run = [&](void (*kernel)(const Elementwise&), const float* second, bool in_place,
                             const std::function<float(float, float)>& expected) {
          Floats y = in_place ? a : Floats(count + 1, 7.0f);
          kernel({.a = in_place ? y.data() + shift : a.data() + shift,
                  .b = second,
                  .y = y.data() + shift,
                  .n = n,
                  .threads = threads});
          size_t wrong = 0;
          for (size_t i = shift; i < count; ++i) {
            const float want = expected(a[i], b[i]);
            wrong += std::isnan(want) ? !std::isnan(y[i]) : y[i] != want;
          }
          EXPECT_EQ(wrong, 0u);
          if (!in_place) {
            EXPECT_EQ(y[count], 7.0f) << "wrote past the end";
          }
        };
        const float* second = b.data() + shift;
        for (const bool in_place : {false, true}) {
          run(kernels.relu, nullptr, in_place, [](float v, float) { return v < 0 ? 0.0f : v; });
          run(kernels.relu_grad, second, in_place, [](float dy, float y) { return y > 0 ? dy : 0.0f; });
          run(kernels.add, second, in_place, [](float v, float w) { return v + w; });
        }
      }
}

TEST_P(SimdTest, ChannelSumMatchesDoubleForAnyThreads) {
  uint64_t seed = 811;
  for (const MapSize& s : odd_sizes()) {
    SCOPED_TRACE(describe(s) + fmt::format(" seed={}", ++seed));
    const size_t C = static_cast<size_t>(s.C);
    const Floats x = noise(seed, elements(s), 0.3), xb = blocked(s, x);
    Floats sum[2] = {Floats(C), Floats(C)};
    for (int t : {0, 1}) {
      Scratch scratch(channel_sum_scratch_bytes(s));
      kernels.channel_sum(
          {.size = s, .x = xb.data(), .sum = sum[t].data(), .scratch = scratch.data(), .threads = t + 1});
    }
    expect_same_bytes(sum[0], sum[1], "sum");
    Doubles expected(C), bound(C);
    for (int64_t c = 0; c < s.C; ++c)
      BatchNormReference::for_channel(s, c, [&](size_t i) {
        expected[static_cast<size_t>(c)] += static_cast<double>(x[i]);
        bound[static_cast<size_t>(c)] += kChain * kUnit * std::abs(static_cast<double>(x[i]));
      });
    expect_within(sum[0], expected, bound, "sum");
  }
}

TEST_P(SimdTest, ColumnSumRoundsOnce) {
  for (int64_t columns : {1, 10, 64, 65, 1000})
    for (int threads : {1, 2}) {
      SCOPED_TRACE(fmt::format("columns={} threads={}", columns, threads));
      const int64_t rows = 37;
      const size_t width = static_cast<size_t>(columns);
      const Floats x = noise(static_cast<uint64_t>(columns), width * 37, 1);
      Floats sum(width);
      kernels.column_sum({.x = x.data(), .sum = sum.data(), .rows = rows, .columns = columns, .threads = threads});
      Doubles expected(width), bound(width);
      for (size_t i = 0; i < x.size(); ++i) expected[i % width] += static_cast<double>(x[i]);
      for (size_t i = 0; i < width; ++i) bound[i] = kUnit * std::abs(expected[i]);
      expect_within(sum, expected, bound, "sum");
    }
}

struct PoolCase {
  MapSize size;
  PoolWindow window;
  int64_t Ho() const { return (size.H + 2 * window.padding_h - window.kernel_h) / window.stride_h + 1; }
  int64_t Wo() const { return (size.W + 2 * window.padding_w - window.kernel_w) / window.stride_w + 1; }
  MapSize out() const { return {size.N, size.C, Ho(), Wo()}; }
  std::string describe() const {
    return simd::describe(size) + fmt::format(" kernel {}x{} stride {}x{} padding {}x{}", window.kernel_h,
                                              window.kernel_w, window.stride_h, window.stride_w, window.padding_h,
                                              window.padding_w);
  }
};

std::vector<PoolCase> pool_cases() {
  const PoolWindow windows[] = {{3, 3, 2, 2, 1, 1}, {2, 2, 2, 2, 0, 0}, {3, 2, 1, 2, 1, 0},  {1, 1, 1, 1, 0, 0},
                                {5, 3, 3, 1, 2, 1}, {2, 3, 3, 4, 0, 1}, {15, 15, 2, 3, 7, 7}};
  std::vector<PoolCase> cases;
  for (int64_t C : {1, 3, 8, 17, 40})
    for (const auto& [H, W] : {std::pair<int64_t, int64_t>{1, 1}, {2, 3}, {9, 7}, {12, 12}})
      for (const PoolWindow& window : windows) {
        const PoolCase pool{{C == 40 ? 5 : 2, C, H, W}, window};
        if (H + 2 * window.padding_h >= window.kernel_h && W + 2 * window.padding_w >= window.kernel_w)
          cases.push_back(pool);
      }
  return cases;
}

/// Calls f(output element, input element, position in the window) for every pair of a channel map.
template <class F>
void for_windows(const PoolCase& pool, const F& f) {
  const PoolWindow& w = pool.window;
  for (int64_t n = 0; n < pool.size.N; ++n)
    for (int64_t c = 0; c < pool.size.C; ++c)
      for (int64_t ho = 0; ho < pool.Ho(); ++ho)
        for (int64_t wo = 0; wo < pool.Wo(); ++wo)
          for (int64_t r = 0; r < w.kernel_h; ++r)
            for (int64_t s = 0; s < w.kernel_w; ++s) {
              const int64_t h = ho * w.stride_h - w.padding_h + r, v = wo * w.stride_w - w.padding_w + s;
              if (h >= 0 && h < pool.size.H && v >= 0 && v < pool.size.W)
                f(at(pool.out(), n, c, ho * pool.Wo() + wo), at(pool.size, n, c, h * pool.size.W + v),
                  r * w.kernel_w + s);
            }
}

TEST_P(SimdTest, MaxPoolIsExactWithTiesInfinitiesAndNaN) {
  uint64_t seed = 1011;
  for (const PoolCase& pool : pool_cases())
    for (const bool special : {false, true}) {
      SCOPED_TRACE(pool.describe() + fmt::format(" special={} seed={}", special, ++seed));
      Floats x = small_integers(seed, elements(pool.size));
      Rng rng(seed);
      if (special)
        for (float& v : x) {
          const uint64_t kind = rng.below(12);
          if (kind == 0) v = std::numeric_limits<float>::quiet_NaN();
          if (kind > 5) v = -std::numeric_limits<float>::infinity();
        }
      const size_t outputs = elements(pool.out());
      Floats best(outputs, -std::numeric_limits<float>::infinity());
      std::vector<int> winner(outputs, -1);
      for_windows(pool, [&](size_t o, size_t i, int64_t position) {
        if (winner[o] < 0) winner[o] = static_cast<int>(position);
        if (x[i] > best[o] || std::isnan(x[i])) {
          best[o] = x[i];
          winner[o] = static_cast<int>(position);
        }
      });
      const Floats xb = blocked(pool.size, x);
      for (int threads : {1, 2}) {
        Floats yb(blocked_elements(pool.out()), 7.0f), inference = yb;
        std::vector<uint8_t> index(yb.size(), 255);
        MaxPool args{.size = pool.size,
                     .window = pool.window,
                     .Ho = pool.Ho(),
                     .Wo = pool.Wo(),
                     .x = xb.data(),
                     .y = yb.data(),
                     .index = index.data(),
                     .threads = threads};
        kernels.max_pool(args);
        args.y = inference.data();
        args.index = nullptr;
        kernels.max_pool(args);
        EXPECT_EQ(std::memcmp(yb.data(), inference.data(), yb.size() * sizeof(float)), 0);
        const Floats y = plain(pool.out(), yb);
        const std::vector<uint8_t> positions = plain(pool.out(), index, /*padding_is_zero=*/false);
        size_t wrong = 0;
        for (size_t o = 0; o < outputs; ++o)
          wrong += positions[o] != winner[o] || (std::isnan(best[o]) ? !std::isnan(y[o]) : y[o] != best[o]);
        EXPECT_EQ(wrong, 0u);
      }
    }
}

TEST_P(SimdTest, MaxPoolBackwardSendsEachGradientToItsWinner) {
  uint64_t seed = 1211;
  for (const PoolCase& pool : pool_cases()) {
    SCOPED_TRACE(pool.describe() + fmt::format(" seed={}", ++seed));
    const Floats xb = blocked(pool.size, small_integers(seed, elements(pool.size)));
    const Floats dy = small_integers(seed + 1, elements(pool.out()));
    const Floats dyb = blocked(pool.out(), dy);
    Floats yb(dyb.size());
    std::vector<uint8_t> index(dyb.size());
    kernels.max_pool({.size = pool.size,
                      .window = pool.window,
                      .Ho = pool.Ho(),
                      .Wo = pool.Wo(),
                      .x = xb.data(),
                      .y = yb.data(),
                      .index = index.data()});
    const std::vector<uint8_t> winner = plain(pool.out(), index, /*padding_is_zero=*/false);
    Floats expected(elements(pool.size));
    for_windows(pool, [&](size_t o, size_t i, int64_t position) {
      if (winner[o] == position) expected[i] += dy[o];
    });
    for (int threads : {1, 2}) {
      Floats dxb(xb.size(), 7.0f);
      kernels.max_pool_backward({.size = pool.size,
                                 .window = pool.window,
                                 .Ho = pool.Ho(),
                                 .Wo = pool.Wo(),
                                 .dy = dyb.data(),
                                 .index = index.data(),
                                 .dx = dxb.data(),
                                 .threads = threads});
      EXPECT_EQ(plain(pool.size, dxb), expected);
    }
  }
}

TEST_P(SimdTest, AvgPoolAndItsGradientMatchDouble) {
  uint64_t seed = 1411;
  for (const PoolCase& pool : pool_cases())
    for (const bool count_padding : {false, true}) {
      SCOPED_TRACE(pool.describe() + fmt::format(" count_padding={} seed={}", count_padding, ++seed));
      const Floats x = noise(seed, elements(pool.size)), dy = noise(seed + 1, elements(pool.out()));
      Doubles y(dy.size()), y_bound(dy.size()), dx(x.size()), dx_bound(x.size()), count(dy.size());
      const double whole = static_cast<double>(pool.window.kernel_h * pool.window.kernel_w);
      for_windows(pool, [&](size_t o, size_t, int64_t) { count[o] += 1; });
      for (double& n : count) n = count_padding ? whole : n;
      const double chain = static_cast<double>(pool.window.kernel_h + pool.window.kernel_w);
      for_windows(pool, [&](size_t o, size_t i, int64_t) {
        y[o] += static_cast<double>(x[i]) / count[o];
        y_bound[o] += chain * kUnit * std::abs(static_cast<double>(x[i])) / count[o];
        dx[i] += static_cast<double>(dy[o]) / count[o];
        dx_bound[i] += (whole + 1) * kUnit * std::abs(static_cast<double>(dy[o])) / count[o];
      });
      const Floats xb = blocked(pool.size, x), dyb = blocked(pool.out(), dy);
      for (int threads : {1, 2}) {
        Floats yb(dyb.size(), 7.0f), dxb(xb.size(), 7.0f);
        AvgPool args{.size = pool.size,
                     .window = pool.window,
                     .Ho = pool.Ho(),
                     .Wo = pool.Wo(),
                     .x = xb.data(),
                     .y = yb.data(),
                     .count_padding = count_padding,
                     .threads = threads};
        kernels.avg_pool(args);
        args.x = dyb.data();
        args.y = dxb.data();
        kernels.avg_pool_backward(args);
        expect_within(plain(pool.out(), yb), y, y_bound, "y");
        expect_within(plain(pool.size, dxb), dx, dx_bound, "dx");
      }
    }
}

TEST_P(SimdTest, ScaledMapsAndTheirFactorsGradientMatchDouble) {
  uint64_t seed = 1511;
  for (const MapSize& s : odd_sizes())
    for (const bool per_image : {false, true}) {
      SCOPED_TRACE(describe(s) + fmt::format(" per_image={} seed={}", per_image, ++seed));
      const MapSize one{s.N, s.C, 1, 1};
      const size_t factors = per_image ? static_cast<size_t>(s.N) : elements(one);
      const Floats x = noise(seed, elements(s)), dy = noise(seed + 1, elements(s)), factor = noise(seed + 2, factors);
      const size_t shared = x.size() / factors;
      Doubles y(x.size()), y_bound(x.size()), ds(factors), ds_bound(factors);
      for (size_t i = 0; i < x.size(); ++i) {
        y[i] = static_cast<double>(x[i]) * static_cast<double>(factor[i / shared]);
        y_bound[i] = kUnit * std::abs(y[i]);
        ds[i / shared] += static_cast<double>(dy[i]) * static_cast<double>(x[i]);
        ds_bound[i / shared] += 2 * kChain * kUnit * std::abs(static_cast<double>(dy[i]) * static_cast<double>(x[i]));
      }
      const Floats xb = blocked(s, x), dyb = blocked(s, dy), sb = per_image ? factor : blocked(one, factor);
      for (int threads : {1, 2}) {
        Floats yb(xb.size(), 7.0f), dsb(sb.size(), 7.0f), in_place = xb;
        kernels.scale(
            {.size = s, .x = xb.data(), .s = sb.data(), .per_image = per_image, .y = yb.data(), .threads = threads});
        kernels.scale_backward({.size = s,
                                .dy = dyb.data(),
                                .x = xb.data(),
                                .per_image = per_image,
                                .ds = dsb.data(),
                                .threads = threads});
        kernels.scale({.size = s, .x = in_place.data(), .s = sb.data(), .per_image = per_image, .y = in_place.data()});
        expect_within(plain(s, yb), y, y_bound, "y");
        expect_within(per_image ? dsb : plain(one, dsb), ds, ds_bound, "ds");
        EXPECT_EQ(in_place, yb);
      }
    }
}

TEST_P(SimdTest, BlurPoolAndItsGradientMatchDouble) {
  uint64_t seed = 1561;
  const double taps[3] = {0.25, 0.5, 0.25};
  for (const MapSize& s : odd_sizes())
    for (const int64_t stride : {1, 2, 3}) {
      if (s.H < 2 || s.W < 2) continue;
      SCOPED_TRACE(describe(s) + fmt::format(" stride={} seed={}", stride, ++seed));
      const MapSize out{s.N, s.C, (s.H - 1) / stride + 1, (s.W - 1) / stride + 1};
      const Floats x = noise(seed, elements(s)), dy = noise(seed + 1, elements(out));
      Doubles y(dy.size()), y_bound(dy.size()), dx(x.size()), dx_bound(x.size());
      const auto mirrored = [](int64_t i, int64_t size) { return i < 0 ? -i : i < size ? i : 2 * (size - 1) - i; };
      for (int64_t map = 0; map < s.N * s.C; ++map)
        for (int64_t o = 0; o < out.H * out.W; ++o)
          for (int64_t t = 0; t < 9; ++t) {
            const int64_t h = mirrored(o / out.W * stride + t / 3 - 1, s.H),
                          w = mirrored(o % out.W * stride + t % 3 - 1, s.W);
            const auto to = static_cast<size_t>(map * out.H * out.W + o),
                       from = static_cast<size_t>((map * s.H + h) * s.W + w);
            const double weight = taps[t / 3] * taps[t % 3];
            y[to] += weight * static_cast<double>(x[from]);
            y_bound[to] += 5 * kUnit * weight * std::abs(static_cast<double>(x[from]));
            dx[from] += weight * static_cast<double>(dy[to]);
            dx_bound[from] += 16 * kUnit * weight * std::abs(static_cast<double>(dy[to]));
          }
      const Floats xb = blocked(s, x), dyb = blocked(out, dy);
      for (int threads : {1, 2}) {
        Floats yb(dyb.size(), 7.0f), dxb(xb.size(), 7.0f);
        BlurPool args{.size = s,
                      .stride_h = stride,
                      .stride_w = stride,
                      .Ho = out.H,
                      .Wo = out.W,
                      .x = xb.data(),
                      .y = yb.data(),
                      .threads = threads};
        kernels.blur_pool(args);
        args.x = dyb.data();
        args.y = dxb.data();
        kernels.blur_pool_backward(args);
        expect_within(plain(out, yb), y, y_bound, "y");
        expect_within(plain(s, dxb), dx, dx_bound, "dx");
      }
    }
}

TEST_P(SimdTest, GlobalAvgPoolAndItsGradientMatchDouble) {
  uint64_t seed = 1611;
  for (const MapSize& s : odd_sizes()) {
    SCOPED_TRACE(describe(s) + fmt::format(" seed={}", ++seed));
    const MapSize one{s.N, s.C, 1, 1};
    const Floats x = noise(seed, elements(s), 0.3), dy = noise(seed + 1, elements(one));
    const size_t pixels = static_cast<size_t>(s.H * s.W);
    Doubles y(dy.size()), y_bound(dy.size()), dx(x.size()), dx_bound(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      y[i / pixels] += static_cast<double>(x[i]) / static_cast<double>(pixels);
      y_bound[i / pixels] += kChain * kUnit * std::abs(static_cast<double>(x[i])) / static_cast<double>(pixels);
      dx[i] = static_cast<double>(dy[i / pixels]) / static_cast<double>(pixels);
      dx_bound[i] = kUnit * std::abs(dx[i]);
    }
    const Floats xb = blocked(s, x), dyb = blocked(one, dy);
    for (int threads : {1, 2}) {
      Floats yb(dyb.size(), 7.0f), dxb(xb.size(), 7.0f);
      kernels.global_avg_pool({.size = s, .x = xb.data(), .y = yb.data(), .threads = threads});
      kernels.global_avg_pool_backward({.size = s, .x = dyb.data(), .y = dxb.data(), .threads = threads});
      expect_within(plain(one, yb), y, y_bound, "y");
      expect_within(plain(s, dxb), dx, dx_bound, "dx");
    }
  }
}

TEST_P(SimdTest, SoftmaxCrossEntropyAndItsGradientMatchDouble) {
  uint64_t seed = 1811;
  for (int64_t classes : {1, 2, 10, 1000})
    for (int64_t rows : {1, 5, 300})
      for (const float smoothing : {0.0f, 0.1f})
        for (const double size : {1.0, 300.0}) {
          SCOPED_TRACE(
              fmt::format("rows={} classes={} smoothing={} size={} seed={}", rows, classes, smoothing, size, ++seed));
          const size_t count = static_cast<size_t>(rows * classes);
          const Floats logits = noise(seed, count, 0, size);
          Rng rng(seed);
          std::vector<int32_t> labels(static_cast<size_t>(rows));
          for (int32_t& label : labels) label = static_cast<int32_t>(rng.below(static_cast<uint64_t>(classes)));
          const float dloss = 1.5f;
          double loss = 0, hits = 0;
          Doubles p(count), p_bound(count), d(count), d_bound(count);
          for (size_t r = 0; r < labels.size(); ++r) {
            const float* z = logits.data() + r * static_cast<size_t>(classes);
            const size_t top = static_cast<size_t>(std::max_element(z, z + classes) - z);
            const size_t label = static_cast<size_t>(labels[r]);
            hits += top == label;
            double sum = 0;
            for (int64_t k = 0; k < classes; ++k)
              sum += std::exp(static_cast<double>(z[k]) - static_cast<double>(z[top]));
            for (size_t k = 0; k < static_cast<size_t>(classes); ++k) {
              const double log_p = static_cast<double>(z[k]) - static_cast<double>(z[top]) - std::log(sum);
              const double even = static_cast<double>(smoothing) / static_cast<double>(classes);
              const double target = (k == label ? 1 - static_cast<double>(smoothing) : 0) + even;
              const size_t i = r * static_cast<size_t>(classes) + k;
              loss -= target * log_p / static_cast<double>(rows);
              p[i] = std::exp(log_p);
              p_bound[i] = 1.01 * kUnit * p[i] + 0x1p-149;
              d[i] = (p[i] - target) * static_cast<double>(dloss) / static_cast<double>(rows);
              d_bound[i] =
                  3 * kUnit * (p[i] + target) * static_cast<double>(dloss) / static_cast<double>(rows) + 0x1p-149;
            }
          }
          for (int threads : {1, 2}) {
            Floats probabilities = logits, dlogits(count);  // in place, which is allowed
            float loss_out = -1, correct = -1;
            Scratch scratch(softmax_cross_entropy_scratch_bytes(rows));
            kernels.softmax_cross_entropy({.rows = rows,
                                           .classes = classes,
                                           .logits = probabilities.data(),
                                           .labels = labels.data(),
                                           .label_smoothing = smoothing,
                                           .loss = &loss_out,
                                           .probabilities = probabilities.data(),
                                           .correct = &correct,
                                           .scratch = scratch.data(),
                                           .threads = threads});
            kernels.softmax_cross_entropy_backward({.rows = rows,
                                                    .classes = classes,
                                                    .probabilities = probabilities.data(),
                                                    .labels = labels.data(),
                                                    .dloss = &dloss,
                                                    .label_smoothing = smoothing,
                                                    .dlogits = dlogits.data(),
                                                    .threads = threads});
            EXPECT_NEAR(static_cast<double>(loss_out), loss, 1.01 * kUnit * std::abs(loss) + 1e-12);
            EXPECT_EQ(static_cast<double>(correct), hits);
            expect_within(probabilities, p, p_bound, "probabilities");
            expect_within(dlogits, d, d_bound, "dlogits");
          }
        }
}

TEST_P(SimdTest, SoftmaxCrossEntropyOfBadLogitsIsNotFinite) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const Floats logits = {0.0f, 1.0f, bad, 2.0f};
    const int32_t label = 1;
    Floats probabilities(4);
    float loss = 0, correct = 0;
    Scratch scratch(softmax_cross_entropy_scratch_bytes(1));
    kernels.softmax_cross_entropy({.rows = 1,
                                   .classes = 4,
                                   .logits = logits.data(),
                                   .labels = &label,
                                   .loss = &loss,
                                   .probabilities = probabilities.data(),
                                   .correct = &correct,
                                   .scratch = scratch.data()});
    EXPECT_FALSE(std::isfinite(loss));
  }
}

TEST_P(SimdTest, SgdUpdateFollowsPyTorchOverSteps) {
  for (int64_t n : {1, 7, 8, 1003, 100001})
    for (const float momentum : {0.0f, 0.9f})
      for (const bool nesterov : {false, true}) {
        if (nesterov && momentum == 0.0f) continue;
        for (int threads : {1, 2}) {
          SCOPED_TRACE(
              fmt::format("n={} momentum={} nesterov={} threads={} seed={}", n, momentum, nesterov, threads, n));
          const size_t count = static_cast<size_t>(n);
          Floats p = noise(static_cast<uint64_t>(n), count), buffer(count);
          Doubles want(p.begin(), p.end()), m(count), bound(count, 0), m_bound(count);
          const float lr = 0.1f, weight_decay = 0.01f, loss = 2.0f;
          for (int step = 0; step < 3; ++step) {
            const Floats g = noise(static_cast<uint64_t>(n + step), count);
            kernels.sgd_update({.p = p.data(),
                                .g = g.data(),
                                .buffer = momentum != 0.0f ? buffer.data() : nullptr,
                                .guard = &loss,
                                .n = n,
                                .lr = lr,
                                .momentum = momentum,
                                .weight_decay = weight_decay,
                                .nesterov = nesterov,
                                .threads = threads});
            for (size_t i = 0; i < count; ++i) {
              const double g_i = static_cast<double>(g[i]) + static_cast<double>(weight_decay) * want[i];
              m[i] = static_cast<double>(momentum) * m[i] + g_i;
              want[i] -= static_cast<double>(lr) * (nesterov ? g_i + static_cast<double>(momentum) * m[i] : m[i]);
              // Values stay below 10; three steps of at most eight roundings each.
              bound[i] = 24 * kUnit * 10;
              m_bound[i] = bound[i];
            }
          }
          expect_within(p, want, bound, "p");
          if (momentum != 0.0f) expect_within(buffer, m, m_bound, "buffer");
        }
      }
}

TEST_P(SimdTest, UpdatesAreNotAppliedWhenTheLossIsNotFinite) {
  const Floats g = noise(3, 20), original = noise(4, 20);
  for (const float loss : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                           -std::numeric_limits<float>::infinity()}) {
    Floats p = original, buffer = original, running = original;
    kernels.sgd_update(
        {.p = p.data(), .g = g.data(), .buffer = buffer.data(), .guard = &loss, .n = 20, .lr = 1, .momentum = 0.5f});
    kernels.running_average({.running = running.data(), .batch = g.data(), .guard = &loss, .n = 20});
    EXPECT_EQ(p, original);
    EXPECT_EQ(buffer, original);
    EXPECT_EQ(running, original);
  }
  Floats running = original;
  kernels.running_average({.running = running.data(), .batch = g.data(), .n = 20, .momentum = 0.25f, .factor = 2});
  for (size_t i = 0; i < 20; ++i)
    EXPECT_NEAR(running[i], 0.75 * static_cast<double>(original[i]) + 0.5 * static_cast<double>(g[i]), 1e-6);
  EXPECT_NE(running, original);
}

TEST_P(SimdTest, ShiftedChannelsAreCopiedExactlyAndSurroundedByZeros) {
  uint64_t seed = 1811;
  for (const MapSize& s : odd_sizes()) {
    if (is_large(s)) continue;
    for (const auto& [before, after] : {std::pair<int64_t, int64_t>{0, 0},
                                        {B, B},
                                        {2 * B, 0},
                                        {B / 2, B / 2},
                                        {1, 2},
                                        {3, B + 5},
                                        {B + 5, 3},
                                        {B - 1, 2 * B - 1}}) {
      SCOPED_TRACE(describe(s) + fmt::format(" before={} after={} seed={}", before, after, ++seed));
      const MapSize wide{s.N, s.C + before + after, s.H, s.W};
      const Floats x = noise(seed, elements(s)), w = noise(seed + 1000, elements(wide));
      Floats padded(elements(wide)), sliced(elements(s));
      for (int64_t n = 0; n < s.N; ++n)
        for (int64_t c = 0; c < s.C; ++c)
          for (int64_t p = 0; p < s.H * s.W; ++p) {
            padded[at(wide, n, c + before, p)] = x[at(s, n, c, p)];
            sliced[at(s, n, c, p)] = w[at(wide, n, c + before, p)];
          }
      const Floats xb = blocked(s, x), wb = blocked(wide, w);
      for (int threads : {1, 2}) {
        Floats pad(blocked_elements(wide), 7.0f), slice(blocked_elements(s), 7.0f);
        kernels.shift_channels(
            {.size = s, .channels = wide.C, .offset = -before, .x = xb.data(), .y = pad.data(), .threads = threads});
        kernels.shift_channels(
            {.size = wide, .channels = s.C, .offset = before, .x = wb.data(), .y = slice.data(), .threads = threads});
        expect_same_bytes(pad, blocked(wide, padded), "padded");
        expect_same_bytes(slice, blocked(s, sliced), "sliced");
      }
    }
  }
}

TEST_P(SimdTest, NormsAreExactOnWholeNumbersAndCountNoPadding) {
  const auto norm_of = [](const Floats& x) {
    double sum = 0;
    for (float v : x) sum += static_cast<double>(v) * static_cast<double>(v);
    return static_cast<float>(std::sqrt(sum));
  };
  const auto expect_norm = [&](Storage storage, const MapSize& size, const Floats& x, float expected) {
    for (int threads : {1, 2}) {
      float norm = -1;
      Scratch scratch(l2_norm_scratch_bytes(storage, size));
      kernels.l2_norm({.storage = storage,
                       .size = size,
                       .x = x.data(),
                       .norm = &norm,
                       .scratch = scratch.data(),
                       .threads = threads});
      EXPECT_EQ(norm, expected) << "storage " << static_cast<int>(storage);
    }
  };
  /// `stored` with something large wherever `ones`, stored alike, has padding.
  const auto poisoned = [](Floats stored, const Floats& ones) {
    for (size_t i = 0; i < stored.size(); ++i) stored[i] = ones[i] == 0.0f ? 1e30f : stored[i];
    return stored;
  };
  uint64_t seed = 1911;
  for (const MapSize& s : odd_sizes()) {
    SCOPED_TRACE(describe(s) + fmt::format(" seed={}", ++seed));
    const Floats x = small_integers(seed, elements(s)), ones(elements(s), 1.0f);
    const float expected = norm_of(x);
    expect_norm(Storage::plain, s, x, expected);
    expect_norm(Storage::maps, s, poisoned(blocked(s, x), blocked(s, ones)), expected);
    if (is_large(s)) continue;
    // The same as weights of N outputs and C inputs.
    const size_t stored = static_cast<size_t>(blocks(s.N) * blocks(s.C) * s.H * s.W * B * B);
    Floats filters(stored), filter_ones(stored);
    kernels.weights_to_blocked({.O = s.N, .I = s.C, .H = s.H, .W = s.W, .from = x.data(), .to = filters.data()});
    kernels.weights_to_blocked({.O = s.N, .I = s.C, .H = s.H, .W = s.W, .from = ones.data(), .to = filter_ones.data()});
    expect_norm(Storage::filters, s, poisoned(filters, filter_ones), expected);
  }
  // Squares that f32 cannot hold.
  for (const float scale : {0x1p-100f, 0x1p100f})
    expect_norm(Storage::plain, {1, 1, 1, 2}, {3 * scale, 4 * scale}, 5 * scale);
}

TEST_P(SimdTest, LayoutsConvertExactlyBothWays) {
  uint64_t seed = 2011;
  for (const MapSize& s : odd_sizes()) {
    SCOPED_TRACE(describe(s) + fmt::format(" seed={}", ++seed));
    const Floats x = noise(seed, elements(s)), xb = blocked(s, x);
    for (int threads : {1, 2}) {
      Floats to(xb.size(), 7.0f), back(x.size(), 7.0f);
      kernels.to_blocked({.size = s, .from = x.data(), .to = to.data(), .threads = threads});
      kernels.to_plain({.size = s, .from = xb.data(), .to = back.data(), .threads = threads});
      EXPECT_TRUE(to == xb);
      EXPECT_TRUE(back == x);
    }
  }
}

TEST_P(SimdTest, WeightLayoutsConvertExactlyBothWays) {
  for (int64_t O : {1, 8, 17, 40})
    for (int64_t I : {1, 3, 16, 33})
      for (const auto& [H, W] : {std::pair<int64_t, int64_t>{1, 1}, {3, 3}, {2, 5}}) {
        SCOPED_TRACE(fmt::format("O={} I={} {}x{} seed={}", O, I, H, W, O));
        const int64_t in_blocks = blocks(I);
        const Floats w = noise(static_cast<uint64_t>(O), static_cast<size_t>(O * I * H * W));
        Floats expected(static_cast<size_t>(blocks(O) * in_blocks * H * W * B * B));
        for (int64_t o = 0; o < O; ++o)
          for (int64_t i = 0; i < I; ++i)
            for (int64_t p = 0; p < H * W; ++p)
              expected[static_cast<size_t>((((o / B * in_blocks + i / B) * H * W + p) * B + i % B) * B + o % B)] =
                  w[static_cast<size_t>((o * I + i) * H * W + p)];
        for (int threads : {1, 2}) {
          Floats to(expected.size(), 7.0f), back(w.size(), 7.0f);
          kernels.weights_to_blocked(
              {.O = O, .I = I, .H = H, .W = W, .from = w.data(), .to = to.data(), .threads = threads});
          kernels.weights_to_plain(
              {.O = O, .I = I, .H = H, .W = W, .from = expected.data(), .to = back.data(), .threads = threads});
          EXPECT_EQ(to, expected);
          EXPECT_EQ(back, w);
        }
      }
}

std::vector<Table> runnable_tables() {
  std::vector<Table> tables;
  for (Isa isa : {Isa::generic, Isa::avx2, Isa::avx512})
    if (isa <= detected_isa())
      for (int64_t block : {8, 16}) tables.push_back({isa, block});
  return tables;
}

INSTANTIATE_TEST_SUITE_P(Kernels, SimdTest, testing::ValuesIn(runnable_tables()), [](const auto& table) {
  return fmt::format("{}_block{}", isa_name(table.param.isa), table.param.block);
});

}  // namespace
}  // namespace resnet::simd
