// Every op of the cpu backend against the reference backend. Whole-number data make sums exact, so most ops must
// agree to the bit; the others have bounds that follow from the same graph run on absolute values.

#include "backends/cpu/cpu_backend.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <thread>

#include "autodiff/gradients.h"
#include "backends/cpu/onednn.h"
#include "backends/cpu/simd/isa.h"
#include "ops/add.h"
#include "ops/avg_pool.h"
#include "ops/batch_norm.h"
#include "ops/blur_pool.h"
#include "ops/channel_conv.h"
#include "ops/channel_sum.h"
#include "ops/conv2d.h"
#include "ops/conv2d_max_pool.h"
#include "ops/fill.h"
#include "ops/global_avg_pool.h"
#include "ops/gradient_check.h"
#include "ops/l2_norm.h"
#include "ops/linear.h"
#include "ops/max_pool.h"
#include "ops/pad_channels.h"
#include "ops/relu.h"
#include "ops/reshape.h"
#include "ops/running_average.h"
#include "ops/scale.h"
#include "ops/sgd_update.h"
#include "ops/sigmoid.h"
#include "ops/softmax_cross_entropy.h"
#include "runtime/on_backend.h"
#include "train/training_step.h"

namespace resnet {
namespace {

using namespace testing;

constexpr double kEps = std::numeric_limits<float>::epsilon();

int64_t pick(Rng& rng, std::initializer_list<int64_t> values) { return values.begin()[rng.below(values.size())]; }
int64_t draw_channels(Rng& rng) { return pick(rng, {1, 3, 5, 8, 17, 33}); }
/// Small ones, whose edges meet, and one in five of up to 9 images and 57 pixels, which threads and blocks share out.
Shape draw_maps(Rng& rng, int64_t channels) {
  const bool large = rng.below(5) == 0;
  return {draw_between(rng, 1, large ? 9 : 3), channels, draw_between(rng, 1, large ? 57 : 13),
          draw_between(rng, 1, large ? 57 : 9)};
}
Shape draw_maps(Rng& rng) { return draw_maps(rng, draw_channels(rng)); }
int threads_of(uint64_t seed) { return 1 + static_cast<int>(seed % 2); }

Tensor absolute(Tensor t) {
  if (t.dtype() != DType::f32) return t;
  for (float& v : t.as<float>()) v = std::abs(v);
  return t;
}
Tensors absolute(Tensors all) {
  for (auto& [name, t] : all) t = absolute(t);
  return all;
}

double largest(const Tensor& t) {
  double m = 0;
  for (float v : t.as<float>()) m = std::max(m, static_cast<double>(std::abs(v)));
  return m;
}

/// Compares results by name and counts zeros: agreement about nothing but zeros proves nothing.
class Comparison {
 public:
  /// How far element i of output `name` may be off.
  using Bound = std::function<double(const std::string& name, size_t i)>;

  void expect(const Tensors& actual, const Tensors& expected, const std::string& what, const Bound& bound = {}) {
    ASSERT_EQ(actual.size(), expected.size()) << what;
    for (const auto& [name, want] : expected) {
      const Tensor& got = actual.at(name);
      ASSERT_EQ(got.type(), want.type()) << what << " " << name;
      if (want.dtype() != DType::f32) {
        EXPECT_EQ(got, want) << what << " " << name;
        continue;
      }
      for (size_t i = 0; i < want.as<float>().size(); ++i) {
        const float g = got.as<float>()[i], w = want.as<float>()[i];
        ++elements_;
        nonzero_ += w != 0;
        const double allowed = bound ? bound(name, i) : 0.0;
        if (std::abs(static_cast<double>(g) - static_cast<double>(w)) <= allowed) continue;
        ADD_FAILURE() << what << ": " << name << "[" << i << "] is " << g << ", expected " << w << " within "
                      << allowed;
        return;
      }
    }
  }
  ~Comparison() {
    EXPECT_GT(elements_, 500);
    EXPECT_GT(static_cast<double>(nonzero_), 0.25 * static_cast<double>(elements_)) << "mostly zeros were compared";
  }

 private:
  int64_t elements_ = 0, nonzero_ = 0;
};

// --- convolution -------------------------------------------------------------------------------------------------

struct ConvCase {
  Shape x, w;
  Conv2dAttrs attrs;
  Shape y;
  bool bias = false;
  bool fed = false;  ///< x is an input that only convolutions read (row-major where it has few channels)

