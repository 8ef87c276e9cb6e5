#include "backends/cpu/conv2d_half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "backends/blocked_buffer.h"
#include "backends/cpu/simd/isa_kernels.h"
#include "runtime/backends.h"

// The 16-wide kernels, emulated on whatever this test is compiled for, so that the layouts that AVX512-FP16 runs with
// are checked on every CPU.
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif
#define RESNET_ISA lowered_half
#include "backends/cpu/simd/conv2d_half_impl.h"

namespace resnet {
namespace {

using namespace testing;

__extension__ typedef __float128 Exact;  // sums of a product of halves and a half are exact

/// The half nearest to `value`, ties to even, as a float: from the definition of binary16.
float nearest_half(Exact value) {
  const Exact size = value < 0 ? -value : value;
  if (size >= Exact{65520}) return value < 0 ? -INFINITY : INFINITY;
  Exact quantum = Exact{0x1p-24};
  while (size >= quantum * 2048) quantum *= 2;
  const Exact steps = size / quantum;
  auto whole = static_cast<int64_t>(steps);
  const Exact rest = steps - static_cast<Exact>(whole);
  if (rest > Exact{0.5} || (rest == Exact{0.5} && whole % 2 == 1)) ++whole;
  const auto rounded = static_cast<float>(static_cast<Exact>(whole) * quantum);
  return value < 0 ? -rounded : rounded;
}

/// A half of any magnitude: uniform bits, without infinities and NaNs.
float random_half(std::mt19937& random) {
  const auto exponent = static_cast<int>(random() % 31);
  const auto fraction = static_cast<float>(random() % 1024);
  const float size = exponent == 0 ? fraction * 0x1p-24f : (1024 + fraction) * std::ldexp(1.0f, exponent - 25);
  return random() % 2 ? size : -size;
}

namespace lowered = simd::lowered_half;
using Lanes = lowered::Vec<8>;

TEST(HalfArithmetic, AMultiplyAddIsRoundedOnceAsTheProcessorWould) {
  const unsigned seed = 5;
  std::mt19937 random(seed);
  int double_roundings = 0;
  for (int trial = 0; trial < 40000; ++trial) {
    float a[8], b[8], c[8], got[8];
    for (int i = 0; i < 8; ++i) {
      a[i] = random_half(random), b[i] = random_half(random), c[i] = random_half(random);
      // Every other sum is of like sizes, where a second rounding is most often seen.
      if (i % 2) c[i] = nearest_half(Exact{a[i] * b[i]} * static_cast<int>(random() % 4));
      if (std::isinf(c[i])) c[i] = 1;
    }
    lowered::store<8>(got, lowered::fma_in_half<8>(lowered::load<8>(a), lowered::load<8>(b), lowered::load<8>(c)));
    for (int i = 0; i < 8; ++i) {
      const float want = nearest_half(Exact{a[i]} * Exact{b[i]} + Exact{c[i]});
      ASSERT_EQ(got[i], want) << a[i] << " * " << b[i] << " + " << c[i] << ", seed " << seed;
      double_roundings += nearest_half(Exact{std::fma(a[i], b[i], c[i])}) != want;
    }
  }
  EXPECT_GT(double_roundings, 0) << "no case in which the care taken matters";
}

TEST(HalfArithmetic, EveryHalfIsReadAndWrittenExactlyAndEveryFloatRoundsToTheNearest) {
  for (uint32_t first = 0; first < 65536; first += 8) {
    uint16_t halves[8], back[8];
    float values[8];
    for (uint32_t i = 0; i < 8; ++i) halves[i] = static_cast<uint16_t>(first + i);
    lowered::Bits<8> bits = {};
    for (int i = 0; i < 8; ++i) bits[i] = halves[i];
    lowered::store<8>(values, lowered::widen<8>(bits));
    lowered::store_half<8>(back, lowered::load<8>(values));
    for (int i = 0; i < 8; ++i) {
      const uint32_t exponent = halves[i] >> 10 & 31, fraction = halves[i] & 1023;
      const float size = exponent == 31  ? (fraction ? NAN : INFINITY)
                         : exponent == 0 ? static_cast<float>(fraction) * 0x1p-24f
                                         : std::ldexp(1024.0f + static_cast<float>(fraction), int(exponent) - 25);
      const float want = halves[i] >> 15 ? -size : size;
      if (std::isnan(want)) {
        EXPECT_TRUE(std::isnan(values[i])) << halves[i];
        EXPECT_GT(back[i] & 0x7fff, 0x7c00) << halves[i];
      } else {
        EXPECT_EQ(values[i], want) << halves[i];
        EXPECT_EQ(back[i], halves[i]);
      }
    }
  }
  std::mt19937 random(6);
  for (int trial = 0; trial < 20000; ++trial) {
    float values[8], rounded[8];
    for (float& value : values) {
      value = std::ldexp(static_cast<float>(random()) - 2147483648.0f, static_cast<int>(random() % 50) - 62);
    }
    lowered::store<8>(rounded, lowered::round_to_half<8>(lowered::load<8>(values)));
    for (int i = 0; i < 8; ++i) ASSERT_EQ(rounded[i], nearest_half(Exact{values[i]})) << values[i];
  }
}

/// A problem with random data and its exact (double) answer, without bias, residual and ReLU.
struct Example {
  HalfConvProblem p;
  std::vector<float> x, w, bias, residual;
  std::vector<double> y;

