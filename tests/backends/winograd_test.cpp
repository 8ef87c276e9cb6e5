#include "backends/cpu/winograd.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "backends/blocked_buffer.h"

// The 16-wide kernels, lowered to whatever this test is compiled for, so that the code AVX-512 runs
// is checked on every CPU.
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif
#define RESNET_ISA lowered
#include "backends/cpu/simd/winograd_impl.h"

namespace resnet {
namespace {

using namespace testing;

struct Maps {
  int64_t n, c, h, w;
  int64_t size() const { return n * c * h * w; }
  int64_t at(int64_t i, int64_t j, int64_t y, int64_t x) const { return ((i * c + j) * h + y) * w + x; }
};

int64_t blocked_at(const Maps& m, int b, int64_t i, int64_t j, int64_t y, int64_t x) {
  return (((i * blocks(m.c, b) + j / b) * m.h + y) * m.w + x) * b + j % b;
}
size_t blocked_size(const Maps& m, int b) { return static_cast<size_t>(m.n * blocks(m.c, b) * m.h * m.w * b); }

Buffer to_blocked(const std::vector<float>& plain, const Maps& m, int b) {
  Buffer out(blocked_size(m, b));
  for (int64_t i = 0; i < m.n; ++i)
    for (int64_t j = 0; j < m.c; ++j)
      for (int64_t y = 0; y < m.h; ++y)
        for (int64_t x = 0; x < m.w; ++x)
          out[blocked_at(m, b, i, j, y, x)] = plain[static_cast<size_t>(m.at(i, j, y, x))];
  return out;
}

int64_t weight_at(int64_t c, int b, int64_t k, int64_t j, int64_t tap) {
  return (((k / b * blocks(c, b) + j / b) * 9 + tap) * b + j % b) * b + k % b;
}
size_t weight_size(int64_t k, int64_t c, int b) { return static_cast<size_t>(blocks(k, b) * blocks(c, b) * 9 * b * b); }

/// A problem with random data and its exact (double) answers.
struct Example {
  WinogradProblem p;
  Maps x_maps, y_maps;
  std::vector<float> x, w, bias, residual, dy;
  std::vector<double> y, dx, dw;  // y without bias, residual and ReLU

  Example(const WinogradProblem& problem, std::mt19937& random)
      : p(problem),
        x_maps{p.n, p.c, p.h, p.w},
        y_maps{p.n, p.k, (p.h + 2 * p.pad - 3) / p.stride + 1, (p.w + 2 * p.pad - 3) / p.stride + 1} {
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& v, int64_t size) {
      v.resize(static_cast<size_t>(size));
      for (float& value : v) value = normal(random);
    };
    fill(x, x_maps.size());
    fill(w, p.k * p.c * 9);
    fill(bias, p.k);
    fill(residual, y_maps.size());
    fill(dy, y_maps.size());
    y.assign(dy.size(), 0);
    dx.assign(x.size(), 0);
    dw.assign(w.size(), 0);
    for (int64_t i = 0; i < p.n; ++i)
      for (int64_t k = 0; k < p.k; ++k)
        for (int64_t oy = 0; oy < y_maps.h; ++oy)
          for (int64_t ox = 0; ox < y_maps.w; ++ox) {
            const auto out = static_cast<size_t>(y_maps.at(i, k, oy, ox));
            const double gradient = dy[out];
            double sum = 0;
            for (int64_t c = 0; c < p.c; ++c)
              for (int64_t r = 0; r < 3; ++r)
                for (int64_t s = 0; s < 3; ++s) {
                  const int64_t iy = oy * p.stride + r - p.pad, ix = ox * p.stride + s - p.pad;
                  if (iy < 0 || iy >= p.h || ix < 0 || ix >= p.w) continue;
                  const auto in = static_cast<size_t>(x_maps.at(i, c, iy, ix));
                  const auto tap = static_cast<size_t>((k * p.c + c) * 9 + r * 3 + s);
                  sum += double{x[in]} * w[tap];
                  dx[in] += gradient * w[tap];
                  dw[tap] += gradient * x[in];
                }
            y[out] = sum;
          }
  }

