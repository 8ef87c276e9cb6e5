#include "backends/cpu/conv2d_gemm.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "backends/blocked_buffer.h"
#include "backends/cpu/simd/isa_kernels.h"

// The 16-wide kernels, lowered to whatever this test is compiled for, so that the code AVX-512 runs is checked on every
// CPU.
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif
#define RESNET_ISA lowered_gemm
#include "backends/cpu/simd/conv2d_gemm_impl.h"

namespace resnet {
namespace {

using namespace testing;

namespace lowered = simd::lowered_gemm;

/// A problem with random data and its answer in double, without bias, residual and ReLU.
struct Example {
  GemmConv p;
  std::vector<float> x, w, bias, residual;
  std::vector<double> y;

  /// whole: small whole numbers, whose sums f32 holds exactly.
  Example(const GemmConv& problem, std::mt19937& random, bool whole) : p(problem) {
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& v, int64_t size) {
      v.resize(static_cast<size_t>(size));
      for (float& value : v) value = whole ? static_cast<float>(static_cast<int>(random() % 7) - 3) : normal(random);
    };
    fill(x, p.n * p.c * p.h * p.w);
    fill(w, p.k * p.c * p.r * p.s);
    fill(bias, p.k);
    fill(residual, p.n * p.k * p.ho * p.wo);
    size_t at = 0;
    y.resize(residual.size());
    for (int64_t n = 0; n < p.n; ++n)
      for (int64_t k = 0; k < p.k; ++k)
        for (int64_t oy = 0; oy < p.ho; ++oy)
          for (int64_t ox = 0; ox < p.wo; ++ox) y[at++] = sum_of(n, k, oy, ox);
  }

  double sum_of(int64_t n, int64_t k, int64_t oy, int64_t ox) const {
    double sum = 0;
    for (int64_t c = 0; c < p.c; ++c)
      for (int64_t r = 0; r < p.r; ++r)
        for (int64_t s = 0; s < p.s; ++s) {
          const int64_t iy = oy * p.stride_h + r * p.dilation_h - p.pad_h;
          const int64_t ix = ox * p.stride_w + s * p.dilation_w - p.pad_w;
          if (iy < 0 || iy >= p.h || ix < 0 || ix >= p.w) continue;
          sum += double{x[static_cast<size_t>(((n * p.c + c) * p.h + iy) * p.w + ix)]} *
                 w[static_cast<size_t>(((k * p.c + c) * p.r + r) * p.s + s)];
        }
    return sum;
  }
};

struct Results {
  Buffer plain, full, apart;  ///< y alone; with bias, residual and ReLU; the same, the residual elsewhere
};

Buffer to_blocked(const std::vector<float>& plain, int64_t n, int64_t c, int64_t h, int64_t w, int b) {
  Buffer out(static_cast<size_t>(n * blocks(c, b) * b * h * w));
  size_t at = 0;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < c; ++j)
      for (int64_t y = 0; y < h; ++y)
        for (int64_t x = 0; x < w; ++x) out[map_at(c, h, w, b, i, j, y, x)] = plain[at++];
  return out;
}

Results run(const GemmConvKernels& kernels, const Example& e, int threads) {
  const int b = kernels.block;
  GemmConv p = e.p;
  p.threads = threads;
  const Buffer x = to_blocked(e.x, p.n, p.c, p.h, p.w, b);
  const Buffer residual = to_blocked(e.residual, p.n, p.k, p.ho, p.wo, b);
  Buffer w(static_cast<size_t>(blocks(p.k, b) * blocks(p.c, b) * b * b * p.r * p.s)), bias(e.bias.size());
  std::copy(e.bias.begin(), e.bias.end(), bias.data());
  size_t at = 0;
  for (int64_t k = 0; k < p.k; ++k)
    for (int64_t c = 0; c < p.c; ++c)
      for (int64_t tap = 0; tap < p.r * p.s; ++tap)
        w[(((k / b * blocks(p.c, b) + c / b) * p.r * p.s + tap) * b + c % b) * b + k % b] = e.w[at++];
  const size_t scratch_bytes = kernels.scratch_bytes(p);
  EXPECT_EQ(scratch_bytes % sizeof(float), 0u);
  Buffer scratch(scratch_bytes / sizeof(float), NAN);
  Results results{Buffer(residual.size(), NAN), Buffer(residual.size(), NAN), Buffer(residual.size(), NAN)};
  p.x = x.data(), p.weights = w.data(), p.scratch = scratch.data(), p.y = results.plain.data();
  kernels.forward(p);
  // The residual lies where the result goes, as the planner may put it.
  std::copy(residual.data(), residual.data() + residual.size(), results.full.data());
  p.y = results.full.data(), p.bias = bias.data(), p.residual = results.full.data(), p.relu = true;
  kernels.forward(p);
  p.y = results.apart.data(), p.residual = residual.data();
  kernels.forward(p);
  EXPECT_TRUE(same_bits(results.full, results.apart));
  EXPECT_TRUE(scratch.guards_intact() && results.apart.guards_intact() && results.plain.guards_intact() &&
              results.full.guards_intact());
  return results;
}