  std::string str() const {
    return x.str() + " * " + w.str() + " " + to_string(Attributes{attrs}) + (bias ? " bias" : "") + (fed ? " fed" : "");
  }
};

/// False when nothing is left of the map.
bool set_output_shape(ConvCase& c) {
  auto out = [](int64_t size, int64_t pad, int64_t dilation, int64_t kernel, int64_t stride) {
    const int64_t room = size + 2 * pad - dilation * (kernel - 1) - 1;
    return room < 0 ? int64_t{0} : room / stride + 1;
  };
  const Conv2dAttrs& a = c.attrs;
  c.y = {c.x[0], c.w[0], out(c.x[2], a.pad.h, a.dilation.h, c.w[2], a.stride.h),
         out(c.x[3], a.pad.w, a.dilation.w, c.w[3], a.stride.w)};
  return c.y[2] > 0 && c.y[3] > 0;
}

ConvCase draw_conv(Rng& rng) {
  while (true) {
    ConvCase c;
    const int64_t groups = rng.below(3) > 0 ? 1 : pick(rng, {2, 3, 8});
    const int64_t in = groups == 1 ? draw_channels(rng) : pick(rng, {1, 3, 8});
    const int64_t out = groups == 1 ? draw_channels(rng) : groups * pick(rng, {1, 2, 5});
    const int64_t kernel = pick(rng, {1, 3, 5, 7});
    const bool square = rng.below(3) > 0;
    c.x = draw_maps(rng, in * groups);
    c.w = {out, in, kernel, square ? kernel : pick(rng, {1, 3, 5})};
    const int64_t stride = draw_between(rng, 1, 3), pad = draw_between(rng, 0, 3);
    c.attrs.stride = {stride, square ? stride : draw_between(rng, 1, 3)};
    c.attrs.pad = {pad, square ? pad : draw_between(rng, 0, 2)};
    if (rng.below(4) == 0) c.attrs.dilation = {2, draw_between(rng, 1, 2)};
    c.attrs.groups = groups;
    c.bias = rng.below(2) == 0;
    c.fed = rng.below(2) == 0;
    if (set_output_shape(c)) return c;
  }
}

/// What Winograd can do: 3x3, stride 1, padding 0 or 1. Maps are drawn, or the largest.
ConvCase draw_winograd(Rng& rng, bool largest) {
  while (true) {
    ConvCase c;
    c.x = draw_maps(rng, pick(rng, {17, 33, 40}));
    if (largest) c.x = {9, 17, 57, 57};
    c.w = {pick(rng, {16, 17, 33}), c.x[1], 3, 3};
    const int64_t pad = draw_between(rng, 0, 1);
    c.attrs.pad = {pad, pad};
    c.bias = rng.below(2) == 0;
    if (set_output_shape(c)) return c;
  }
}

/// The stem's weight gradient: few channels in, fed as they are.
ConvCase draw_stem(Rng& rng) {
  while (true) {
    ConvCase c;
    const int64_t stride = draw_between(rng, 1, 3), pad = draw_between(rng, 0, 3);
    c.x = {pick(rng, {1, 2, 3, 35}), draw_between(rng, 1, 5), draw_between(rng, 1, 15), draw_between(rng, 1, 15)};
    c.w = {pick(rng, {1, 3, 8, 10, 16, 21, 40}), c.x[1], draw_between(rng, 1, 7), draw_between(rng, 1, 7)};
    c.attrs.stride = {stride, stride};
    c.attrs.pad = {pad, pad};
    c.bias = rng.below(2) == 0;
    c.fed = true;
    if (set_output_shape(c)) return c;
  }
}

/// y, both gradients, the bias's, and the weight after a step of SGD with rate 1 (so the weight is no constant).
BuildGraph training_conv(const ConvCase& c) {
  return [c](Graph& g) {
    const Value fed = g.input("x", f32_type(c.x));
    const Value x = c.fed ? fed : relu(fed);
    const Value w = g.state("w", f32_type(c.w), {}, true);
    const Value b = c.bias ? g.state("b", f32_type({c.w[0]}), {}, true) : Value{};
    const Value y = conv2d(x, w, b, c.attrs, "conv");
    const Value dy = g.input("dy1", f32_type(c.y)) + g.input("dy2", f32_type(c.y));
    std::vector<Value> wrt{x, w};
    if (b) wrt.push_back(b);
    const std::pair<Value, Value> seed{y, dy};
    const std::vector<Value> d = gradients(g, std::span(&seed, 1), wrt);
    g.set_output("y", y);
    g.set_output("dx", d[0]);
    g.set_output("dw", d[1]);
    if (b) g.set_output("db", d[2]);
    g.assign(w, sgd_update(w, d[1], g.input("lr", f32_type({})), g.input("guard", f32_type({})), {}, {}).param);
  };
}

/// Inference with everything that may be fused.
BuildGraph fused_conv(const ConvCase& c, bool residual, bool activated) {
  return [=](Graph& g) {
    const Value fed = g.input("x", f32_type(c.x));
    std::vector<Value> inputs{c.fed ? fed : relu(fed), g.state("w", f32_type(c.w), {}, true)};
    Conv2dAttrs attrs = c.attrs;
    attrs.bias = c.bias;
    attrs.residual = residual;
    attrs.relu = activated;
    if (c.bias) inputs.push_back(g.state("b", f32_type({c.w[0]}), {}, true));
    if (residual) inputs.push_back(g.input("dy1", f32_type(c.y)));
    g.set_output("y", g.add(kConv2d, inputs, attrs, "conv"));
  };
}

Tensors conv_leaves(const ConvCase& c, Rng& rng) {
  return {{"x", random_integers(c.x, rng)},
          {"w", random_integers(c.w, rng)},
          {"b", random_integers({c.w[0]}, rng)},
          {"dy1", random_integers(c.y, rng)},
          {"dy2", random_integers(c.y, rng)},
          {"lr", f32_scalar(1)},
          {"guard", f32_scalar(0)}};
}

class CpuConvolution : public ::testing::Test {
 protected:
  PrivateTuningCache cache_;
  ScopedEnvironment algorithm_{"RESNET_CONV_ALGORITHM", "auto"};  // tests force algorithms by name
  ScopedEnvironment without_{"RESNET_CONV_WITHOUT", ""};
};

TEST_F(CpuConvolution, DirectIsExactOnWholeNumbersForwardBackwardAndFused) {
  ScopedEnvironment direct("RESNET_CONV_ALGORITHM", "direct");
  Comparison compare;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Rng rng(mix(seed));
    const ConvCase c = draw_conv(rng);
    const Tensors leaves = conv_leaves(c, rng);
    const std::string what = fmt::format("seed {}: {}", seed, c.str());
    const bool training = seed % 2 == 0;
    const BuildGraph build = training ? training_conv(c) : fused_conv(c, rng.below(2) == 0, rng.below(2) == 0);
    compare.expect(run_on("cpu", threads_of(seed / 2), build, leaves), run_on("reference", 1, build, leaves), what);
  }
}

/// Relative RMS difference of `y` from the convolution of ReLU(x) (of x where it is fed) in double.
double error_of_direct(const ConvCase& c, const Tensors& leaves, const Tensor& y) {
  const auto x = leaves.at("x").as<float>(), w = leaves.at("w").as<float>(), got = y.as<float>();
  double error = 0, size = 0;
  size_t at = 0;
  for (int64_t n = 0; n < c.y[0]; ++n)
    for (int64_t k = 0; k < c.y[1]; ++k)
      for (int64_t oy = 0; oy < c.y[2]; ++oy)
        for (int64_t ox = 0; ox < c.y[3]; ++ox, ++at) {
          double sum = 0;
          for (int64_t j = 0; j < c.x[1]; ++j)
            for (int64_t r = 0; r < c.w[2]; ++r)
              for (int64_t s = 0; s < c.w[3]; ++s) {
                const int64_t iy = oy * c.attrs.stride.h + r - c.attrs.pad.h;
                const int64_t ix = ox * c.attrs.stride.w + s - c.attrs.pad.w;
                if (iy < 0 || iy >= c.x[2] || ix < 0 || ix >= c.x[3]) continue;
                const double pixel = x[static_cast<size_t>(((n * c.x[1] + j) * c.x[2] + iy) * c.x[3] + ix)];
                const double weight = w[static_cast<size_t>(((k * c.x[1] + j) * c.w[2] + r) * c.w[3] + s)];
                sum += (c.fed ? pixel : std::max(pixel, 0.0)) * weight;
              }
          error += (got[at] - sum) * (got[at] - sum);
          size += sum * sum;
        }
  return size == 0 ? (error == 0 ? 0 : std::numeric_limits<double>::infinity()) : std::sqrt(error / size);
}

TEST_F(CpuConvolution, DirectStaysWithinItsErrorOnMapsOfOneTo57PixelsInBatchesOfOneToNine) {
  ScopedEnvironment direct("RESNET_CONV_ALGORITHM", "direct");
  constexpr double kBound = 8e-7;  // twice what was measured for direct convolutions of normal values
  const std::vector<int64_t> sides = {1, 2, 3, 5, 7, 14, 28, 29, 56, 57}, channels = {5, 17, 3, 23, 9};
  const std::vector<int64_t> sizes = {1, 3, 7, 5};
  int trial = 0, checked = 0;
  for (int64_t n = 1; n <= 9; ++n) {
    for (size_t i = 0; i < sides.size(); ++i, ++trial) {
      const auto turn = static_cast<size_t>(trial);
      ConvCase c;
      c.x = {n, channels[turn % 5], sides[i], sides[(i + static_cast<size_t>(n) - 1) % sides.size()]};
      const int64_t size = sizes[turn % 4], stride = 1 + trial / 4 % 2, pad = trial / 3 % 4;
      c.w = {channels[turn / 2 % 5], c.x[1], size, size};
      c.attrs.stride = {stride, stride};
      c.attrs.pad = {pad, pad};
      c.fed = trial % 2 == 0;
      if (!set_output_shape(c)) continue;
      Rng rng(mix(static_cast<uint64_t>(trial)));
      const Tensors leaves{{"x", random_floats(c.x, rng)}, {"w", random_floats(c.w, rng)}};
      const Tensors y = run_on("cpu", threads_of(static_cast<uint64_t>(trial)), fused_conv(c, false, false), leaves);
      EXPECT_LE(error_of_direct(c, leaves, y.at("y")), kBound) << c.str();
      ++checked;
    }
  }
  EXPECT_GT(checked, 60);
}

using Choices = std::map<std::string, std::string>;

/// What the backend asks of the tuning cache when it knows `known`, and the choices that `algorithm` wins all of it.
Choices problems_of(const BuildGraph& build, const Choices& known = {}) {
  Session session(make_backend("cpu", 1));
  session.backend().adopt(known);
  compile(session, build);
  return session.backend().choices();
}
Choices everywhere(Choices problems, const std::string& algorithm) {
  for (auto& [problem, choice] : problems) choice = algorithm;
  return problems;
}

int steps_with(const Program& program, const std::string& algorithm) {
  int count = 0;
  for (const Step& step : program.plan().steps) count += step.kernel->algorithm().find(algorithm) != std::string::npos;
  return count;
}

/// oneDNN has a "gemm:jit" of its own.
int64_t steps_of_gemm(const Program& program) {
  const auto& steps = program.plan().steps;
  return std::count_if(steps.begin(), steps.end(), [](const Step& s) { return s.kernel->algorithm() == "gemm"; });
}

TEST_F(CpuConvolution, TheMatrixProductIsExactOnWholeNumbersFusedAndInTraining) {
  Comparison compare;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    Rng rng(mix(seed + 3000));
    ConvCase c = draw_conv(rng);
    c.attrs.groups = 1;
    c.x[1] = c.w[1] = pick(rng, {16, 17, 33});  // one block or more on every processor
    c.fed = false;
    const bool residual = c.w[0] >= 16;  // of fewer channels it would lie row-major, as it was fed
    const BuildGraph build = seed % 2 == 0 ? training_conv(c) : fused_conv(c, residual, rng.below(2) == 0);
    const Tensors leaves = conv_leaves(c, rng);
    Session session(make_backend("cpu", threads_of(seed / 2)));
    session.backend().adopt(everywhere(problems_of(build), "gemm"));
    Program& program = compile(session, build);
    const std::string what = fmt::format("seed {}: {}", seed, c.str());
    EXPECT_EQ(steps_of_gemm(program), 1) << what;  // the gradients are oneDNN's
    compare.expect(run(session, program, leaves), run_on("reference", 1, build, leaves), what);
  }
}

/// Winograd's rounding: the transforms mix all inputs of a tile, so an element's error goes with the largest sum of
/// |x * w| around it. The tiles' transforms amplify eps about 4 (tile 2) to 13 (tile 4) times in the mean.
Comparison::Bound winograd_bound(const Tensors& of_absolute) {
  std::map<std::string, double> bounds;
  for (const auto& [name, t] : of_absolute) bounds[name] = 48 * kEps * largest(t);
  if (bounds.count("dw") > 0) bounds["w"] = bounds["dw"];
  return [bounds](const std::string& name, size_t) { return bounds.at(name); };
}

/// With AVX-512, and there only.
bool onednn_has_winograd() {
  return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core;
}

TEST_F(CpuConvolution, EveryWinogradStaysWithinItsBound) {
  Comparison compare;
  std::map<std::string, int> steps;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    Rng rng(mix(seed + 1000));
    const ConvCase c = draw_winograd(rng, seed < 2);
    const Tensors leaves = conv_leaves(c, rng);
    const bool training = seed % 2 == 0;
    const bool residual = rng.below(2) == 0;
    const BuildGraph build = training ? training_conv(c) : fused_conv(c, residual, true);
    const Tensors expected = run_on("reference", 1, build, leaves);
    const Choices problems = problems_of(build);
    const Tensors bound = run_on("reference", 1, training ? build : fused_conv(c, residual, false), absolute(leaves));
    for (const char* algorithm : {"winograd f2", "winograd f3", "winograd f4", "onednn winograd"}) {
      Session session(make_backend("cpu", threads_of(seed / 2)));
      session.backend().adopt(everywhere(problems, algorithm));
      Program& program = compile(session, build);
      const std::string shown = std::string(algorithm) == "onednn winograd" ? "jit_wino" : algorithm;
      steps[algorithm] += steps_with(program, shown);
      compare.expect(run(session, program, leaves), expected, fmt::format("seed {}: {} {}", seed, algorithm, c.str()),
                     winograd_bound(bound));
    }
  }
  for (const char* ours : {"winograd f2", "winograd f3", "winograd f4"}) EXPECT_EQ(steps[ours], 4 * 3 + 4) << ours;
  EXPECT_EQ(steps["onednn winograd"] > 0, onednn_has_winograd());
}