  Example(const HalfConvProblem& problem, std::mt19937& random, float x_size = 1, float w_size = 1) : p(problem) {
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& v, int64_t size, float scale) {
      v.resize(static_cast<size_t>(size));
      for (float& value : v) value = scale * normal(random);
    };
    fill(x, p.n * p.c * p.h * p.w, x_size);
    fill(w, p.k * p.c * p.r * p.s, w_size);
    fill(bias, p.k, x_size * w_size);
    fill(residual, p.n * p.k * p.ho * p.wo, x_size * w_size);
    solve();
  }
  void solve() {
    y.assign(residual.size(), 0);
    size_t at = 0;
    for (int64_t n = 0; n < p.n; ++n)
      for (int64_t k = 0; k < p.k; ++k)
        for (int64_t oy = 0; oy < p.ho; ++oy)
          for (int64_t ox = 0; ox < p.wo; ++ox, ++at)
            for (int64_t c = 0; c < p.c; ++c)
              for (int64_t r = 0; r < p.r; ++r)
                for (int64_t s = 0; s < p.s; ++s) {
                  const int64_t iy = oy * p.stride_h + r - p.pad_h, ix = ox * p.stride_w + s - p.pad_w;
                  if (iy < 0 || iy >= p.h || ix < 0 || ix >= p.w) continue;
                  y[at] += double{x[static_cast<size_t>(((n * p.c + c) * p.h + iy) * p.w + ix)]} *
                           w[static_cast<size_t>(((k * p.c + c) * p.r + r) * p.s + s)];
                }
  }
};

struct Results {
  Buffer plain, full;  ///< y alone; and with bias, residual and ReLU
};

Results run(const HalfConvKernels& kernels, const Example& e, const HalfConvProblem& p) {
  const int b = kernels.block;
  Buffer x(static_cast<size_t>(p.n * blocks(p.c, b) * b * p.h * p.w));
  Buffer residual(static_cast<size_t>(p.n * blocks(p.k, b) * b * p.ho * p.wo));
  Buffer w(static_cast<size_t>(blocks(p.k, b) * blocks(p.c, b) * b * b * p.r * p.s)), bias(e.bias.size());
  std::copy(e.bias.begin(), e.bias.end(), bias.data());
  size_t at = 0;
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t c = 0; c < p.c; ++c)
      for (int64_t y = 0; y < p.h; ++y)
        for (int64_t ix = 0; ix < p.w; ++ix) x[map_at(p.c, p.h, p.w, b, n, c, y, ix)] = e.x[at++];
  at = 0;
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t k = 0; k < p.k; ++k)
      for (int64_t y = 0; y < p.ho; ++y)
        for (int64_t ix = 0; ix < p.wo; ++ix) residual[map_at(p.k, p.ho, p.wo, b, n, k, y, ix)] = e.residual[at++];
  at = 0;
  for (int64_t k = 0; k < p.k; ++k)
    for (int64_t c = 0; c < p.c; ++c)
      for (int64_t tap = 0; tap < p.r * p.s; ++tap)
        w[(((k / b * blocks(p.c, b) + c / b) * p.r * p.s + tap) * b + c % b) * b + k % b] = e.w[at++];
  const size_t packed_bytes = kernels.packed_weight_bytes(p), scratch_bytes = kernels.scratch_bytes(p);
  EXPECT_EQ(packed_bytes % sizeof(float), 0u);
  EXPECT_EQ(scratch_bytes % sizeof(float), 0u);
  Buffer packed(packed_bytes / sizeof(float), NAN), scratch(scratch_bytes / sizeof(float), NAN);
  kernels.pack_weights(p, w.data(), packed.data());
  EXPECT_TRUE(packed.guards_intact());
  Results results{Buffer(residual.size(), NAN), Buffer(residual.size(), NAN)};
  HalfConvForward a{.x = x.data(), .packed = packed.data(), .y = results.plain.data(), .scratch = scratch.data()};
  kernels.forward(p, a);
  // The residual lies where the result goes, as the planner may put it.
  std::copy(residual.data(), residual.data() + residual.size(), results.full.data());
  a.y = results.full.data(), a.bias = bias.data(), a.residual = results.full.data(), a.relu = true;
  kernels.forward(p, a);
  EXPECT_TRUE(scratch.guards_intact() && results.plain.guards_intact() && results.full.guards_intact());
  return results;
}