/// Root mean square error of the plain result relative to its own; checks padding and the epilogue too.
double error_of(const GemmConvKernels& kernels, const Example& e, const Results& r) {
  const GemmConv& p = e.p;
  const int b = kernels.block;
  double error = 0, size = 0;
  size_t at = 0;
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t k = 0; k < blocks(p.k, b) * b; ++k)
      for (int64_t y = 0; y < p.ho; ++y)
        for (int64_t x = 0; x < p.wo; ++x) {
          const int64_t i = map_at(p.k, p.ho, p.wo, b, n, k, y, x);
          if (k >= p.k) {
            EXPECT_TRUE(r.plain[i] == 0 && r.full[i] == 0) << "padded channel " << k;
            continue;
          }
          const double bias = e.bias[static_cast<size_t>(k)], sum = e.y[at] + bias + e.residual[at];
          const double terms = std::abs(e.y[at]) + std::abs(bias) + std::abs(e.residual[at]);
          EXPECT_NEAR(r.full[i], sum > 0 ? sum : 0, 1e-5 * (terms + std::sqrt(p.c * p.r * p.s)));
          error += (r.plain[i] - e.y[at]) * (r.plain[i] - e.y[at]);
          size += e.y[at] * e.y[at];
          ++at;
        }
  return error == 0 ? 0 : std::sqrt(error / size);  // a window may lie in the padding throughout
}

struct Named {
  std::string name;
  const GemmConvKernels* kernels;
};
std::vector<Named> runnable_kernels() {
  std::vector<Named> all;
  for (const Isa isa : {Isa::generic, Isa::avx2, Isa::avx512}) {
    if (isa <= detected_isa()) all.push_back({isa_name(isa), &simd::isa_kernels(isa).gemm_convolution});
  }
  all.push_back({"16 wide, lowered", &lowered::GemmConvolution<16>::kernels});
  return all;
}

std::string text(const GemmConv& p) {
  return fmt::format("{}x{}x{}x{} * {}x{}x{}x{} stride {} {} pad {} {} dilation {} {}", p.n, p.c, p.h, p.w, p.k, p.c,
                     p.r, p.s, p.stride_h, p.stride_w, p.pad_h, p.pad_w, p.dilation_h, p.dilation_w);
}

/// False when nothing is left of the map.
bool set_output(GemmConv& p) {
  const int64_t high = p.h + 2 * p.pad_h - p.dilation_h * (p.r - 1) - 1;
  const int64_t wide = p.w + 2 * p.pad_w - p.dilation_w * (p.s - 1) - 1;
  p.ho = high / p.stride_h + 1;
  p.wo = wide / p.stride_w + 1;
  return high >= 0 && wide >= 0;
}