TEST_F(CpuConvolution, ForcedWinogradAndTheFreeChoiceAgreeWithTheReference) {
  for (const char* algorithms : {"winograd", "auto"}) {
    ScopedEnvironment environment("RESNET_CONV_ALGORITHM", algorithms);
    Comparison compare;
    int winograd = 0;
    for (uint64_t seed = 0; seed < 4; ++seed) {
      Rng rng(mix(seed + 2000));
      const ConvCase c = draw_winograd(rng, seed == 0);
      const Tensors leaves = conv_leaves(c, rng);
      const BuildGraph build = training_conv(c);
      const Tensors bound = run_on("reference", 1, build, absolute(leaves));
      Session session(make_backend("cpu", threads_of(seed)));
      Program& program = compile(session, build);
      winograd += steps_with(program, "wino");
      compare.expect(run(session, program, leaves), run_on("reference", 1, build, leaves),
                     fmt::format("seed {}: {} {}", seed, algorithms, c.str()), winograd_bound(bound));
    }
    if (std::string(algorithms) == "winograd") {
      EXPECT_EQ(winograd, 4 * 3);
    }
  }
}

/// What the steps of the convolution are called after a program of `ops` additions and it was told to take `algorithm`.
std::string taken_in_depth(int ops, bool constant, const std::string& algorithm) {
  const BuildGraph build = [=](Graph& g) {
    Value x = g.input("x", f32_type({2, 16, 9, 9}));
    for (int i = 0; i < ops; ++i) x = add(x, x);
    const Value w = g.state("w", f32_type({16, 16, 3, 3}), {}, true);
    const Value y = conv2d(x, w, {}, Conv2dAttrs{.pad = {1, 1}}, "conv");
    g.set_output("y", y);
    if (!constant) {
      const Value lr = g.input("lr", f32_type({})), guard = g.input("guard", f32_type({}));
      g.assign(w, sgd_update(w, w, lr, guard, {}, {}).param);
    }
  };
  Session session(make_backend("cpu", 1));
  session.backend().adopt(everywhere(problems_of(build), algorithm));
  const Program& program = compile(session, build);
  for (const Step& step : program.plan().steps) {
    if (program.graph().node(step.node).name == "conv") return step.kernel->algorithm();
  }
  return "no convolution";
}

TEST_F(CpuConvolution, InferenceOfHundredsOfLayersTakesNoTilesOfFour) {
  EXPECT_EQ(taken_in_depth(500, true, "winograd f4"), "winograd f4");
  EXPECT_EQ(taken_in_depth(600, false, "winograd f4"), "winograd f4");
  EXPECT_EQ(taken_in_depth(600, true, "winograd f3"), "winograd f3");
  for (const char* tiles_of_four : {"winograd f4", "onednn winograd"}) {
    ScopedEnvironment winograd("RESNET_CONV_ALGORITHM", "winograd");
    const std::string taken = taken_in_depth(600, true, tiles_of_four);
    EXPECT_TRUE(taken == "winograd f2" || taken == "winograd f3") << taken;
  }
}

TEST_F(CpuConvolution, OurStemWeightGradientIsExactOnWholeNumbers) {
  Comparison compare;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Rng rng(mix(seed + 3000));
    const ConvCase c = draw_stem(rng);
    const Tensors leaves = conv_leaves(c, rng);
    // dx is not asked for, as in a stem.
    const BuildGraph build = [&](Graph& g) {
      const Value x = g.input("x", f32_type(c.x));
      const Value w = g.state("w", f32_type(c.w), {}, true);
      const Value y = conv2d(x, w, {}, c.attrs, "stem");
      const std::pair<Value, Value> back{y, g.input("dy1", f32_type(c.y)) + g.input("dy2", f32_type(c.y))};
      const std::vector<Value> wrt{w};
      g.set_output("y", y);
      g.set_output("dw", gradients(g, std::span(&back, 1), wrt)[0]);
    };
    Session session(make_backend("cpu", threads_of(seed)));
    Choices choices = everywhere(problems_of(build), "direct");  // exact, as Winograd is not
    for (auto& [problem, choice] : choices) {
      if (problem.starts_with("weight_grad")) choice = "stem";
    }
    session.backend().adopt(choices);
    Program& program = compile(session, build);
    const std::string what = fmt::format("seed {}: {}", seed, c.str());
    EXPECT_EQ(steps_with(program, "stem"), 1) << what;
    compare.expect(run(session, program, leaves), run_on("reference", 1, build, leaves), what);
    ScopedEnvironment without("RESNET_CONV_WITHOUT", "stem");
    Session other(make_backend("cpu", 1));
    other.backend().adopt(everywhere(problems_of(build), "stem"));
    EXPECT_EQ(steps_with(compile(other, build), "stem"), 0) << what;
  }
}

TEST_F(CpuConvolution, ConstantWeightsAreReadAgainAfterAnyChange) {
  for (const int64_t groups : {1, 2}) {
    ConvCase c{.x = {2, 32, 8, 8},
               .w = {32, 32 / groups, 3, 3},
               .attrs = {.pad = {1, 1}, .groups = groups},
               .y = {},
               .bias = true};
    ASSERT_TRUE(set_output_shape(c));
    const BuildGraph inference = fused_conv(c, false, false);
    const BuildGraph training = training_conv(c);
    const Choices problems = problems_of(inference);
    for (const char* algorithm : {"direct", "onednn winograd", "winograd f2", "winograd f3", "winograd f4"}) {
      Rng rng(17);
      const Tensors leaves = conv_leaves(c, rng);
      Session session(make_backend("cpu", 1));
      const Choices choices = everywhere(problems, algorithm);
      session.backend().adopt(choices);
      Program& program = compile(session, inference);
      // Where it cannot be had another is measured, which a second session need not find the fastest as well.
      const std::string shown = algorithm == std::string("onednn winograd") ? "jit_wino" : algorithm;
      if (shown != "direct" && steps_with(program, shown) == 0) {
        ASSERT_TRUE(groups == 2 || (shown == "jit_wino" && !onednn_has_winograd())) << algorithm;
        continue;
      }
      const Tensor first = run(session, program, leaves).at("y");
      // Twice the weights and bias give exactly twice the result, whatever the algorithm.
      Tensors doubled = leaves;
      for (const char* name : {"w", "b"}) {
        for (float& v : doubled.at(name).as<float>()) v *= 2;
      }
      const Tensor second = run(session, program, doubled).at("y");
      double sum = 0;
      for (size_t i = 0; i < first.as<float>().size(); ++i) {
        ASSERT_EQ(second.as<float>()[i], 2 * first.as<float>()[i]) << algorithm << " groups " << groups << " at " << i;
        sum += std::abs(static_cast<double>(first.as<float>()[i]));
      }
      EXPECT_GT(sum, 100) << "nothing was computed";
      // A training program of the same session changes the weights: the next inference must see it.
      Program& step = compile(session, training);
      const Tensor updated = run(session, step, leaves).at("w");
      EXPECT_NE(updated, leaves.at("w"));
      program.set_input("x", leaves.at("x"));
      program.run();
      const Tensor third = program.output("y");
      Session fresh(make_backend("cpu", 1));
      fresh.backend().adopt(choices);
      Tensors after = leaves;
      after["w"] = updated;
      EXPECT_EQ(third, run(fresh, compile(fresh, inference), after).at("y")) << algorithm << " groups " << groups;
      EXPECT_NE(third, first);
    }
  }
}

TEST_F(CpuConvolution, WeightsTransformedOnTheFlyAreReadWhereTheyLieAndGiveTheSameBits) {
  struct Example {
    Shape x;
    int64_t stride, pad;
  };
  const bool two_threads = omp_get_thread_limit() >= 2;  // else there is no other to be apart from
  int compared = 0;
  for (const auto& [maps, stride, pad] : {Example{{3, 270, 9, 7}, 1, 1},
                                          {{3, 270, 9, 7}, 2, 1},
                                          {{1, 262, 1, 1}, 1, 1},
                                          {{9, 257, 4, 3}, 1, 0},
                                          {{5, 259, 2, 14}, 2, 1},
                                          {{1, 270, 23, 57}, 1, 1},
                                          {{2, 270, 57, 5}, 2, 0},
                                          {{9, 270, 13, 12}, 1, 1}}) {
    ConvCase c{.x = maps,
               .w = {266, maps[1], 3, 3},
               .attrs = {.stride = {stride, stride}, .pad = {pad, pad}},
               .y = {},
               .bias = true};
    ASSERT_TRUE(set_output_shape(c));
    const BuildGraph build = fused_conv(c, true, true);
    const Choices problems = problems_of(build);
    Rng rng(23);
    const Tensors before = conv_leaves(c, rng), leaves = conv_leaves(c, rng);
    for (const std::string packed : {"winograd f2", "winograd f3", "winograd f4"}) {
      std::map<std::string, Tensor> results;
      for (const char* way : {"", " on the fly", " apart", " apart on the fly"}) {
        const std::string algorithm = packed + way;
        const bool apart = algorithm.find("apart") != std::string::npos;
        const bool packs = algorithm.find("on the fly") == std::string::npos;
        const int64_t tile = packed.back() - '0', columns = (c.y[3] + tile - 1) / tile;
        if (apart && !two_threads) continue;
        if (apart && c.y[0] * ((c.y[2] + tile - 1) / tile) * columns < 48) continue;  // too few for two threads
        Session session(make_backend("cpu", 2));
        session.backend().adopt(everywhere(problems, algorithm));
        Program& program = compile(session, build);
        EXPECT_EQ(steps_with(program, algorithm), 1);
        EXPECT_EQ(steps_with(program, "on the fly"), packs ? 0 : 1);
        EXPECT_EQ(steps_with(program, "apart"), apart ? 1 : 0);
        compared += apart;
        const Tensor first = run(session, program, before).at("y");
        const Tensor y = run(session, program, leaves).at("y");
        EXPECT_NE(y, first) << algorithm;
        EXPECT_EQ(session.keep_packed_only("w"), packs);
        program.run();
        EXPECT_EQ(program.output("y"), y) << algorithm;
        results[algorithm] = y;
      }
      for (const auto& [algorithm, y] : results) EXPECT_EQ(y, results.at(packed)) << c.str() << " " << algorithm;
    }
  }
  EXPECT_GE(compared, two_threads ? 12 : 0);
}