/// Root mean square error of the plain result relative to its own; checks padding and the epilogue too.
double error_of(const HalfConvKernels& kernels, const Example& e, const Results& r) {
  const HalfConvProblem& p = e.p;
  const int b = kernels.block;
  double error = 0, size = 0;
  size_t at = 0;
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t k = 0; k < blocks(p.k, b) * b; ++k)
      for (int64_t y = 0; y < p.ho; ++y)
        for (int64_t x = 0; x < p.wo; ++x) {
          const float value = r.plain[map_at(p.k, p.ho, p.wo, b, n, k, y, x)];
          if (k >= p.k) {
            EXPECT_EQ(value, 0.f) << "padded channel " << k;
            continue;
          }
          const float full = r.full[map_at(p.k, p.ho, p.wo, b, n, k, y, x)];
          const double sum = double{value} + e.bias[static_cast<size_t>(k)] + e.residual[at];
          EXPECT_NEAR(full, sum > 0 ? sum : 0, 1e-5 * (std::abs(value) + std::abs(sum) + std::abs(e.residual[at])));
          error += (value - e.y[at]) * (value - e.y[at]);
          size += e.y[at] * e.y[at];
          ++at;
        }
  return error == 0 ? 0 : std::sqrt(error / size);  // a window may lie in the padding throughout
}

struct Named {
  std::string name;
  const HalfConvKernels* kernels;
};
std::vector<Named> runnable_kernels() {
  std::vector<Named> all;
  for (const Isa isa : {Isa::generic, Isa::avx2, Isa::avx512}) {
    if (isa <= detected_isa()) all.push_back({isa_name(isa), &simd::isa_kernels(isa).half_convolution});
  }
  all.push_back({"16 wide, lowered", &lowered::HalfConvByTile<16>::kernels});
  if (const HalfConvKernels* native = simd::native_half_convolution(detected_isa())) all.push_back({"native", native});
  return all;
}

std::string text(const HalfConvProblem& p) {
  return fmt::format("{}x{}x{}x{} * {}x{}x{}x{} stride {} {} pad {} {} tile {} threads {}", p.n, p.c, p.h, p.w, p.k,
                     p.c, p.r, p.s, p.stride_h, p.stride_w, p.pad_h, p.pad_w, p.tile, p.threads);
}

HalfConvProblem with_output(HalfConvProblem p) {
  p.ho = (p.h + 2 * p.pad_h - p.r) / p.stride_h + 1;
  p.wo = (p.w + 2 * p.pad_w - p.s) / p.stride_w + 1;
  return p;
}

/// One and a half times what docs/decisions/0016-half-precision.md documents, by tile.
double error_bound(int tile) { return 1.5 * (tile == 0 ? 1.2e-3 : tile == 2 ? 2.1e-3 : tile == 3 ? 3.3e-3 : 6.3e-3); }