TEST(GemmConvolution, IsExactOnWholeNumbersOfAnyShape) {
  const unsigned seed = 25;
  std::mt19937 random(seed);
  const auto pick = [&](std::initializer_list<int> of) { return of.begin()[random() % of.size()]; };
  int checked = 0;
  for (int trial = 0; trial < 150; ++trial) {
    GemmConv p;
    p.n = pick({1, 1, 2, 3, 9});
    p.c = pick({1, 3, 8, 16, 17, 33, 70, 140});
    p.k = pick({1, 3, 8, 16, 17, 33, 40, 72});
    p.h = pick({1, 2, 3, 5, 7, 8, 13});
    p.w = pick({1, 2, 3, 6, 7, 9, 14, 17});
    if (trial % 3 > 0) {
      p.r = pick({1, 2, 3, 5, 7}), p.s = pick({1, 3, 3, 4});
      p.stride_h = pick({1, 2, 3}), p.stride_w = pick({1, 2});
      p.pad_h = pick({0, 1, 2, 3}), p.pad_w = pick({0, 1, 3});
      p.dilation_h = pick({1, 1, 2}), p.dilation_w = pick({1, 1, 3});
    }
    if (!set_output(p)) continue;
    const Example e(p, random, true);
    for (const Named& isa : runnable_kernels()) {
      SCOPED_TRACE(fmt::format("{}: {}, seed {} trial {}", isa.name, text(p), seed, trial));
      EXPECT_EQ(error_of(*isa.kernels, e, run(*isa.kernels, e, pick({1, 2, 3}))), 0);
      ++checked;
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(checked, 200);
}

TEST(GemmConvolution, MapsOfOneTo57PixelsInBatchesOfOneToNineStayWithinTheErrorBound) {
  constexpr double kBound = 8e-7;  // twice what was measured for direct convolutions of normal values
  const unsigned seed = 57;
  std::mt19937 random(seed);
  const std::vector<int> sides = {1, 2, 3, 5, 7, 14, 28, 29, 56, 57}, channels = {5, 17, 3, 23, 9},
                         sizes = {1, 3, 1, 5};
  int trial = 0, checked = 0;
  for (int n = 1; n <= 9; ++n) {
    for (size_t i = 0; i < sides.size(); ++i, ++trial) {
      const auto turn = static_cast<size_t>(trial);
      GemmConv p;
      p.n = n;
      p.h = sides[i];
      p.w = sides[(i + static_cast<size_t>(n) - 1) % sides.size()];  // squares with one image
      p.c = channels[turn % 5];
      p.k = channels[turn / 2 % 5];
      p.r = p.s = sizes[turn % 4];
      p.stride_h = p.stride_w = 1 + trial / 4 % 2;
      p.pad_h = p.pad_w = p.r == 1 ? 0 : trial / 3 % 4;
      if (!set_output(p)) continue;
      const Example e(p, random, false);
      for (const Named& isa : runnable_kernels()) {
        if (isa.name == "generic") continue;  // the same source, too slow here
        SCOPED_TRACE(fmt::format("{}: {}, seed {}", isa.name, text(p), seed));
        EXPECT_LE(error_of(*isa.kernels, e, run(*isa.kernels, e, 1 + trial / 2 % 2)), kBound);
        if (HasFailure()) return;
      }
      ++checked;
    }
  }
  EXPECT_GT(checked, 60);
}

// Several pieces of the depth, several blocks of pixels, threads that share the outputs, a last panel of one block.
TEST(GemmConvolution, LargeShapesTakeEveryPathWithTheSameBitsForEveryNumberOfThreads) {
  constexpr double kBound = 8e-7;
  std::mt19937 random(7);
  const std::vector<GemmConv> problems = {
      {.n = 1, .c = 520, .k = 136, .h = 7, .w = 7},
      {.n = 4, .c = 300, .k = 136, .h = 8, .w = 7, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1},
      {.n = 2, .c = 260, .k = 40, .h = 14, .w = 13, .stride_h = 2, .stride_w = 2},
      {.n = 30, .c = 72, .k = 24, .h = 28, .w = 9},
      {.n = 5,
       .c = 136,
       .k = 33,
       .h = 17,
       .w = 15,
       .r = 3,
       .s = 3,
       .stride_h = 2,
       .stride_w = 2,
       .pad_h = 1,
       .pad_w = 1},
      {.n = 3, .c = 1100, .k = 16, .h = 9, .w = 9},
      // One group of pixels: shared by outputs, although the images are more than the weights.
      {.n = 1, .c = 40, .k = 160, .h = 14, .w = 14, .stride_h = 13, .stride_w = 13},
  };
  for (GemmConv p : problems) {
    ASSERT_TRUE(set_output(p));
    const Example e(p, random, false);
    for (const Named& isa : runnable_kernels()) {
      if (isa.name == "generic") continue;  // the same source, too slow here
      SCOPED_TRACE(isa.name + ": " + text(p));
      const Results one = run(*isa.kernels, e, 1);
      EXPECT_LE(error_of(*isa.kernels, e, one), kBound);
      for (const int threads : {1, 2, 3, 5}) {
        const Results r = run(*isa.kernels, e, threads);
        EXPECT_TRUE(same_bits(one.plain, r.plain) && same_bits(one.full, r.full)) << threads << " threads";
      }
      if (HasFailure()) return;
    }
  }
}

TEST(GemmConvolution, ImagesDoNotDisturbEachOtherAndNansAreSeen) {
  std::mt19937 random(13);
  GemmConv p{.n = 3, .c = 16, .k = 16, .h = 12, .w = 12, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1};
  ASSERT_TRUE(set_output(p));
  Example e(p, random, false);
  e.x[static_cast<size_t>(p.c * p.h * p.w + 5)] = NAN;  // in the second image
  for (const Named& isa : runnable_kernels()) {
    const Results r = run(*isa.kernels, e, 2);
    int nans = 0;
    for (int64_t i = 0; i < p.n; ++i)
      for (int64_t y = 0; y < p.ho; ++y)
        for (int64_t x = 0; x < p.wo; ++x) {
          const bool nan = std::isnan(r.full[map_at(p.k, p.ho, p.wo, isa.kernels->block, i, 0, y, x)]);
          EXPECT_TRUE(!nan || i == 1) << isa.name;
          nans += nan;
        }
    EXPECT_EQ(nans, 6) << isa.name;  // the first row's sixth pixel: 2 x 3 windows see it
  }
}

}  // namespace
}  // namespace resnet