TEST_F(CpuConvolution, SmallAndTrainedWeightsAreNotTransformedOnTheFly) {
  for (const int64_t channels : {32, 270}) {
    ConvCase c{
        .x = {2, channels, 5, 5}, .w = {channels, channels, 3, 3}, .attrs = {.pad = {1, 1}}, .y = {}, .bias = true};
    ASSERT_TRUE(set_output_shape(c));
    for (const bool constant : {true, false}) {
      const BuildGraph build = constant ? fused_conv(c, false, false) : training_conv(c);
      Session session(make_backend("cpu", 1));
      session.backend().adopt(everywhere(problems_of(build), "winograd f4 on the fly"));
      EXPECT_EQ(steps_with(compile(session, build), "on the fly"), constant && channels == 270 ? 1 : 0) << channels;
    }
  }
}

TEST_F(CpuConvolution, ThreadsStayApartWhereEachHasTilesOfItsOwn) {
  if (omp_get_thread_limit() < 2) GTEST_SKIP() << "OMP_THREAD_LIMIT leaves no two threads";
  const auto taken = [](int64_t channels, int64_t images, int threads) {
    ConvCase c{.x = {images, channels, 13, 12},
               .w = {channels, channels, 3, 3},
               .attrs = {.pad = {1, 1}},
               .y = {},
               .bias = true};
    EXPECT_TRUE(set_output_shape(c));
    const BuildGraph build = fused_conv(c, false, false);
    Session session(make_backend("cpu", threads));
    session.backend().adopt(everywhere(problems_of(build), "winograd f4 apart"));
    return steps_with(compile(session, build), "winograd f4 apart");
  };
  EXPECT_EQ(taken(270, 4, 2), 1);  // 48 tiles
  EXPECT_EQ(taken(270, 3, 2), 0);
  EXPECT_EQ(taken(270, 4, 1), 0);
  EXPECT_EQ(taken(32, 4, 2), 0) << "with small weights they do anyway";
  const ScopedEnvironment without("RESNET_CONV_WITHOUT", "apart");
  EXPECT_EQ(taken(270, 4, 2), 0);
}

TEST_F(CpuConvolution, AFamilyLeftOutByItsNameIsNotTaken) {
  ConvCase c{.x = {2, 270, 5, 5}, .w = {270, 270, 3, 3}, .attrs = {.pad = {1, 1}}, .y = {}, .bias = true};
  ASSERT_TRUE(set_output_shape(c));
  const BuildGraph build = fused_conv(c, false, false);
  const auto steps = [&](const std::string& without, const std::string& wanted) {
    ScopedEnvironment environment("RESNET_CONV_WITHOUT", without);
    Session session(make_backend("cpu", 1));
    session.backend().adopt(everywhere(problems_of(build), wanted));
    return steps_with(compile(session, build), wanted);
  };
  for (const char* packed : {"winograd f2", "winograd f3", "winograd f4"}) {
    EXPECT_EQ(steps("stem,int8 winograd,onednn winograd", packed), 1);
    EXPECT_EQ(steps("winograd", packed), 0);
    const std::string fresh = std::string(packed) + " on the fly";
    EXPECT_EQ(steps("stem", fresh), 1);
    EXPECT_EQ(steps("on the fly", fresh), 0);
    EXPECT_EQ(steps("stem,winograd", fresh), 0);
  }
  const auto gemm = [&](const char* algorithms, const char* without) {
    ScopedEnvironment allowed("RESNET_CONV_ALGORITHM", algorithms), environment("RESNET_CONV_WITHOUT", without);
    Session session(make_backend("cpu", 1));
    session.backend().adopt(everywhere(problems_of(build), "gemm"));
    return steps_of_gemm(compile(session, build));
  };
  EXPECT_EQ(gemm("auto", "stem"), 1);
  EXPECT_EQ(gemm("auto", "gemm"), 0);
  EXPECT_EQ(gemm("direct", ""), 0) << "its choice would be one of time";
  const auto onednn = [&](const std::string& without) {
    ScopedEnvironment environment("RESNET_CONV_WITHOUT", without);
    Session session(make_backend("cpu", 1));
    session.backend().adopt(everywhere(problems_of(build), "onednn winograd"));
    return steps_with(compile(session, build), "jit_wino");
  };
  EXPECT_EQ(onednn("stem"), onednn_has_winograd() ? 1 : 0);
  EXPECT_EQ(onednn("onednn winograd"), 0);
}

TEST_F(CpuConvolution, WithoutWinogradForcedWinogradSaysSo) {
  ScopedEnvironment forced("RESNET_CONV_ALGORITHM", "winograd"), without("RESNET_CONV_WITHOUT", "winograd");
  ConvCase c{.x = {1, 16, 5, 5}, .w = {16, 16, 3, 3}, .attrs = {.pad = {1, 1}}, .y = {}, .bias = true};
  ASSERT_TRUE(set_output_shape(c));
  Session session(make_backend("cpu", 1));
  EXPECT_EQ(steps_with(compile(session, fused_conv(c, false, false)), "(no winograd: left out)"), 1);
}

TEST_F(CpuConvolution, AWeightOrImageOfUnexpectedOriginIsExactOrRefused) {
  // A computed weight and a state as the image: layouts no model of ours has.
  Rng rng(5);
  const Shape xs{2, 17, 5, 5}, ws{33, 17, 3, 3};
  const Tensors leaves{{"x", random_integers(xs, rng)}, {"w", random_integers(ws, rng)}};
  for (const bool computed_weight : {true, false}) {
    const BuildGraph build = [&](Graph& g) {
      const Value x = computed_weight ? g.input("x", f32_type(xs)) : g.state("x", f32_type(xs), {}, false);
      const Value w = computed_weight ? relu(g.input("w", f32_type(ws))) : g.state("w", f32_type(ws), {}, true);
      g.set_output("y", conv2d(x, w, {}, {}, "odd"));
    };
    const Tensors expected = run_on("reference", 1, build, leaves);
    try {
      EXPECT_EQ(run_on("cpu", 1, build, leaves).at("y"), expected.at("y"));
    } catch (const UserError& error) {
      EXPECT_NE(std::string(error.what()).find("conv2d 'odd'"), std::string::npos) << error.what();
    }
  }
}

TEST_F(CpuConvolution, ForcedWinogradSaysWhyALayerDoesWithout) {
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", "winograd");
  const Shape maps{2, 16, 9, 9};
  struct Case {
    ConvCase conv;
    const char* reason;
  };
  const Case cases[] = {
      {{.x = maps, .w = {16, 16, 3, 3}, .attrs = {.stride = {3, 3}, .pad = {1, 1}}, .y = {}}, "stride 3"},
      {{.x = maps, .w = {16, 16, 3, 3}, .attrs = {.stride = {2, 1}, .pad = {1, 1}}, .y = {}}, "stride 2x1"},
      {{.x = maps, .w = {16, 16, 3, 3}, .attrs = {.dilation = {2, 2}}, .y = {}}, "dilation 2"},
      {{.x = maps, .w = {16, 8, 3, 3}, .attrs = {.groups = 2}, .y = {}}, "2 groups"},
      {{.x = maps, .w = {16, 16, 1, 1}, .attrs = {}, .y = {}}, "kernel 1x1"}};
  for (const Case& each : cases) {
    ConvCase c = each.conv;
    ASSERT_TRUE(set_output_shape(c));
    Session session(make_backend("cpu", 1));
    const Program& program = compile(session, fused_conv(c, false, false));
    EXPECT_EQ(steps_with(program, fmt::format(" (no winograd: {})", each.reason)), 1) << c.str();
  }
  ConvCase possible{.x = maps, .w = {16, 16, 3, 3}, .attrs = {.pad = {1, 1}}, .y = {}};
  ASSERT_TRUE(set_output_shape(possible));
  Session session(make_backend("cpu", 1));
  EXPECT_EQ(steps_with(compile(session, fused_conv(possible, false, false)), "no winograd"), 0);
}