TEST(HalfConvolution, MatchesDoubleWithinTheDocumentedErrorOnRandomShapes) {
  const unsigned seed = 20251125;
  std::mt19937 random(seed);
  const auto pick = [&](std::initializer_list<int> of) {
    return *(of.begin() + std::uniform_int_distribution<size_t>(0, of.size() - 1)(random));
  };
  int checked = 0;
  double worst[5] = {};
  for (int trial = 0; trial < 60; ++trial) {
    HalfConvProblem p;
    p.n = pick({1, 1, 2, 3, 9});
    p.c = pick({1, 3, 8, 16, 17, 33, 70});
    p.k = pick({1, 3, 8, 16, 17, 33, 40});
    p.h = pick({1, 2, 3, 4, 5, 7, 8, 11, 13});
    p.w = pick({1, 2, 3, 4, 6, 7, 9, 12, 17});
    p.tile = trial % 3 ? 0 : pick({2, 3, 4});
    p.r = p.s = 3;
    p.pad_h = p.pad_w = pick({0, 1});
    if (p.tile == 0) {
      p.r = pick({1, 1, 3, 5});
      p.s = pick({1, 3, 7});
      p.stride_h = pick({1, 2, 3}), p.stride_w = pick({1, 2});
      p.pad_h = pick({0, 1, 2, 3}), p.pad_w = pick({0, 1, 3});
    }
    p.threads = pick({1, 2, 3});
    if (p.h + 2 * p.pad_h < p.r || p.w + 2 * p.pad_w < p.s) continue;
    p = with_output(p);
    const Example e(p, random);
    for (const Named& isa : runnable_kernels()) {
      SCOPED_TRACE(isa.name + ": " + text(p) + ", seed " + std::to_string(seed) + " trial " + std::to_string(trial));
      const double error = error_of(*isa.kernels, e, run(*isa.kernels, e, p));
      // Few numbers may lie on either side of the mean.
      EXPECT_LE(error, error_bound(p.tile) * (e.y.size() * static_cast<size_t>(p.c) < 2000 ? 2 : 1));
      worst[p.tile] = std::max(worst[p.tile], error);
      ++checked;
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(checked, 60);
  for (const int tile : {0, 2, 3, 4})
    RecordProperty("worst_error_tile_" + std::to_string(tile), std::to_string(worst[tile]));
}

TEST(HalfConvolution, MapsOfOneTo57PixelsInBatchesOfOneToNineStayWithinTheErrorBound) {
  const unsigned seed = 57;
  std::mt19937 random(seed);
  const std::vector<int> sides = {1, 2, 3, 5, 7, 14, 28, 29, 56, 57};
  const std::vector<int> channels = {5, 17, 3, 23, 9};
  const std::vector<int> kernels = {1, 3, 5, 7};
  std::map<int, int> checked;  // by tile
  int trial = 0;
  for (size_t n = 1; n <= 9; ++n) {
    for (size_t i = 0; i < sides.size(); ++i, ++trial) {
      const auto turn = static_cast<size_t>(trial);
      HalfConvProblem p;
      p.n = static_cast<int64_t>(n);
      p.h = sides[i];
      p.w = sides[(i + n - 1) % sides.size()];  // squares with one image
      p.c = channels[turn % channels.size()];
      p.k = channels[(2 * i + n) % channels.size()];
      p.tile = trial % 2 ? 2 + trial / 2 % 3 : 0;
      p.r = p.s = p.tile ? 3 : kernels[turn / 2 % kernels.size()];
      p.pad_h = p.pad_w = p.tile ? trial / 6 % 2 : trial / 3 % 4;
      if (p.tile == 0) p.stride_h = p.stride_w = 1 + trial / 8 % 2;
      p.threads = 1 + trial / 2 % 2;
      if (p.h + 2 * p.pad_h < p.r || p.w + 2 * p.pad_w < p.s) continue;
      p = with_output(p);
      const Example e(p, random);
      for (const Named& isa : runnable_kernels()) {
        if (isa.name == "generic") continue;  // the same source, too slow here
        SCOPED_TRACE(isa.name + ": " + text(p) + ", seed " + std::to_string(seed));
        // Few numbers may lie on either side of the mean.
        EXPECT_LE(error_of(*isa.kernels, e, run(*isa.kernels, e, p)), error_bound(p.tile) * (e.y.size() < 400 ? 2 : 1));
        if (HasFailure()) return;
      }
      ++checked[p.tile];
    }
  }
  for (const int tile : {0, 2, 3, 4}) EXPECT_GT(checked[tile], 8) << "tile " << tile;
}

// Several blocks of items, several flushes, several panels, the team of threads.
TEST(HalfConvolution, LargeShapesTakeEveryPathAndStayWithinTheErrorBound) {
  const unsigned seed = 7;
  std::mt19937 random(seed);
  HalfConvProblem problems[8];
  problems[0] = {.n = 2, .c = 300, .k = 72, .h = 14, .w = 13, .tile = 0, .threads = 2};
  problems[1] = {.n = 40, .c = 24, .k = 40, .h = 28, .w = 9, .tile = 0, .threads = 2};
  problems[2] = {.n = 3,
                 .c = 64,
                 .k = 48,
                 .h = 15,
                 .w = 14,
                 .r = 3,
                 .s = 3,
                 .stride_h = 2,
                 .stride_w = 2,
                 .pad_h = 1,
                 .pad_w = 1,
                 .threads = 2};
  problems[3] = {
      .n = 1, .c = 520, .k = 136, .h = 7, .w = 7, .r = 1, .s = 1, .stride_h = 2, .stride_w = 2, .threads = 3};
  problems[4] = {
      .n = 3, .c = 40, .k = 24, .h = 23, .w = 57, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1, .tile = 4, .threads = 2};
  problems[5] = {
      .n = 2, .c = 264, .k = 72, .h = 8, .w = 9, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1, .tile = 2, .threads = 2};
  problems[6] = {
      .n = 9, .c = 200, .k = 200, .h = 6, .w = 6, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1, .tile = 3, .threads = 2};
  problems[7] = {.n = 60, .c = 16, .k = 24, .h = 13, .w = 13, .r = 3, .s = 3, .tile = 4, .threads = 3};
  for (const HalfConvProblem& problem : problems) {
    const HalfConvProblem p = with_output(problem);
    const Example e(p, random);
    for (const Named& isa : runnable_kernels()) {
      if (isa.name == "generic") continue;  // the same source, too slow here
      SCOPED_TRACE(isa.name + ": " + text(p) + ", seed " + std::to_string(seed));
      EXPECT_LE(error_of(*isa.kernels, e, run(*isa.kernels, e, p)), error_bound(p.tile));
      if (HasFailure()) return;
    }
  }
}

/// Sizes far from 1 lose no digits, and no sum overflows, not even of inputs that all add up.
TEST(HalfConvolution, LargeAndSmallActivationsAndWeightsKeepTheirDigits) {
  std::mt19937 random(9);
  for (const int tile : {0, 2, 3, 4}) {
    HalfConvProblem p{.n = 2, .c = 136, .k = 16, .h = 8, .w = 8, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1, .tile = tile};
    p = with_output(p);
    for (const auto& [x_size, w_size] :
         {std::pair{1e6f, 1.f}, {3e4f, 100.f}, {1e-7f, 1.f}, {1.f, 1e-8f}, {1e12f, 1e-9f}}) {
      const Example e(p, random, x_size, w_size);
      for (const Named& isa : runnable_kernels()) {
        SCOPED_TRACE(isa.name + ": " + text(p) + fmt::format(", sizes {} {}", x_size, w_size));
        EXPECT_LE(error_of(*isa.kernels, e, run(*isa.kernels, e, p)), error_bound(tile));
      }
    }
    Example e(p, random);
    for (float& value : e.x) value = random() % 2 ? 60000.f : 59000.f;
    for (float& value : e.w) value = random() % 2 ? 7.f : 6.9f;
    e.solve();
    for (const Named& isa : runnable_kernels()) {
      SCOPED_TRACE(isa.name + ": " + text(p) + ", all of one sign");
      // A growing sum's rounding errors are larger than those of one that stays near zero.
      EXPECT_LE(error_of(*isa.kernels, e, run(*isa.kernels, e, p)), 0.02);
    }
  }
}

TEST(HalfConvolution, ImagesDoNotDisturbEachOtherAndNansAreSeen) {
  std::mt19937 random(13);
  for (const int tile : {0, 4}) {
    HalfConvProblem p{.n = 3, .c = 16, .k = 16, .h = 12, .w = 12, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1, .tile = tile};
    p = with_output(p);
    Example e(p, random);
    e.x[static_cast<size_t>(p.c * p.h * p.w + 5)] = NAN;  // in the second image
    const Named isa = runnable_kernels().back();
    const Results r = run(*isa.kernels, e, p);
    int nans = 0;
    for (int64_t i = 0; i < p.n; ++i)
      for (int64_t y = 0; y < p.ho; ++y)
        for (int64_t x = 0; x < p.wo; ++x) {
          const bool nan = std::isnan(r.full[map_at(p.k, p.ho, p.wo, isa.kernels->block, i, 0, y, x)]);
          EXPECT_TRUE(!nan || i == 1);
          nans += nan;
        }
    EXPECT_GT(nans, 0);
  }
}

TEST(HalfConvolution, ResultsAreTheSameBitsOnEveryRunAndForEveryNumberOfThreads) {
  std::mt19937 random(11);
  for (const int tile : {0, 2, 4}) {
    for (const auto& [n, c, k, side] : {std::tuple{5, 24, 40, 13}, {1, 140, 72, 7}, {30, 8, 16, 16}}) {
      HalfConvProblem p{
          .n = n, .c = c, .k = k, .h = side, .w = side, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1, .tile = tile};
      p = with_output(p);
      const Example e(p, random);
      const Named isa = runnable_kernels()[detected_isa() == Isa::generic ? 0 : 1];
      const Results one = run(*isa.kernels, e, p);
      for (const int threads : {1, 2, 3, 5}) {
        HalfConvProblem q = p;
        q.threads = threads;
        SCOPED_TRACE(isa.name + ": " + text(q));
        const Results r = run(*isa.kernels, e, q);
        EXPECT_TRUE(same_bits(one.plain, r.plain) && same_bits(one.full, r.full));
      }
    }
  }
}

TEST(HalfConvolution, TheProcessorAndTheEmulationGiveTheSameBits) {
  const HalfConvKernels* native = simd::native_half_convolution(detected_isa());
  if (!native) GTEST_SKIP() << "no AVX512-FP16 here";
  std::mt19937 random(15);
  for (const int tile : {0, 2, 3, 4}) {
    HalfConvProblem p{
        .n = 3, .c = 200, .k = 72, .h = 13, .w = 12, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1, .tile = tile};
    p = with_output(p);
    const Example e(p, random);
    const Results ours = run(*native, e, p), emulated = run(simd::isa_kernels(Isa::avx512).half_convolution, e, p);
    EXPECT_TRUE(same_bits(ours.plain, emulated.plain) && same_bits(ours.full, emulated.full)) << text(p);
  }
}

/// Sets a variable of the environment for one scope.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old, had_ = true;
    value ? setenv(name, value, 1) : unsetenv(name);
  }
  ~Environment() { had_ ? setenv(name_, old_.c_str(), 1) : unsetenv(name_); }

 private:
  const char* name_;
  std::string old_;
  bool had_ = false;
};

std::string refusal(const std::string& backend) {
  try {
    make_backend(backend, 1, AlgorithmChoice::usual, Precision::f16);
  } catch (const UserError& error) {
    return error.code() == ExitCode::usage ? error.what() : "another code";
  }
  return "";
}

TEST(HalfConvolution, IsRefusedOnAProcessorWithoutItUnlessTheEmulationIsAskedFor) {
  {
    const Environment isa("RESNET_MAX_ISA", "avx2"), mode("RESNET_F16", nullptr);
    EXPECT_NE(refusal("cpu").find("AVX512-FP16"), std::string::npos) << refusal("cpu");
    EXPECT_NE(refusal("reference").find("--precision"), std::string::npos);
  }
  {
    const Environment mode("RESNET_F16", "emulate");
    EXPECT_EQ(refusal("cpu"), "");
  }
  const Environment mode("RESNET_F16", "fast");
  EXPECT_NE(refusal("cpu").find("RESNET_F16"), std::string::npos);
}

}  // namespace
}  // namespace resnet