  Buffer blocked_weights(int b) const {
    Buffer out(weight_size(p.k, p.c, b));
    for (int64_t k = 0; k < p.k; ++k)
      for (int64_t c = 0; c < p.c; ++c)
        for (int64_t tap = 0; tap < 9; ++tap)
          out[weight_at(p.c, b, k, c, tap)] = w[static_cast<size_t>((k * p.c + c) * 9 + tap)];
    return out;
  }
};

/// Squared error and squared reference, to be divided over many elements.
struct Relative {
  double error = 0, reference = 0;
  void add(double got, double want) {
    error += (got - want) * (got - want);
    reference += want * want;
  }
  double rms() const { return reference == 0 ? (error == 0 ? 0 : INFINITY) : std::sqrt(error / reference); }
};

/// Compares a blocked result with the plain answer, and demands zeros in the padded channels.
Relative compare_maps(const Buffer& got, const Maps& m, int b, const std::vector<double>& want) {
  Relative r;
  for (int64_t i = 0; i < m.n; ++i)
    for (int64_t j = 0; j < blocks(m.c, b) * b; ++j)
      for (int64_t y = 0; y < m.h; ++y)
        for (int64_t x = 0; x < m.w; ++x) {
          const float value = got[blocked_at(m, b, i, j, y, x)];
          if (j < m.c) {
            r.add(value, want[static_cast<size_t>(m.at(i, j, y, x))]);
          } else {
            EXPECT_EQ(value, 0.f) << "padded channel " << j;
          }
        }
  return r;
}

Relative compare_weights(const Buffer& got, const WinogradProblem& p, int b, const std::vector<double>& want) {
  Relative r;
  for (int64_t k = 0; k < blocks(p.k, b) * b; ++k)
    for (int64_t c = 0; c < blocks(p.c, b) * b; ++c)
      for (int64_t tap = 0; tap < 9; ++tap) {
        const float value = got[weight_at(p.c, b, k, c, tap)];
        if (k < p.k && c < p.c) {
          r.add(value, want[static_cast<size_t>((k * p.c + c) * 9 + tap)]);
        } else {
          EXPECT_EQ(value, 0.f) << "padded weight " << k << ", " << c;
        }
      }
  return r;
}

struct Named {
  std::string name;
  const WinogradKernels* kernels;
};
std::vector<Named> runnable_kernels() {
  std::vector<Named> all;
  for (const Isa isa : {Isa::generic, Isa::avx2, Isa::avx512}) {
    if (isa <= detected_isa()) all.push_back({isa_name(isa), &winograd_kernels(isa)});
  }
  all.push_back({"16 wide, lowered", &simd::lowered::WinogradByTile<16>::kernels});
  return all;
}

std::string text(const WinogradProblem& p) {
  return "n " + std::to_string(p.n) + " c " + std::to_string(p.c) + " k " + std::to_string(p.k) + " " +
         std::to_string(p.h) + "x" + std::to_string(p.w) + " pad " + std::to_string(p.pad) + " tile " +
         std::to_string(p.tile) + " threads " + std::to_string(p.threads) + " stride " + std::to_string(p.stride);
}

/// Twice the documented error of the tile.
double error_bound(int tile) { return tile == 2 ? 5e-7 : tile == 3 ? 1.2e-6 : 1.6e-6; }

struct Results {
  Buffer y, y_plain, dx, dw;
};

/// Runs all three passes, of stride 2 the forward one alone, poisoning outputs and scratch with NaN first.
Results run_all(const WinogradKernels& kernels, const Example& e, const WinogradProblem& p, bool packed) {
  const int b = kernels.block;
  const Buffer x = to_blocked(e.x, e.x_maps, b), dy = to_blocked(e.dy, e.y_maps, b);
  const Buffer residual = to_blocked(e.residual, e.y_maps, b), w = e.blocked_weights(b);
  Buffer bias(e.bias.size());
  std::copy(e.bias.begin(), e.bias.end(), bias.data());
  Results r{Buffer(blocked_size(e.y_maps, b), NAN), Buffer(blocked_size(e.y_maps, b), NAN),
            Buffer(blocked_size(e.x_maps, b), NAN), Buffer(w.size(), NAN)};
  const auto scratch_for = [&](WinogradPass pass) {
    const size_t bytes = kernels.scratch_bytes(p, pass, packed && pass != WinogradPass::backward_weights);
    EXPECT_EQ(bytes % sizeof(float), 0u);
    return Buffer(bytes / sizeof(float), NAN);
  };
  const auto pack = [&](WinogradPass pass) {
    Buffer out(packed ? kernels.packed_weight_bytes(p, pass) / sizeof(float) : 0, NAN);
    if (packed) kernels.pack_weights(p, pass, w.data(), out.data());
    EXPECT_TRUE(out.guards_intact());
    return out;
  };
  const Buffer u = pack(WinogradPass::forward);
  const float* const weights = packed ? nullptr : w.data();
  {
    Buffer scratch = scratch_for(WinogradPass::forward);
    WinogradForward a;
    a.x = x.data(), a.w = weights, a.packed = packed ? u.data() : nullptr, a.scratch = scratch.data();
    a.y = r.y_plain.data();
    kernels.forward(p, a);
    a.y = r.y.data(), a.bias = bias.data(), a.residual = residual.data(), a.relu = true;
    kernels.forward(p, a);
    EXPECT_TRUE(scratch.guards_intact());
  }
  if (p.stride == 1) {
    const Buffer flipped = pack(WinogradPass::backward_data);
    Buffer scratch = scratch_for(WinogradPass::backward_data);
    kernels.backward_data(p, {dy.data(), weights, packed ? flipped.data() : nullptr, r.dx.data(), scratch.data()});
    EXPECT_TRUE(scratch.guards_intact());
  }
  if (p.stride == 1) {
    Buffer scratch = scratch_for(WinogradPass::backward_weights);
    kernels.backward_weights(p, {x.data(), dy.data(), r.dw.data(), scratch.data()});
    EXPECT_TRUE(scratch.guards_intact());
  }
  for (const Buffer* out : {&r.y, &r.y_plain, &r.dx, &r.dw}) EXPECT_TRUE(out->guards_intact());
  return r;
}

void check_against_double(const Named& isa, const Example& e, const WinogradProblem& p, const Results& r) {
  const int b = isa.kernels->block;
  // The figure is a mean over many values; of a handful one may have cancelled.
  const auto bound_of = [&](int64_t values) { return error_bound(p.tile) * (values < 100 ? 1.5 : 1); };
  EXPECT_LE(compare_maps(r.y_plain, e.y_maps, b, e.y).rms(), bound_of(e.y_maps.size())) << "forward";
  if (p.stride == 1) {
    EXPECT_LE(compare_maps(r.dx, e.x_maps, b, e.dx).rms(), bound_of(e.x_maps.size())) << "backward_data";
    // A sum over pixels, of which there may be many more than channels; with few weights one may cancel.
    EXPECT_LE(compare_weights(r.dw, p, b, e.dw).rms(), 1.5 * error_bound(p.tile)) << "backward_weights";
  }
  // The epilogue is exact arithmetic on the plain result.
  for (int64_t i = 0; i < e.y_maps.n; ++i)
    for (int64_t k = 0; k < e.y_maps.c; ++k)
      for (int64_t y = 0; y < e.y_maps.h; ++y)
        for (int64_t x = 0; x < e.y_maps.w; ++x) {
          const int64_t at = blocked_at(e.y_maps, b, i, k, y, x);
          const double sum = double{r.y_plain[at]} + e.bias[static_cast<size_t>(k)] +
                             e.residual[static_cast<size_t>(e.y_maps.at(i, k, y, x))];
          ASSERT_NEAR(r.y[at], sum > 0 ? sum : 0, 1e-5 * (1 + std::abs(r.y_plain[at]))) << "epilogue";
        }
  for (size_t i = 0; i < r.y.size(); ++i) ASSERT_GE(r.y[static_cast<int64_t>(i)], 0.f);
}

TEST(Winograd, EveryPassMatchesDoubleDirectConvolutionOnRandomShapes) {
  const unsigned seed = 20240731;
  std::mt19937 random(seed);
  const auto pick = [&](std::initializer_list<int> of) {
    return *(of.begin() + std::uniform_int_distribution<size_t>(0, of.size() - 1)(random));
  };
  int checked = 0;
  for (int trial = 0; trial < 120; ++trial) {
    WinogradProblem p;
    p.n = pick({1, 1, 2, 3, 5});
    p.c = pick({1, 3, 8, 16, 17, 33});
    p.k = pick({1, 3, 8, 16, 17, 33});
    p.h = pick({1, 2, 3, 4, 5, 6, 7, 8, 11, 13});
    p.w = pick({1, 2, 3, 4, 5, 6, 7, 9, 12, 17});
    p.pad = pick({0, 1});
    p.tile = 2 + trial % 3;
    p.threads = pick({1, 2});
    p.stride = 1 + trial / 3 % 2;
    if (p.h + 2 * p.pad < 3 || p.w + 2 * p.pad < 3) continue;
    ASSERT_EQ(winograd_refusal(p), nullptr);
    const Example e(p, random);
    for (const Named& isa : runnable_kernels()) {
      SCOPED_TRACE(isa.name + ": " + text(p) + ", seed " + std::to_string(seed) + " trial " + std::to_string(trial));
      check_against_double(isa, e, p, run_all(*isa.kernels, e, p, trial % 2 == 1));
      ++checked;
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(checked, 60);
}

// Shapes that reach the other code paths: several blocks of tiles, rows wider than a strip, more
// channels than one visit of the micro kernel sums, and the team of threads on large weights.
TEST(Winograd, LargeShapesTakeEveryPathAndStayWithinTheErrorBound) {
  const unsigned seed = 7;
  std::mt19937 random(seed);
  const WinogradProblem problems[] = {
      {3, 40, 24, 23, 75, 1, 4, 2},    {2, 64, 64, 30, 30, 1, 3, 2},      {40, 16, 32, 8, 9, 1, 2, 2},
      {5, 288, 200, 7, 6, 1, 4, 2},    {9, 300, 304, 3, 3, 1, 3, 2},      {2, 520, 272, 5, 4, 0, 2, 2},
      {1, 8, 16, 70, 133, 0, 4, 1},    {300, 24, 40, 3, 3, 1, 4, 3},      {2, 40, 24, 23, 150, 1, 4, 2, 2},
      {3, 24, 40, 57, 57, 0, 3, 2, 2}, {5, 288, 200, 13, 12, 1, 4, 2, 2}, {9, 300, 304, 7, 7, 1, 2, 3, 2},
      {1, 520, 272, 9, 8, 1, 3, 2, 2}, {90, 1040, 40, 3, 3, 1, 4, 2},
  };
  for (const WinogradProblem& p : problems) {
    const Example e(p, random);
    for (const Named& isa : runnable_kernels()) {
      SCOPED_TRACE(isa.name + ": " + text(p) + ", seed " + std::to_string(seed));
      const Results r = run_all(*isa.kernels, e, p, false), packed = run_all(*isa.kernels, e, p, true);
      check_against_double(isa, e, p, r);
      EXPECT_TRUE(same_bits(r.y, packed.y) && same_bits(r.y_plain, packed.y_plain)) << "packed";
      if (p.stride == 1) {
        EXPECT_TRUE(same_bits(r.dx, packed.dx)) << "packed";
      }
      WinogradProblem apart = p;
      apart.apart = true;
      for (const bool packs : {false, true}) {
        const Results own = run_all(*isa.kernels, e, apart, packs);
        EXPECT_TRUE(same_bits(r.y, own.y) && same_bits(r.y_plain, own.y_plain)) << "apart, packed " << packs;
        if (p.stride == 1) {
          EXPECT_TRUE(same_bits(r.dx, own.dx)) << "apart, packed " << packs;
        }
      }
      if (HasFailure()) return;
    }
  }
}

TEST(Winograd, MapsOfOneTo57PixelsInBatchesOfOneToNineStayWithinTheErrorBound) {
  const unsigned seed = 57;
  std::mt19937 random(seed);
  const std::vector<int> sides = {1, 2, 3, 5, 7, 14, 28, 29, 56, 57};
  const std::vector<int> channels = {5, 17, 1, 23, 9};
  std::set<std::vector<int64_t>> seen;  // tile, stride, pad
  int trial = 0;
  for (size_t n = 1; n <= 9; ++n) {
    for (size_t i = 0; i < sides.size(); ++i, ++trial) {
      WinogradProblem p;
      p.n = static_cast<int64_t>(n);
      p.h = sides[i];
      p.w = sides[(i + n - 1) % sides.size()];  // squares with one image
      p.c = channels[(i + n) % channels.size()];
      p.k = channels[(2 * i + n) % channels.size()];
      p.tile = 2 + trial % 3;
      p.stride = 1 + trial / 3 % 2;
      p.pad = trial / 6 % 2;
      p.threads = 1 + trial % 2;
      if (p.h + 2 * p.pad < 3 || p.w + 2 * p.pad < 3) continue;
      seen.insert({p.tile, p.stride, p.pad});
      const Example e(p, random);
      for (const Named& isa : runnable_kernels()) {
        SCOPED_TRACE(isa.name + ": " + text(p) + ", seed " + std::to_string(seed));
        check_against_double(isa, e, p, run_all(*isa.kernels, e, p, trial % 2 == 1));
        if (HasFailure()) return;
      }
    }
  }
  EXPECT_EQ(seen.size(), 3u * 2 * 2);
}

TEST(Winograd, ResultsAreTheSameBitsOnEveryRunAndForEveryNumberOfThreads) {
  const unsigned seed = 11;
  std::mt19937 random(seed);
  for (const WinogradProblem& problem :
       {WinogradProblem{7, 17, 40, 13, 10, 1, 4, 1}, WinogradProblem{60, 32, 16, 12, 12, 1, 3, 1},
        WinogradProblem{6, 304, 290, 3, 3, 1, 3, 1}, WinogradProblem{33, 64, 64, 6, 6, 1, 2, 1},
        WinogradProblem{7, 17, 40, 26, 19, 1, 4, 1, 2}, WinogradProblem{6, 304, 290, 7, 6, 1, 3, 1, 2}}) {
    const Example e(problem, random);
    for (const Named& isa : runnable_kernels()) {
      const Results one = run_all(*isa.kernels, e, problem, false);
      for (const int threads : {1, 2, 3, 5, 11}) {
        WinogradProblem p = problem;
        p.threads = threads;
        SCOPED_TRACE(isa.name + ": " + text(p) + ", seed " + std::to_string(seed));
        const Results r = run_all(*isa.kernels, e, p, threads == 3);
        EXPECT_TRUE(same_bits(one.y, r.y) && same_bits(one.y_plain, r.y_plain)) << "forward";
        if (p.stride != 1) continue;
        EXPECT_TRUE(same_bits(one.dx, r.dx)) << "backward_data";
        EXPECT_TRUE(same_bits(one.dw, r.dw)) << "backward_weights";
      }
    }
  }
}

TEST(Winograd, SmallIntegersThroughTheTwoByTwoTileAreExact) {
  std::mt19937 random(3);
  WinogradProblem p{2, 16, 16, 9, 9, 1, 2, 2};
  Example e(p, random);
  for (std::vector<float>* v : {&e.x, &e.w}) {
    for (float& value : *v) value = static_cast<float>(static_cast<int>(random() % 9) - 4);
  }
  for (const Named& isa : runnable_kernels()) {
    const Results r = run_all(*isa.kernels, e, p, false);
    int wrong = 0;
    double largest = 0;
    for (int64_t i = 0; i < p.n; ++i)
      for (int64_t k = 0; k < p.k; ++k)
        for (int64_t oy = 0; oy < p.h; ++oy)
          for (int64_t ox = 0; ox < p.w; ++ox) {
            double sum = 0;
            for (int64_t c = 0; c < p.c; ++c)
              for (int64_t tap = 0; tap < 9; ++tap) {
                const int64_t iy = oy + tap / 3 - 1, ix = ox + tap % 3 - 1;
                if (iy < 0 || iy >= p.h || ix < 0 || ix >= p.w) continue;
                sum += double{e.x[static_cast<size_t>(e.x_maps.at(i, c, iy, ix))]} *
                       e.w[static_cast<size_t>((k * p.c + c) * 9 + tap)];
              }
            wrong += r.y_plain[blocked_at(e.y_maps, isa.kernels->block, i, k, oy, ox)] != static_cast<float>(sum);
            largest = std::max(largest, std::abs(sum));
          }
    EXPECT_EQ(wrong, 0) << isa.name;
    EXPECT_GT(largest, 50) << "the data would hide an error";
  }
}

TEST(Winograd, TheTransformsMultiplyPolynomialsExactlyAndTheirAdjointsAreAdjoint) {
  const auto check = [](auto tile) {
    constexpr int M = decltype(tile)::value, N = M + 2;
    using T = simd::lowered::WinogradTransform<M, 1>;
    // With unit vectors: sum over points of output[.][i] * weight[i][s] * input[i][j] is the
    // correlation, 1 where j = m + s and 0 elsewhere.
    double input[N][N], weight[N][3], output[M][N];
    for (int j = 0; j < N; ++j) {
      float d[N] = {}, o[N];
      d[j] = 1;
      T::input(d, o);
      for (int i = 0; i < N; ++i) input[i][j] = o[i];
      float y[M];
      T::output(d, y);
      for (int m = 0; m < M; ++m) output[m][j] = y[m];
      float g[3];
      T::weight_gradient(d, g);
      for (int s = 0; s < 3; ++s) weight[j][s] = g[s];
    }
    for (int s = 0; s < 3; ++s) {
      float g[3] = {}, o[N];
      g[s] = 1;
      T::weight(g, o);
      for (int i = 0; i < N; ++i) EXPECT_FLOAT_EQ(o[i], static_cast<float>(weight[i][s]));
    }
    for (int m = 0; m < M; ++m) {
      float y[M] = {}, o[N];
      y[m] = 1;
      T::output_gradient(y, o);
      for (int i = 0; i < N; ++i) EXPECT_FLOAT_EQ(o[i], static_cast<float>(output[m][i]));
      for (int s = 0; s < 3; ++s) {
        for (int j = 0; j < N; ++j) {
          double sum = 0;
          for (int i = 0; i < N; ++i) sum += output[m][i] * weight[i][s] * input[i][j];
          EXPECT_NEAR(sum, j == m + s ? 1 : 0, 2e-6) << "tile " << M << ": " << m << ", " << s << ", " << j;
        }
      }
    }
  };
  check(std::integral_constant<int, 2>());
  check(std::integral_constant<int, 3>());
  check(std::integral_constant<int, 4>());
}

TEST(Winograd, TheTransformsOfStrideTwoSkipEveryOtherOutput) {
  const auto check = [](auto tile) {
    constexpr int M = decltype(tile)::value, N = 2 * M + 1;
    using T = simd::lowered::WinogradTransform<M, 2>;
    for (int s = 0; s < 3; ++s) {
      float g[3] = {}, weight[M + 2];
      g[s] = 1;
      T::weight(g, weight);
      for (int j = 0; j < N; ++j) {
        float d[N] = {}, points[N], y[M];
        d[j] = 1;
        T::input(d, points);
        for (int i = 0; i < N; ++i) points[i] *= weight[std::min(i, M + 1)];
        T::output(points, y);
        for (int m = 0; m < M; ++m) {
          EXPECT_NEAR(y[m], j == 2 * m + s ? 1 : 0, 1e-6) << "tile " << M << ": " << m << ", " << s << ", " << j;
        }
      }
    }
  };
  check(std::integral_constant<int, 2>());
  check(std::integral_constant<int, 3>());
  check(std::integral_constant<int, 4>());
}

TEST(Winograd, ANotANumberInTheInputReachesTheOutputThroughTheRelu) {
  std::mt19937 random(5);
  const WinogradProblem p{1, 8, 8, 6, 6, 1, 4, 1};
  Example e(p, random);
  e.x[10] = NAN;
  for (const Named& isa : runnable_kernels()) {
    const Results r = run_all(*isa.kernels, e, p, false);
    int nans = 0;
    for (size_t i = 0; i < r.y.size(); ++i) nans += std::isnan(r.y[static_cast<int64_t>(i)]) ? 1 : 0;
    EXPECT_GE(nans, 9 * 8) << isa.name;
  }
}

TEST(Winograd, UnsupportedProblemsAreRefusedWithAReason) {
  EXPECT_EQ(winograd_refusal({}), nullptr);
  const auto refused = [](void (*spoil)(WinogradProblem&)) {
    WinogradProblem p{2, 8, 8, 6, 6, 1, 4, 1};
    spoil(p);
    const char* why = winograd_refusal(p);
    return why != nullptr && std::strlen(why) > 10;
  };
  EXPECT_TRUE(refused([](WinogradProblem& p) { p.tile = 5; }));
  EXPECT_TRUE(refused([](WinogradProblem& p) { p.tile = 1; }));
  EXPECT_TRUE(refused([](WinogradProblem& p) { p.stride = 3; }));
  EXPECT_TRUE(refused([](WinogradProblem& p) { p.pad = 2; }));
  EXPECT_TRUE(refused([](WinogradProblem& p) { p.pad = -1; }));
  EXPECT_TRUE(refused([](WinogradProblem& p) { p.threads = 0; }));
  EXPECT_TRUE(refused([](WinogradProblem& p) { p.n = 0; }));
  EXPECT_TRUE(refused([](WinogradProblem& p) { p.pad = 0, p.h = 2; }));
  EXPECT_TRUE(refused([](WinogradProblem& p) { p.n = INT64_MAX; }));
  EXPECT_TRUE(refused([](WinogradProblem& p) { p.c = 1 << 20; }));
  EXPECT_TRUE(refused([](WinogradProblem& p) { p.w = 1 << 20; }));
}

}  // namespace
}  // namespace resnet