TEST_F(CpuConvolution, AStemIsTheConvolutionAndThePoolInBothWays) {
  Comparison compare;
  std::map<std::string, int> steps;
  for (uint64_t seed = 0; seed < 120; ++seed) {
    Rng rng(mix(seed));
    ConvCase c;
    const int64_t kernel = pick(rng, {1, 3, 5, 7}), stride = pick(rng, {1, 2}), pad = draw_between(rng, 0, kernel / 2);
    c.x = {draw_between(rng, 1, 9), pick(rng, {1, 3, 4}), draw_between(rng, 1, 57), draw_between(rng, 1, 57)};
    c.w = {pick(rng, {1, 8, 13, 24, 40}), c.x[1], kernel, kernel};
    c.attrs = {.stride = {stride, stride}, .pad = {pad, pad}};
    c.bias = rng.below(4) > 0;
    const int64_t window = pick(rng, {1, 2, 3});
    const PoolAttrs pool{.kernel = {window, window},
                         .stride = {draw_between(rng, 1, 2), 1},
                         .pad = {draw_between(rng, 0, window / 2), 0}};
    PoolAttrs square = pool;
    square.stride.w = square.stride.h;
    square.pad.w = square.pad.h;
    if (!set_output_shape(c) || c.y[2] + 2 * square.pad.h < window || c.y[3] + 2 * square.pad.h < window) continue;
    const bool activated = rng.below(2) == 0;
    const BuildGraph build = [=](Graph& g) {
      std::vector<Value> inputs{g.input("x", f32_type(c.x)), g.state("w", f32_type(c.w), {}, true)};
      Conv2dAttrs attrs = c.attrs;
      attrs.bias = c.bias;
      attrs.relu = activated;
      if (c.bias) inputs.push_back(g.state("b", f32_type({c.w[0]}), {}, true));
      g.set_output("y", g.add(kConv2dMaxPool, inputs, ConvPoolAttrs{attrs, square}, "stem"));
    };
    const Tensors leaves = conv_leaves(c, rng);
    const Tensors expected = run_on("reference", 1, build, leaves);
    const Choices problems = problems_of(build);
    for (const char* way : {"stem", "one after the other"}) {
      const auto both = std::find_if(problems.begin(), problems.end(),
                                     [](const auto& choice) { return choice.first.starts_with("conv2d_max_pool"); });
      ASSERT_NE(both, problems.end());
      // The convolution alone is asked for where the pool follows it.
      Choices choices = everywhere(problems_of(build, {{both->first, way}}), "direct");  // exact, as Winograd is not
      choices[both->first] = way;
      Session session(make_backend("cpu", threads_of(seed / 2)));
      session.backend().adopt(choices);
      Program& program = compile(session, build);
      steps[way] += steps_with(program, std::string(way) == "stem" ? "stem" : ", pool");
      compare.expect(run(session, program, leaves), expected,
                     fmt::format("seed {}: {} {} {}", seed, way, c.str(), to_string(Attributes{square})));
    }
  }
  EXPECT_GT(steps["stem"], 40);
  EXPECT_EQ(steps["stem"], steps["one after the other"]);
}

TEST_F(CpuConvolution, AStemKeepsANan) {
  ConvCase c{.x = {1, 3, 9, 9}, .w = {8, 3, 3, 3}, .attrs = {.stride = {2, 2}, .pad = {1, 1}}, .y = {}};
  const BuildGraph build = [=](Graph& g) {
    g.set_output("y", g.add(kConv2dMaxPool, {g.input("x", f32_type(c.x)), g.state("w", f32_type(c.w), {}, true)},
                            ConvPoolAttrs{c.attrs, {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}}}, "stem"));
  };
  Session session(make_backend("cpu", 1));
  session.backend().adopt(everywhere(problems_of(build), "stem"));
  Program& program = compile(session, build);
  ASSERT_EQ(steps_with(program, "stem"), 1);
  {
    ScopedEnvironment without("RESNET_CONV_WITHOUT", "stem");
    Session other(make_backend("cpu", 1));
    other.backend().adopt(everywhere(problems_of(build), "stem"));
    EXPECT_EQ(steps_with(compile(other, build), "stem"), 0);
  }
  Rng rng(1);
  Tensor x = random_integers(c.x, rng);
  x.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  const Tensor y = run(session, program, {{"x", x}, {"w", random_integers(c.w, rng)}}).at("y");
  EXPECT_TRUE(std::isnan(y.as<float>()[0])) << "a pixel that is no number must be seen";
  EXPECT_FALSE(std::isnan(y.as<float>()[y.as<float>().size() - 1]));
}

TEST_F(CpuConvolution, ASumIsWrittenOverItsShortcut) {
  const Shape maps{1, 16, 8, 8};
  Session session(make_backend("cpu", 1));
  const Program& program = compile(session, [&](Graph& g) {
    const Value x = relu(g.input("x", f32_type(maps)));
    const Value w = g.state("w", f32_type({16, 16, 3, 3}), {}, true), b = g.state("b", f32_type({16}), {}, true);
    const Value inner = conv2d(x, w, b, {.pad = {1, 1}}, "inner");
    g.set_output("y", g.add(kConv2d, {inner, w, b, x},
                            Conv2dAttrs{.pad = {1, 1}, .bias = true, .residual = true, .relu = true}, "outer"));
  });
  const Plan& plan = program.plan();
  const Step& last = plan.steps.back();
  EXPECT_EQ(plan.buffers[static_cast<size_t>(last.out[0])].offset,
            plan.buffers[static_cast<size_t>(last.in[3])].offset);
}

TEST_F(CpuConvolution, ProgramsShareAPackedWeightAndTheStateCanGo) {
  ConvCase c{.x = {2, 32, 8, 8}, .w = {32, 32, 3, 3}, .attrs = {.pad = {1, 1}}, .y = {}};
  ASSERT_TRUE(set_output_shape(c));
  const BuildGraph two = fused_conv(c, false, false);
  ConvCase of_three = c;
  of_three.x[0] = of_three.y[0] = 3;
  const BuildGraph three = fused_conv(of_three, false, false);
  Choices choices = everywhere(problems_of(two), "winograd f4");
  choices.merge(everywhere(problems_of(three), "winograd f4"));
  Session session(make_backend("cpu", 1));
  session.backend().adopt(choices);
  Program& first = compile(session, two);
  const size_t held = session.held_bytes();
  compile(session, three);
  EXPECT_EQ(session.held_bytes(), held) << "one form for both";
  Rng rng(4);
  const Tensors leaves = conv_leaves(c, rng);
  const Tensor expected = run(session, first, leaves).at("y");
  const size_t before = session.state_bytes();
  EXPECT_TRUE(session.keep_packed_only("w"));
  EXPECT_EQ(before - session.state_bytes(), size_t{32 * 32 * 9} * sizeof(float));
  EXPECT_THROW(session.read_state("w"), InternalError);
  first.set_input("x", leaves.at("x"));
  first.run();
  EXPECT_EQ(first.output("y"), expected);
  session.backend().adopt(everywhere(problems_of(three), "direct"));
  EXPECT_THROW(compile(session, three), InternalError) << "it would read what is gone";
  // Written again it is there again, and is packed anew.
  session.write_state("w", leaves.at("w"));
  EXPECT_EQ(session.read_state("w"), leaves.at("w"));
  const Tensors others = conv_leaves(c, rng);
  EXPECT_NE(run(session, first, others).at("y"), expected);
  EXPECT_EQ(run(session, first, leaves).at("y"), expected);
}

TEST_F(CpuConvolution, PackedWeightsAreHeldFromTheStart) {
  ConvCase c{.x = {2, 32, 8, 8}, .w = {32, 32, 3, 3}, .attrs = {.pad = {1, 1}}, .y = {}};
  ASSERT_TRUE(set_output_shape(c));
  const BuildGraph build = fused_conv(c, false, false);
  Session session(make_backend("cpu", 1));
  session.backend().adopt(everywhere(problems_of(build), "winograd f4"));
  Program& program = compile(session, build);
  const size_t held = session.held_bytes();
  EXPECT_GE(held, size_t{36} * 32 * 32 * sizeof(float)) << "six by six points for each pair of channels";
  program.run();
  EXPECT_EQ(session.held_bytes(), held);
}

TEST_F(CpuConvolution, ATrainingStepConvertsNoActivation) {
  const int onednn_block = onednn_has_winograd() ? 16 : 8;  // both come with AVX-512
  if (channel_block(detected_isa()) != onednn_block)
    GTEST_SKIP() << "our kernels have other blocks of channels here than oneDNN's, which asks the processor alone";
  for (const char* algorithms : {"direct", "auto"}) {
    ScopedEnvironment environment("RESNET_CONV_ALGORITHM", algorithms);
    Session session(make_backend("cpu", 1));
    const Program& program = session.compile(make_training_step(
        find_model("lecture_resnet18"), {.model = {}, .images = {2, 1, 96, 96}, .momentum = 0.9, .passes = {}}));
    int convolutions = 0;
    for (const Step& step : program.plan().steps) {
      const Node& node = program.graph().node(step.node);
      const std::string algorithm = step.kernel->algorithm();
      convolutions += node.op->name.starts_with("conv2d");
      // The image as it was fed lies between no convolutions; only the stem reads it.
      const bool image = !node.inputs.empty() && program.graph().node(node.inputs[0]).kind == NodeKind::input;
      EXPECT_TRUE(image || algorithm.find(" +x") == std::string::npos)
          << node.op->name << " " << node.name << ": " << algorithm;
      EXPECT_EQ(algorithm.find(" +y"), std::string::npos) << node.op->name << " " << node.name << ": " << algorithm;
    }
    EXPECT_EQ(convolutions, 20 + 20 + 19) << "the stem has no input gradient";
  }
}

int64_t threads_of_this_process() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
}

TEST_F(CpuConvolution, EachBackendKeepsToItsOwnThreadsWhereverItsProgramsRun) {
  if (omp_get_thread_limit() < 3) GTEST_SKIP() << "OMP_THREAD_LIMIT leaves no three threads";
  ScopedEnvironment direct("RESNET_CONV_ALGORITHM", "direct");
  ConvCase c{.x = {4, 32, 24, 24}, .w = {32, 32, 3, 3}, .attrs = {.pad = {1, 1}}, .y = {}};
  ASSERT_TRUE(set_output_shape(c));
  const BuildGraph builds[] = {
      fused_conv(c, false, false), [](Graph& g) {
        g.set_output("y", linear(g.input("x", f32_type({64, 128})), g.state("w", f32_type({96, 128}), {}, true), {}));
      }};
  for (const BuildGraph& build : builds) {
    Session one(make_backend("cpu", 1)), three(make_backend("cpu", 3));
    Program* programs[] = {&compile(one, build), &compile(three, build)};
    for (int i : {0, 1, 0}) {
      const int threads = i == 0 ? 1 : 3;
      int asked_for = 0;
      int64_t started = 0;
      // A new thread has OpenMP's defaults and no team yet.
      std::thread([&] {
        const int64_t before = threads_of_this_process();
        programs[i]->run();
        asked_for = omp_get_max_threads();
        started = threads_of_this_process() - before;
      }).join();
      EXPECT_EQ(asked_for, threads) << "what oneDNN goes by";
      EXPECT_LT(started, threads);
    }
  }
}

// --- the other ops -----------------------------------------------------------------------------------------------

/// Draws `cases` graphs with their leaves, runs each on both backends with 1 and 2 threads in turn.
void check_exact(int cases, const std::function<std::pair<BuildGraph, Tensors>(Rng&)>& draw) {
  Comparison compare;
  for (uint64_t seed = 0; seed < static_cast<uint64_t>(cases); ++seed) {
    Rng rng(mix(seed));
    const auto [build, leaves] = draw(rng);
    compare.expect(run_on("cpu", threads_of(seed), build, leaves), run_on("reference", 1, build, leaves),
                   fmt::format("seed {}", seed));
  }
}

TEST(CpuBackend, ElementwiseOpsAreExact) {
  check_exact(20, [](Rng& rng) {
    const Shape s = rng.below(4) == 0 ? Shape{draw_between(rng, 1, 9), draw_channels(rng)} : draw_maps(rng);
    const BuildGraph build = [s](Graph& g) {
      const Value a = g.input("a", f32_type(s)), b = g.input("b", f32_type(s)), dy = g.input("dy", f32_type(s));
      const Value sum = a + b;
      const Value y = relu(sum);
      const std::pair<Value, Value> seed{y, dy};
      const std::vector<Value> wrt{a};
      g.set_output("sum", sum);
      g.set_output("y", y);
      g.set_output("da", gradients(g, std::span(&seed, 1), wrt)[0]);
    };
    return std::pair{
        build,
        Tensors{{"a", random_integers(s, rng)}, {"b", random_integers(s, rng)}, {"dy", random_integers(s, rng)}}};
  });
}

PoolAttrs draw_pool(Rng& rng, const Shape& x) {
  PoolAttrs a;
  a.kernel = {draw_between(rng, 1, std::min<int64_t>(5, x[2])), draw_between(rng, 1, std::min<int64_t>(5, x[3]))};
  a.stride = {draw_between(rng, 1, 3), draw_between(rng, 1, 3)};
  a.pad = {draw_between(rng, 0, a.kernel.h / 2), draw_between(rng, 0, a.kernel.w / 2)};
  return a;
}

/// An op on maps and its gradient against a fed cotangent.
std::pair<BuildGraph, Tensors> pool_case(Rng& rng, const Shape& x, const std::function<Value(Value)>& op) {
  Graph shapes;
  const Shape y = op(shapes.input("x", f32_type(x))).shape();
  const BuildGraph build = [=](Graph& g) {
    const Value in = g.input("x", f32_type(x));
    const Value out = op(in);
    const std::pair<Value, Value> seed{out, g.input("dy", f32_type(y))};
    const std::vector<Value> wrt{in};
    for (size_t i = 0; i < g.node(out).outputs.size(); ++i) {
      g.set_output("y" + std::to_string(i), {&g, out.node, static_cast<int32_t>(i)});
    }
    g.set_output("dx", gradients(g, std::span(&seed, 1), wrt)[0]);
  };
  return {build, {{"x", random_integers(x, rng)}, {"dy", random_integers(y, rng)}}};
}

TEST(CpuBackend, MaxPoolAndItsGradientAreExactWithTies) {
  check_exact(40, [](Rng& rng) {
    const Shape x = draw_maps(rng);
    const PoolAttrs a = draw_pool(rng, x);
    return pool_case(rng, x, [a](Value v) { return max_pool(v, a); });
  });
}

TEST(CpuBackend, MaxPoolGivesTheLastNaNOfAWindowTheGradient) {
  int64_t nans = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Rng rng(mix(seed));
    const Shape x = draw_maps(rng);
    const PoolAttrs a = draw_pool(rng, x);
    auto [build, leaves] = pool_case(rng, x, [a](Value v) { return max_pool(v, a); });
    for (float& v : leaves.at("x").as<float>()) {
      if (rng.below(2) == 0) v = std::numeric_limits<float>::quiet_NaN();
    }
    const Tensors actual = run_on("cpu", threads_of(seed), build, leaves);
    const Tensors expected = run_on("reference", 1, build, leaves);
    EXPECT_EQ(actual.at("y1"), expected.at("y1")) << "the index, seed " << seed;
    EXPECT_EQ(values<float>(actual.at("dx")), values<float>(expected.at("dx"))) << "seed " << seed;
    for (float v : expected.at("y0").as<float>()) nans += std::isnan(v);
  }
  EXPECT_GT(nans, 500);
}

TEST(CpuBackend, MaxPoolWritesItsIndexOnlyWhereSomebodyReadsIt) {
  for (const bool read : {false, true}) {
    const BuildGraph build = [read](Graph& g) {
      const Value y = max_pool(g.input("x", f32_type({1, 3, 6, 6})), {.kernel = {3, 3}, .stride = {2, 2}});
      g.set_output("y", y);
      if (read) g.set_output("index", g.value(y.node, 1));
    };
    Session session(make_backend("cpu", 1));
    EXPECT_EQ(steps_with(compile(session, build), "without index"), read ? 0 : 1);
    Rng rng(3);
    const Tensors leaves{{"x", random_integers({1, 3, 6, 6}, rng)}};
    EXPECT_EQ(run_on("cpu", 1, build, leaves), run_on("reference", 1, build, leaves));
  }
}

TEST(CpuBackend, AveragePoolsRoundOnce) {
  Comparison compare;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Rng rng(mix(seed));
    const Shape x = draw_maps(rng);
    PoolAttrs a = draw_pool(rng, x);
    a.count_include_pad = rng.below(2) == 0;
    a.ceil_mode = rng.below(2) == 0;
    const bool global = seed % 4 == 0;
    const auto [build, leaves] =
        pool_case(rng, x, [&](Value v) { return global ? global_avg_pool(v) : avg_pool(v, a); });
    const Tensors sums = run_on("reference", 1, build, absolute(leaves));
    // Whole numbers add exactly; the reciprocal, the product and (gradient) one sum a window of rounded terms remain.
    const double terms = global ? 1 : static_cast<double>(a.kernel.h * a.kernel.w);
    compare.expect(run_on("cpu", threads_of(seed / 4), build, leaves), run_on("reference", 1, build, leaves),
                   fmt::format("seed {}: {} {}", seed, x.str(), to_string(Attributes{a})),
                   [&](const std::string& name, size_t i) {
                     return (3 + terms) * kEps * static_cast<double>(sums.at(name).as<float>()[i]);
                   });
  }
}

TEST(CpuBackend, BlurPoolAndItsGradientAreExact) {
  check_exact(30, [](Rng& rng) {  // weights are powers of two
    Shape x = draw_maps(rng);
    x[2] += 1;
    x[3] += 1;
    const int64_t stride = draw_between(rng, 1, 3);
    return pool_case(rng, x, [stride](Value v) { return blur_pool(v, stride); });
  });
}

/// y = op(a, b) and both gradients against a fed cotangent.
std::pair<BuildGraph, Tensors> binary_case(Rng& rng, const Shape& a, const Shape& b,
                                           const std::function<Value(Value, Value)>& op) {
  const BuildGraph build = [=](Graph& g) {
    const Value left = g.input("a", f32_type(a)), right = g.input("b", f32_type(b));
    const Value y = op(left, right);
    const std::pair<Value, Value> seed{y, g.input("dy", y.type())};
    const std::vector<Value> wrt{left, right};
    const std::vector<Value> d = gradients(g, std::span(&seed, 1), wrt);
    g.set_output("y", y);
    g.set_output("da", d[0]);
    g.set_output("db", d[1]);
  };
  return {build, {{"a", random_integers(a, rng)}, {"b", random_integers(b, rng)}, {"dy", random_integers(a, rng)}}};
}

TEST(CpuBackend, ScalesAndTheirGradientsAreExact) {
  check_exact(40, [](Rng& rng) {
    const Shape x = draw_maps(rng);
    const Shape s = rng.below(2) == 0 ? Shape{x[0], x[1], 1, 1} : Shape{x[0]};
    return binary_case(rng, x, s, [](Value a, Value b) { return scale(a, b); });
  });
}

TEST(CpuBackend, ConvolutionsAlongChannelsAreExact) {
  check_exact(60, [](Rng& rng) {
    const Shape x{draw_between(rng, 1, 9), draw_channels(rng), 1, 1}, w{1, 1, pick(rng, {1, 3, 5, 7})};
    return binary_case(rng, x, w, [](Value a, Value b) { return channel_conv(a, b); });
  });
}

TEST(CpuBackend, SigmoidAndItsGradientStayWithinRounding) {
  Comparison compare;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Rng rng(mix(seed));
    const Shape s = seed % 3 == 0 ? Shape{draw_between(rng, 1, 9), draw_channels(rng)} : draw_maps(rng);
    const BuildGraph build = [s](Graph& g) {
      const Value x = g.input("x", f32_type(s));
      const Value y = sigmoid(x);
      const std::pair<Value, Value> back{y, g.input("dy", f32_type(s))};
      const std::vector<Value> wrt{x};
      g.set_output("y", y);
      g.set_output("dx", gradients(g, std::span(&back, 1), wrt)[0]);
    };
    const Tensors leaves{{"x", random_floats(s, rng, -9, 9)}, {"dy", random_floats(s, rng)}};
    // exp(-x) has an ulp, the sum and the quotient half of one each; dx rounds y, 1 - y (which may cancel) and twice
    // more.
    compare.expect(run_on("cpu", threads_of(seed), build, leaves), run_on("reference", 1, build, leaves),
                   fmt::format("seed {}", seed), [](const std::string&, size_t) { return 4 * kEps; });
  }
}

TEST(CpuBackend, PaddingAndSlicingChannelsAndTheirGradientsAreExact) {
  check_exact(60, [](Rng& rng) {
    Shape x = draw_maps(rng);
    // Within a block, whole blocks, a block and a bit; half a block is what the CIFAR nets pad by.
    const ChannelPadAttrs a{.before = pick(rng, {0, 1, 3, 4, 8, 16, 17}), .after = pick(rng, {0, 2, 8, 13, 16})};
    if (rng.below(2) == 0) return pool_case(rng, x, [a](Value v) { return pad_channels(v, a); });
    x[1] += a.before + a.after;
    return pool_case(rng, x, [a](Value v) { return slice_channels(v, a); });
  });
}

TEST(CpuBackend, EverySecondPixelIsTakenExactly) {
  check_exact(20, [](Rng& rng) {
    return pool_case(rng, draw_maps(rng), [](Value v) { return avg_pool(v, {.kernel = {1, 1}, .stride = {2, 2}}); });
  });
}

TEST(CpuBackend, NormsOfEveryLayoutAreExactOnWholeNumbers) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Rng rng(mix(seed));
    const Shape map = draw_maps(rng), matrix{draw_between(rng, 1, 3), pick(rng, {1, 17, 5000, 20000})};
    const Shape filters{draw_channels(rng), draw_channels(rng), pick(rng, {1, 3}), pick(rng, {1, 3})};
    const BuildGraph build = [=](Graph& g) {
      const Value x = g.input("x", f32_type(map)), w = g.state("w", f32_type(filters), {}, true);
      g.set_output("map", l2_norm(x));
      g.set_output("summed map", l2_norm(x + x));
      g.set_output("filters", l2_norm(w));
      g.set_output("matrix", l2_norm(g.input("m", f32_type(matrix))));
      g.set_output("vector", l2_norm(g.state("v", f32_type({map[1]}), {}, true)));
      g.set_output("scalar", l2_norm(g.input("s", f32_type({}))));
    };
    const Tensors leaves{{"x", random_integers(map, rng, 9)},
                         {"w", random_integers(filters, rng, 9)},
                         {"m", random_integers(matrix, rng, 9)},
                         {"v", random_integers({map[1]}, rng, 9)},
                         {"s", f32_scalar(-3)}};
    const Tensors expected = run_on("reference", 1, build, leaves);
    EXPECT_EQ(run_on("cpu", threads_of(seed), build, leaves), expected) << "seed " << seed << ": " << map.str();
    EXPECT_EQ(expected.at("scalar").as<float>()[0], 3);
    double squares = 0;
    for (float v : leaves.at("w").as<float>()) squares += static_cast<double>(v) * static_cast<double>(v);
    EXPECT_EQ(expected.at("filters").as<float>()[0], static_cast<float>(std::sqrt(squares)));
  }
}

TEST(CpuBackend, LinearAndItsGradientsAreExact) {
  check_exact(30, [](Rng& rng) {
    const int64_t n = draw_between(rng, 1, 9), in = pick(rng, {1, 3, 17, 64, 100}), out = pick(rng, {1, 2, 10, 33});
    const bool bias = rng.below(2) == 0;
    const BuildGraph build = [=](Graph& g) {
      const Value x = g.input("x", f32_type({n, in}));
      const Value w = g.state("w", f32_type({out, in}), {}, true);
      const Value b = bias ? g.state("b", f32_type({out}), {}, true) : Value{};
      const Value y = linear(x, w, b);
      const std::pair<Value, Value> seed{y, g.input("dy", f32_type({n, out}))};
      std::vector<Value> wrt{x, w};
      if (bias) wrt.push_back(b);
      const std::vector<Value> d = gradients(g, std::span(&seed, 1), wrt);
      g.set_output("y", y);
      g.set_output("dx", d[0]);
      g.set_output("dw", d[1]);
      if (bias) g.set_output("db", d[2]);
    };
    return std::pair{build, Tensors{{"x", random_integers({n, in}, rng)},
                                    {"w", random_integers({out, in}, rng)},
                                    {"b", random_integers({out}, rng)},
                                    {"dy", random_integers({n, out}, rng)}}};
  });
}

TEST(CpuBackend, ChannelSumsReshapesAndFillsAreExact) {
  check_exact(20, [](Rng& rng) {
    const Shape s = draw_maps(rng);
    const BuildGraph build = [s](Graph& g) {
      const Value x = g.input("x", f32_type(s));
      const Value flat = flatten(x);
      g.set_output("channels", channel_sum(x));
      g.set_output("flat", flat);
      g.set_output("columns", channel_sum(flat));
      g.set_output("back", reshape(flat, s));
      g.set_output("other", reshape(flat, {s.elements(), 1}));
      g.set_output("zero", fill(g, f32_type(s), 0) + x);
      g.set_output("seven", fill(g, f32_type({s[1], s[0]}), 7));
    };
    return std::pair{build, Tensors{{"x", random_integers(s, rng)}}};
  });
}

TEST(CpuBackend, UpdatesAreExactAndDoNothingWhenTheLossIsNotFinite) {
  for (const float loss : {1.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    check_exact(12, [loss](Rng& rng) {
      // A weight of a convolution (blocked), one of a stem (row-major) and a vector.
      const Shape s =
          pick(rng, {0, 1}) == 0 ? Shape{draw_channels(rng), draw_channels(rng), 3, 3} : Shape{draw_channels(rng)};
      const double momentum = rng.below(2) == 0 ? 0 : 0.5;
      const bool nesterov = momentum > 0 && rng.below(2) == 0;
      const double decay = rng.below(2) == 0 ? 0 : 0.25;
      const BuildGraph build = [=](Graph& g) {
        const Value p = g.state("p", f32_type(s), {}, true);
        const Value grad = g.state("grad", f32_type(s), {}, false);
        const Value guard = g.input("guard", f32_type({})), lr = g.input("lr", f32_type({}));
        const Value buffer = momentum > 0 ? g.state("buffer", f32_type(s), {}, false) : Value{};
        const SgdUpdateResult r =
            sgd_update(p, grad, lr, guard, buffer, {.momentum = momentum, .weight_decay = decay, .nesterov = nesterov});
        g.assign(p, r.param);
        if (buffer) g.assign(buffer, r.buffer);
        const Value mean = g.state("mean", f32_type({5}), {}, false);
        g.assign(mean, running_average(mean, g.input("batch", f32_type({5})), guard, {.momentum = 0.25, .scale = 2}));
      };
      Tensors leaves{{"p", random_integers(s, rng)},       {"grad", random_integers(s, rng)},
                     {"buffer", random_integers(s, rng)},  {"mean", random_integers({5}, rng)},
                     {"batch", random_integers({5}, rng)}, {"lr", f32_scalar(0.5)},
                     {"guard", f32_scalar(loss)}};
      const Tensors after = run_on("reference", 1, build, leaves);
      EXPECT_EQ(after.at("p") == leaves.at("p"), !std::isfinite(loss));
      return std::pair{build, leaves};
    });
  }
}

TEST(CpuBackend, ARunningAverageOfWeightsCoversTheirPaddedBlocks) {
  check_exact(4, [](Rng& rng) {
    const Shape s{17, 33, 3, 3};
    const BuildGraph build = [s](Graph& g) {
      const Value mean = g.state("mean", f32_type(s), {}, false);
      g.assign(mean, running_average(mean, g.state("batch", f32_type(s), {}, false), g.input("guard", f32_type({})),
                                     {.momentum = 0.25, .scale = 2}));
    };
    return std::pair{
        build,
        Tensors{{"mean", random_integers(s, rng)}, {"batch", random_integers(s, rng)}, {"guard", f32_scalar(1)}}};
  });
}

TEST(CpuBackend, BatchNormAndItsGradientStayWithinRounding) {
  Comparison compare;
  for (uint64_t seed = 0; seed < 64; ++seed) {
    Rng rng(mix(seed));
    Shape s = draw_maps(rng);
    if (s[0] * s[2] * s[3] < 4) s[2] = 5;
    // After a linear layer; 300 rows are summed in two parts.
    if (seed >= 40) s = {pick(rng, {4, 9, 33, 300}), pick(rng, {16, 32, 48, 128})};
    const bool training = seed % 2 == 0, activated = rng.below(2) == 0, residual = rng.below(2) == 0;
    const BuildGraph build = [=](Graph& g) {
      const Value x = g.input("x", f32_type(s));
      const Value gamma = g.state("gamma", f32_type({s[1]}), {}, true),
                  beta = g.state("beta", f32_type({s[1]}), {}, true);
      const BatchNormAttrs attrs{.training = training, .residual = residual, .relu = activated};
      std::vector<Value> in{x, gamma, beta};
      if (!training)
        in.insert(in.end(),
                  {g.state("mean", f32_type({s[1]}), {}, false), g.state("var", f32_type({s[1]}), {}, false)});
      if (residual) in.push_back(g.input("r", f32_type(s)));
      const Value y = g.add(training ? kBatchNorm : kBatchNormInference, in, attrs, "bn");
      const std::pair<Value, Value> back{y, g.input("dy", f32_type(s))};
      std::vector<Value> wrt{x, gamma, beta};
      if (residual) wrt.push_back(in.back());
      const std::vector<Value> d = gradients(g, std::span(&back, 1), wrt);
      const char* names[] = {"dx", "dgamma", "dbeta", "dr"};
      for (size_t i = 0; i < d.size(); ++i) g.set_output(names[i], d[i]);
      for (size_t i = 0; i < g.node(y).outputs.size(); ++i)
        g.set_output("y" + std::to_string(i), {&g, y.node, static_cast<int32_t>(i)});
    };
    Tensors leaves{{"x", random_floats(s, rng, -1, 2)},
                   {"r", random_floats(s, rng)},
                   {"dy", random_floats(s, rng)},
                   {"gamma", random_floats({s[1]}, rng, 0.5, 1.5)},
                   {"beta", random_floats({s[1]}, rng)},
                   {"mean", random_floats({s[1]}, rng, 0, 1)},
                   {"var", random_floats({s[1]}, rng, 0.5, 1.5)}};
    const Tensors expected = run_on("reference", 1, build, leaves);
    // |x| <= 2, |dy| <= 1, gamma <= 1.5: what is normalised is at most 3 * inverse deviation, and each step rounds
    // once. The gradient multiplies two normalised values and the inverse deviation; sums over n values grow with n.
    double inverse = 0;
    const Tensor& var = training ? expected.at("y2") : leaves.at("var");
    for (float v : var.as<float>()) inverse = std::max(inverse, 1 / std::sqrt(static_cast<double>(v) + 1e-5));
    const double n = static_cast<double>(s.elements() / s[1]);
    const double x_hat = 3 * inverse;
    const auto bound = [&](const std::string& name, size_t) {
      if (name == "dr") return 0.0;
      if (name == "dgamma" || name == "dbeta") return 8 * kEps * n * (1 + x_hat * x_hat);
      if (name == "dx") return 16 * kEps * 1.5 * inverse * (2 + x_hat * x_hat);
      return 8 * kEps * (2 + 1.5 * x_hat);
    };
    compare.expect(
        run_on("cpu", threads_of(seed / 2), build, leaves), expected,
        fmt::format("seed {}: {} training {} relu {} residual {}", seed, s.str(), training, activated, residual),
        bound);
  }
}

TEST(CpuBackend, LossAndItsGradientStayWithinRounding) {
  Comparison compare;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    Rng rng(mix(seed));
    const int64_t n = draw_between(rng, 1, 20), classes = pick(rng, {2, 3, 10, 33, 100});
    const double smoothing = rng.below(2) == 0 ? 0 : 0.1;
    const double spread = rng.below(3) == 0 ? 80 : 4;
    Tensor labels(DType::i32, Shape{n});
    for (int32_t& label : labels.as<int32_t>()) label = static_cast<int32_t>(rng.below(static_cast<uint64_t>(classes)));
    const BuildGraph build = [=](Graph& g) {
      const Value logits = g.input("logits", f32_type({n, classes}));
      const SoftmaxCrossEntropyResult r =
          softmax_cross_entropy(logits, g.input("labels", {DType::i32, Shape{n}}), smoothing);
      const std::vector<Value> wrt{logits};
      g.set_output("loss", r.loss);
      g.set_output("p", r.probabilities);
      g.set_output("correct", r.correct);
      g.set_output("dlogits", gradients(r.loss, wrt)[0]);
    };
    const Tensors leaves{{"logits", random_floats({n, classes}, rng, -spread, spread)}, {"labels", labels}};
    // exp(a - b) with |a - b| <= 2 * spread is off by that many eps (the difference is rounded); the sums stay below.
    const auto bound = [&](const std::string& name, size_t) {
      if (name == "correct") return 0.0;
      return (8 + 2 * spread) * kEps * (name == "loss" ? 2 * spread + std::log(static_cast<double>(classes)) : 1.0);
    };
    compare.expect(run_on("cpu", threads_of(seed), build, leaves), run_on("reference", 1, build, leaves),
                   fmt::format("seed {}", seed), bound);
  }
}

// --- what it cannot do -------------------------------------------------------------------------------------------

TEST(CpuBackend, DoublePrecisionIsRefusedNamingOpAndBackend) {
  const Shape s{2, 3, 8, 8};
  const std::map<std::string, std::function<Value(Graph&, Value)>> ops = {
      {"conv2d 'layer'",
       [](Graph& g, Value x) {
         return conv2d(x, g.state("w", f64_type({4, 3, 3, 3}), {}, true), {}, {}, "layer");
       }},
      {"relu 'layer'", [](Graph&, Value x) { return relu(x, "layer"); }},
      {"max_pool 'layer'",
       [](Graph&, Value x) {
         return max_pool(x, {.kernel = {2, 2}}, "layer");
       }},
      {"reshape 'layer'", [](Graph&, Value x) { return flatten(x, "layer"); }},
      {"fill 'layer'", [](Graph& g, Value) { return fill(g, f64_type({2}), 0, "layer"); }},
      {"global_avg_pool 'layer'", [](Graph&, Value x) { return global_avg_pool(x, "layer"); }}};
  for (const auto& [who, op] : ops) {
    expect_user_error(
        [&, &op = op] { run_on("cpu", 1, [&](Graph& g) { g.set_output("y", op(g, g.input("x", f64_type(s)))); }, {}); },
        {"backend 'cpu'", who, "f64", "--backend reference"});
  }
}

TEST(CpuBackend, WhatItHasNoKernelForIsRefusedWithAReason) {
  expect_user_error(
      [&] {
        run_on("cpu", 1,
               [](Graph& g) {
                 g.set_output("y", reshape(relu(g.input("x", f32_type({2, 3, 4, 4}))), {2, 4, 3, 4}, "r"));
               },
               {});
      },
      {"reshape 'r'", "rank 4"});
  // Blocks of weights, and blocks of what is not f32.
  expect_user_error(
      [&] {
        run_on("cpu", 1,
               [](Graph& g) {
                 g.set_output("y", reshape(g.state("w", f32_type({33, 17, 3, 3}), {}, true), {33, 153}, "r"));
               },
               {});
      },
      {"reshape 'r'", "weight", "OIhw"});
  expect_user_error(
      [&] {
        run_on("cpu", 1,
               [](Graph& g) {
                 const Value y = max_pool(g.input("x", f32_type({2, 3, 4, 4})), {.kernel = {2, 2}});
                 g.set_output("y", flatten(g.value(y.node, 1), "r"));
               },
               {});
      },
      {"reshape 'r'", "u8", "f32"});
  expect_user_error(
      [&] {
        run_on("cpu", 1,
               [](Graph& g) {
                 g.set_output("y", reshape(g.input("x", {DType::i32, Shape{4, 12}}), {4, 3, 2, 2}, "r"));
               },
               {});
      },
      {"reshape 'r'", "i32", "f32"});
  expect_user_error(
      [&] {
        run_on("cpu", 1, [](Graph& g) { g.set_output("y", fill(g, {DType::i32, Shape{4}}, 7, "sevens")); }, {});
      },
      {"fill 'sevens'", "i32", "f32"});
  expect_user_error(
      [&] {
        run_on("cpu", 1,
               [](Graph& g) {
                 const Value w = g.state("w", f32_type({33, 17, 3, 3}), {}, false);
                 g.assign(w, running_average(w, g.input("batch", w.type()), g.input("guard", f32_type({})), {}, "w"));
               },
               {});
      },
      {"running_average 'w'", "laid out"});
  expect_user_error(
      [&] {
        run_on("cpu", 1,
               [](Graph& g) {
                 const Value x = g.input("x", f32_type({8, 3}));
                 g.set_output("y", batch_norm_training(x, g.state("gamma", f32_type({3}), {}, true),
                                                       g.state("beta", f32_type({3}), {}, true), 1e-5, "bn")
                                       .y);
               },
               {});
      },
      {"batch_norm 'bn'", "rank 2 with 3 channels", "multiple of"});
  expect_user_error(
      [&] {
        run_on("cpu", 1, [](Graph& g) { g.set_output("y", fill(g, f32_type({1, 3, 2, 2}), 1, "ones")); }, {});
      },
      {"fill 'ones'", "padded"});
  // The gradient of a weight that nothing reads is a fill in another layout than the weight's.
  expect_user_error(
      [&] {
        run_on("cpu", 1,
               [](Graph& g) {
                 const Value w = g.state("w", f32_type({33, 17, 3, 3}), {}, true);
                 g.assign(w, sgd_update(w, fill(g, w.type(), 0), g.input("lr", f32_type({})),
                                        g.input("guard", f32_type({})), {}, {}, "w")
                                 .param);
               },
               {});
      },
      {"sgd_update 'w'", "gradient", "laid out"});
}

TEST(CpuBackend, WarnsOnceOfACacheThatCannotBeWritten) {
  TemporaryDirectory directory;
  put(directory / "file", "");
  ScopedEnvironment environment("XDG_CACHE_HOME", directory / "file");
  ConvCase c{.x = {1, 16, 5, 5}, .w = {16, 16, 3, 3}, .attrs = {}, .y = {}};
  ASSERT_TRUE(set_output_shape(c));
  Session session(make_backend("cpu", 1));
  compile(session, training_conv(c));
  const std::vector<std::string> warnings = session.backend().take_warnings();
  ASSERT_EQ(warnings.size(), 1u);
  for (const std::string& part : {directory / "file", std::string("XDG_CACHE_HOME"), std::string("Not a directory")}) {
    EXPECT_NE(warnings[0].find(part), std::string::npos) << warnings[0];
  }
  EXPECT_TRUE(session.backend().take_warnings().empty());
}

TEST(CpuBackend, UnknownNamesInTheEnvironmentAndBackendsAreUsageErrors) {
  ScopedEnvironment environment("RESNET_CONV_ALGORITHM", "fft");
  expect_user_error([] { make_backend("cpu", 1); }, {"RESNET_CONV_ALGORITHM", "fft", "winograd"});
  expect_user_error([] { make_backend("cup", 1); }, {"cup", "cpu"});
}

}  // namespace
}  // namespace resnet
