// The 8-bit ops of the cpu backend give the reference loops' bytes, whatever makes the sums.

#include <gtest/gtest.h>

#include <limits>

#include "backends/cpu/simd/isa.h"
#include "ops/quantize.h"
#include "ops/quantized_conv2d.h"
#include "ops/quantized_pool.h"
#include "runtime/on_backend.h"

namespace resnet {
namespace {

using namespace testing;

int64_t pick(Rng& rng, std::initializer_list<int64_t> values) { return values.begin()[rng.below(values.size())]; }
int64_t between(Rng& rng, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(rng.below(static_cast<uint64_t>(high - low + 1)));
}

Tensor random_bytes(DType dtype, const Shape& shape, Rng& rng) {
  Tensor result(dtype, shape);
  for (int64_t i = 0; i < result.elements(); ++i) result.data()[i] = static_cast<std::byte>(rng.below(256));
  return result;
}

struct Case {
  Shape x, w, y;
  QuantizedConv2dAttrs attrs;
  DType residual = DType::u8;

  std::string str() const {
    return x.str() + " * " + w.str() + " " + to_string(Attributes{attrs}) + " residual " + name_of(residual);
  }
};

/// Sizes of one pixel to 57, channels that fill no register, every stride, padding and batch.
Case draw(Rng& rng) {
  while (true) {
    Case c;
    const int64_t groups = rng.below(4) > 0 ? 1 : pick(rng, {2, 3, 5});
    const int64_t kernel = pick(rng, {1, 3, 3, 3, 5, 7});
    const bool large = rng.below(8) == 0;
    const int64_t side = large ? pick(rng, {28, 56, 57}) : between(rng, 1, 13);
    c.x = {large ? 1 : between(rng, 1, 9),
           groups * (large ? between(rng, 1, 20) : pick(rng, {1, 3, 7, 16, 17, 35, 64})), side,
           rng.below(2) == 0 ? side : between(rng, 1, 13)};
    c.w = {groups * pick(rng, {1, 3, 8, 15, 16, 17, 33}), c.x[1] / groups, kernel, kernel};
    Conv2dAttrs& a = c.attrs.conv;
    a.groups = groups;
    const int64_t stride = kernel == 3 && rng.below(2) == 0 ? 1 : between(rng, 1, 3);
    a.stride = {stride, rng.below(4) > 0 ? stride : between(rng, 1, 2)};
    a.pad = {between(rng, 0, 3), between(rng, 0, 3)};
    if (rng.below(5) == 0) a.dilation = {2, between(rng, 1, 2)};
    a.residual = rng.below(2) == 0;
    a.relu = rng.below(2) == 0;
    c.attrs.output = rng.below(3) == 0 ? DType::i8 : DType::u8;
    c.residual = rng.below(2) == 0 ? DType::i8 : DType::u8;
    const auto out = [](int64_t size, int64_t pad, int64_t dilation, int64_t k, int64_t s) {
      const int64_t room = size + 2 * pad - dilation * (k - 1) - 1;
      return room < 0 ? int64_t{0} : room / s + 1;
    };
    c.y = {c.x[0], c.w[0], out(c.x[2], a.pad.h, a.dilation.h, kernel, a.stride.h),
           out(c.x[3], a.pad.w, a.dilation.w, kernel, a.stride.w)};
    if (c.y[2] > 0 && c.y[3] > 0) return c;
  }
}

Tensors leaves_of(const Case& c, Rng& rng) {
  Tensors leaves;
  leaves["x"] = random_bytes(DType::u8, c.x, rng);
  leaves["w"] = random_bytes(DType::i8, c.w, rng);
  if (rng.below(2) == 0) {  // so small that bytes may be added in pairs at 16 bits
    for (int8_t& v : leaves["w"].as<int8_t>()) v = static_cast<int8_t>(v / 2);
  }
  const double spread = 60.0 / (128.0 * 74 * std::sqrt(static_cast<double>(c.w[1] * c.w[2] * c.w[3])));
  leaves["multiplier"] = random_floats({c.w[0]}, rng, spread / 2, spread);
  leaves["offset"] = random_floats({c.w[0]}, rng, -50, 150);
  leaves["padding"] = random_bytes(DType::u8, {c.x[1]}, rng);
  if (c.attrs.conv.residual) {
    leaves["residual"] = random_bytes(c.residual, c.y, rng);
    leaves["residual_multiplier"] = random_floats({1}, rng, 0.1, 0.9);
  }
  return leaves;
}

/// The input comes through a pooling of one pixel, so that the backend lays it out as it likes.
Value laid_out(Graph& g, const std::string& name, const TensorType& type) {
  return g.add(kQuantizedMaxPool, {g.input(name, type)}, PoolAttrs{});
}

BuildGraph graph_of(const Case& c) {
  return [c](Graph& g) {
    const auto f32_state = [&](const char* name, const Shape& shape) {
      return g.state(name, {DType::f32, shape}, {}, false);
    };
    std::vector<Value> inputs = {laid_out(g, "x", {DType::u8, c.x}), g.state("w", {DType::i8, c.w}, {}, false),
                                 f32_state("multiplier", {c.w[0]}), f32_state("offset", {c.w[0]}),
                                 g.state("padding", {DType::u8, {c.x[1]}}, {}, false)};
    if (c.attrs.conv.residual) {
      inputs.push_back(laid_out(g, "residual", {c.residual, c.y}));
      inputs.push_back(f32_state("residual_multiplier", {1}));
    }
    g.set_output("y", g.add(kQuantizedConv2d, inputs, c.attrs));
  };
}

/// Every byte equal to the reference's, under one setting of the environment.
void expect_reference_bytes(uint64_t first_seed, int cases) {
  int64_t inside = 0, all = 0;  // results that were not cut off at either end
  for (uint64_t seed = first_seed; seed < first_seed + static_cast<uint64_t>(cases); ++seed) {
    Rng rng(mix(seed));
    const Case c = draw(rng);
    const Tensors leaves = leaves_of(c, rng);
    const Tensors want = run_on("reference", 1, graph_of(c), leaves);
    const Tensors got = run_on("cpu", 1 + static_cast<int>(seed % 2), graph_of(c), leaves);
    ASSERT_EQ(got.at("y"), want.at("y")) << "seed " << seed << ": " << c.str();
    const Tensor& y = want.at("y");
    for (int64_t i = 0; i < y.elements(); ++i) {
      const int v = y.dtype() == DType::u8 ? int{y.as<uint8_t>()[static_cast<size_t>(i)]}
                                           : int{y.as<int8_t>()[static_cast<size_t>(i)]};
      const int least = y.dtype() == DType::u8 || c.attrs.conv.relu ? 0 : -128;
      inside += v > least && v < (y.dtype() == DType::u8 ? 255 : 127);
      ++all;
    }
  }
  EXPECT_GT(inside, all / 4) << "mostly cut off: little was compared";
}

TEST(QuantizedOps, ConvolutionsGiveTheReferenceBytes) { expect_reference_bytes(1, 60); }

TEST(QuantizedOps, WithWinogradSwitchedOffToo) {
  const ScopedEnvironment direct("RESNET_CONV_ALGORITHM", "direct");
  expect_reference_bytes(101, 40);
}

TEST(QuantizedOps, AndWithWinogradWhereverItCan) {
  const ScopedEnvironment winograd("RESNET_CONV_ALGORITHM", "winograd");
  expect_reference_bytes(201, 40);
}

/// Of 60 convolutions, those by a kernel whose name holds `family`, where `without` is left out.
int convolutions_by(const std::string& family, const std::string& without) {
  const ScopedEnvironment environment("RESNET_CONV_WITHOUT", without);
  int count = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Rng rng(mix(seed));
    const BuildGraph build = graph_of(draw(rng));
    Session session(make_backend("cpu", 1));
    for (const Step& step : compile(session, build).plan().steps)
      count += step.kernel->algorithm().find(family) != std::string::npos;
  }
  return count;
}

TEST(QuantizedOps, WinogradIsTakenInsteadOfBytesWhereItsTransformsPay) {
  const ScopedEnvironment usual("RESNET_CONV_ALGORITHM", "auto");
  if (convolutions_by("int8 bytes", "int8 tiles") == 0) GTEST_SKIP() << "no processor with VNNI";
  const ScopedEnvironment environment("RESNET_CONV_WITHOUT", "int8 tiles");
  const auto taken = [](int64_t images, int64_t channels, int64_t side) {
    Case c;
    c.x = c.y = {images, channels, side, side};
    c.w = {channels, channels, 3, 3};
    c.attrs.conv.pad = {1, 1};
    Session session(make_backend("cpu", 1));
    for (const Step& step : compile(session, graph_of(c)).plan().steps) {
      if (const std::string name = step.kernel->algorithm(); name.starts_with("int8")) return name;
    }
    return std::string("none");
  };
  const std::string bytes = "int8 bytes", winograd = "int8 winograd f4";
  EXPECT_EQ(taken(2, 128, 28), winograd);
  EXPECT_EQ(taken(1, 128, 28), bytes) << "49 tiles take five dozens of rows";
  EXPECT_EQ(taken(16, 32, 56), bytes) << "few channels";
  EXPECT_EQ(taken(1, 256, 14), bytes) << "few tiles, and some hang over";
  EXPECT_EQ(taken(16, 512, 7), bytes) << "few tiles, and some hang over";
  const std::string& where_transforms_cost_less = has_spare_vector_units() ? winograd : bytes;
  EXPECT_EQ(taken(1, 64, 56), where_transforms_cost_less);
  EXPECT_EQ(taken(8, 256, 14), where_transforms_cost_less);
}

TEST(QuantizedOps, AFamilyLeftOutByItsNameIsNotTaken) {
  const ScopedEnvironment usual("RESNET_CONV_ALGORITHM", "auto");
  EXPECT_GT(convolutions_by("int8 winograd", "int8 tiles,int8 bytes"), 0) << "which have more products at once";
  if (make_backend("cpu", 1)->identity().find(" avx2 ") != std::string::npos) {
    EXPECT_GT(convolutions_by("int8 pairs", ""), 0) << "which are made for it";
  }
  for (const std::string family : {"int8 winograd", "int8 pairs", "int8 bytes", "int8 tiles"})
    EXPECT_EQ(convolutions_by(family, family), 0) << family;
  EXPECT_EQ(convolutions_by("int8 words", "int8 winograd, int8 pairs,int8 bytes,int8 tiles"), 60)
      << "with a blank, too";
}

TEST(QuantizedOps, AndWithoutEachFamily) {
  for (const char* family : {"int8 tiles", "int8 tiles,int8 winograd", "int8 tiles,int8 bytes", "int8 winograd",
                             "int8 pairs", "int8 tiles,int8 winograd,int8 pairs,int8 bytes"}) {
    const ScopedEnvironment without("RESNET_CONV_WITHOUT", family);
    expect_reference_bytes(401, 20);
  }
}

TEST(QuantizedOps, AndOnEveryInstructionSet) {
  for (const char* isa : {"generic", "avx2", "avx512"}) {  // as far as there is one
    const ScopedEnvironment limit("RESNET_MAX_ISA", isa);
    expect_reference_bytes(301, 30);
  }
}

/// Channels and filters that fill AMX's or VNNI's registers, as most of a network's do: pixels that are read where they
/// lie, from a copy with padding and from a panel; weights that go over them in several parts; every kind of residual
/// and result.
TEST(QuantizedOps, WholeTilesGiveTheReferenceBytes) {
  for (uint64_t seed = 1; seed <= 120; ++seed) {
    Rng rng(mix(1000 + seed));
    Case c;
    const int64_t kernel = pick(rng, {1, 1, 3, 3, 5}), stride = pick(rng, {1, 1, 1, 2}),
                  pad = between(rng, 0, kernel / 2);
    const int64_t groups = pick(rng, {1, 1, 1, 2}), h = between(rng, kernel, 18), w = between(rng, kernel, 18);
    c.x = {between(rng, 1, 3), groups * pick(rng, {64, 64, 128, 192, kernel == 5 ? 64 : 448}), h, w};
    const int64_t across = rng.below(4) == 0 ? 1 : kernel;
    c.w = {groups * pick(rng, {32, 64, 96, 40}), c.x[1] / groups, kernel, across};
    c.attrs.conv = {
        .stride = {stride, stride}, .pad = {pad, across == 1 ? 0 : pad + (rng.below(5) == 0)}, .groups = groups};
    c.attrs.conv.residual = rng.below(2) == 0;
    c.attrs.conv.relu = rng.below(3) == 0;
    c.attrs.output = rng.below(2) == 0 ? DType::i8 : DType::u8;
    c.residual = rng.below(2) == 0 ? DType::i8 : DType::u8;
    c.y = {c.x[0], c.w[0], (h + 2 * pad - kernel) / stride + 1, (w + 2 * c.attrs.conv.pad.w - across) / stride + 1};
    const Tensors leaves = leaves_of(c, rng);
    const Tensors want = run_on("reference", 1, graph_of(c), leaves);
    for (const char* without : {"", "int8 tiles", "int8 tiles,int8 winograd"}) {
      const ScopedEnvironment families("RESNET_CONV_WITHOUT", without);
      const Tensors got = run_on("cpu", 1 + static_cast<int>(seed % 3), graph_of(c), leaves);
      ASSERT_EQ(got.at("y"), want.at("y")) << "seed " << seed << ": " << c.str() << " without " << without;
    }
  }
}

/// Weights that fill the second cache, in an odd number of slivers: pairs of them, what is left over, several groups.
TEST(QuantizedOps, WinogradOfManyFiltersGivesTheReferenceBytes) {
  uint64_t seed = 7000;
  for (const Shape& x : {Shape{1, 128, 12, 12}, {2, 256, 8, 8}, {1, 64, 9, 13}, {3, 130, 16, 5}}) {
    for (const int64_t filters : {160, 72}) {
      Rng rng(mix(++seed));
      Case c;
      c.x = x;
      c.w = {filters, x[1], 3, 3};
      c.y = {x[0], filters, x[2], x[3]};
      c.attrs.conv = {.pad = {1, 1}};
      c.attrs.conv.residual = seed % 2 == 0;
      const Tensors leaves = leaves_of(c, rng);
      const Tensors want = run_on("reference", 1, graph_of(c), leaves);
      const ScopedEnvironment algorithm("RESNET_CONV_ALGORITHM", "winograd");
      for (const char* isa : {"avx512fp16", "avx2", "generic"}) {
        const ScopedEnvironment limit("RESNET_MAX_ISA", isa);
        ASSERT_EQ(run_on("cpu", 2, graph_of(c), leaves).at("y"), want.at("y")) << c.str() << " on " << isa;
      }
    }
  }
}

TEST(QuantizedOps, MapsOfOneTo57PixelsInBatchesOfOneToNineGiveTheReferenceBytes) {
  const std::vector<int64_t> sides = {1, 2, 3, 5, 7, 14, 28, 29, 56, 57}, channels = {5, 64, 3, 23, 9};
  const std::vector<int64_t> kernels = {1, 3, 7, 3, 5};
  const char* without[] = {"", "int8 tiles", "int8 tiles,int8 bytes", "int8 tiles,int8 winograd"};
  uint64_t trial = 0;
  int checked = 0;
  for (int64_t n = 1; n <= 9; ++n) {
    for (size_t i = 0; i < sides.size(); ++i, ++trial) {
      Rng rng(mix(5000 + trial));
      Case c;
      const int64_t kernel = kernels[trial / 2 % 5], stride = 1 + static_cast<int64_t>(trial / 4 % 2);
      const int64_t pad = static_cast<int64_t>(trial / 3 % 4);
      c.x = {n, channels[trial % 5], sides[i], sides[(i + static_cast<size_t>(n) - 1) % sides.size()]};
      c.w = {channels[(2 * i + static_cast<size_t>(n)) % 5], c.x[1], kernel, kernel};
      if (c.x[1] * c.w[0] * kernel * kernel > 64 * 64 * 9) continue;  // the reference is slow
      c.attrs.conv = {.stride = {stride, stride}, .pad = {pad, pad}};
      c.attrs.conv.residual = trial % 2 == 0;
      c.attrs.conv.relu = trial % 3 == 0;
      c.attrs.output = trial % 4 < 3 ? DType::u8 : DType::i8;
      c.y = {n, c.w[0], (c.x[2] + 2 * pad - kernel) / stride + 1, (c.x[3] + 2 * pad - kernel) / stride + 1};
      if (c.x[2] + 2 * pad < kernel || c.x[3] + 2 * pad < kernel) continue;
      const Tensors leaves = leaves_of(c, rng);
      const ScopedEnvironment families("RESNET_CONV_WITHOUT", without[trial % 4]);
      ASSERT_EQ(run_on("cpu", 1 + static_cast<int>(trial % 3), graph_of(c), leaves).at("y"),
                run_on("reference", 1, graph_of(c), leaves).at("y"))
          << c.str() << " without " << without[trial % 4];
      ++checked;
    }
  }
  EXPECT_GT(checked, 60);
}

/// What a hostile file can make of a sum: infinities, no number, and what fits no whole number of 32 bits.
TEST(QuantizedOps, WhatFitsNoByteIsCutOffAlike) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> odd = {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN(),
                                  3e9f,      -3e9f,      1e38f,
                                  -1e38f,    255.5f,     -128.5f,
                                  127.5f,    0.5f,       -0.5f};
  const auto expect_alike = [&](DType output, bool residual, int64_t filters, const char* without) {
    Case c;
    c.x = {1, 64, 6, 7};
    c.w = {filters, 64, 1, 1};
    c.y = {1, filters, 6, 7};
    c.attrs.output = output;
    c.attrs.conv.residual = residual;
    c.attrs.conv.relu = !residual;
    Rng rng(3);
    Tensors leaves = leaves_of(c, rng);
    for (size_t k = 0; k < static_cast<size_t>(filters); ++k) {
      leaves["offset"].as<float>()[k] = odd[k % odd.size()];
      if (k >= odd.size()) leaves["multiplier"].as<float>()[k] = odd[(k + 5) % odd.size()];
    }
    const ScopedEnvironment families("RESNET_CONV_WITHOUT", without);
    EXPECT_EQ(run_on("cpu", 2, graph_of(c), leaves).at("y"), run_on("reference", 1, graph_of(c), leaves).at("y"))
        << name_of(output) << (residual ? " with a residual" : "") << ", " << filters << " without " << without;
  };
  for (const DType output : {DType::u8, DType::i8}) {
    for (const bool residual : {false, true}) {
      for (const int64_t filters : {32, 64, 96}) {
        for (const char* without : {"", "int8 tiles", "int8 tiles,int8 bytes"})
          expect_alike(output, residual, filters, without);
      }
    }
  }
}

/// 255 * -128 in every tap: sums of bytes that saturate at 16 bits would not come out; those of 64 just fit.
TEST(QuantizedOps, NoSumSaturates) {
  for (const int64_t kernel : {1, 3}) {
    for (const int weight : {-128, 127, 65, 64, -64, -65}) {
      Case c;
      c.x = {1, 512, 4, 4};
      c.w = {16, 512, kernel, kernel};
      c.y = {1, 16, 4, 4};
      c.attrs.conv.pad = {kernel / 2, kernel / 2};
      Rng rng(1);
      Tensors leaves = leaves_of(c, rng);
      for (uint8_t& v : leaves["x"].as<uint8_t>()) v = 255;
      for (uint8_t& v : leaves["padding"].as<uint8_t>()) v = 255;
      for (int8_t& v : leaves["w"].as<int8_t>()) v = static_cast<int8_t>(weight);
      const float sum = 255.0f * static_cast<float>(weight) * 512 * static_cast<float>(kernel * kernel);
      for (float& v : leaves["multiplier"].as<float>()) v = -200 / sum;
      for (float& v : leaves["offset"].as<float>()) v = 250;
      const Tensors got = run_on("cpu", 2, graph_of(c), leaves);
      for (const uint8_t v : got.at("y").as<uint8_t>()) EXPECT_EQ(v, 50) << weight;
    }
  }
}

/// The largest sums that 26 bits hold, one more, and many more: F(4x4, 3x3) computes modulo 2^26 or is not taken.
TEST(QuantizedOps, SumsAtTheBoundOfWinogradAreExact) {
  constexpr int64_t kChannels = 256, kMost = (int64_t{1} << 25) / 255;  // of one sign
  for (const int64_t total : {kMost - 1, kMost, kMost + 1, 9 * kChannels * 127}) {
    for (const int sign : {1, -1}) {
      Case c;
      c.x = {1, kChannels, 8, 9};
      c.w = {16, kChannels, 3, 3};
      c.y = {1, 16, 8, 9};
      c.attrs.conv.pad = {1, 1};
      Rng rng(7);
      Tensors leaves = leaves_of(c, rng);
      for (uint8_t& v : leaves["x"].as<uint8_t>()) v = 255;
      for (uint8_t& v : leaves["padding"].as<uint8_t>()) v = 255;
      int64_t left[16];
      std::fill(std::begin(left), std::end(left), total);
      size_t i = 0;
      for (int8_t& v : leaves["w"].as<int8_t>()) {
        int64_t& rest = left[i++ / (9 * kChannels)];
        const int64_t weight = std::min<int64_t>(rest, 127);
        rest -= weight;
        v = static_cast<int8_t>(sign * weight);
      }
      ASSERT_EQ(left[15], 0);
      // A step of the sum, 255, is a step of the result: the last bits show.
      for (float& v : leaves["multiplier"].as<float>()) v = 1.0f / 255;
      for (float& v : leaves["offset"].as<float>()) v = static_cast<float>(-sign * total + 100);
      const Tensors got = run_on("cpu", 2, graph_of(c), leaves);
      for (const uint8_t v : got.at("y").as<uint8_t>()) EXPECT_EQ(v, 100) << sign * total;
      EXPECT_EQ(got.at("y"), run_on("reference", 1, graph_of(c), leaves).at("y"));
    }
  }
}

TEST(QuantizedOps, HalvesRoundToEvenAndWhatIsNoNumberIsTheLeast) {
  Case c;
  c.x = {1, 1, 1, 6};
  c.w = {1, 1, 1, 1};
  c.y = c.x;
  c.attrs.output = DType::i8;
  Rng rng(1);
  Tensors leaves = leaves_of(c, rng);
  leaves["w"].as<int8_t>()[0] = 1;
  leaves["multiplier"].as<float>()[0] = 0.5f;
  leaves["offset"].as<float>()[0] = -2;
  for (size_t i = 0; i < 6; ++i) leaves["x"].as<uint8_t>()[i] = static_cast<uint8_t>(i);
  for (const char* backend : {"reference", "cpu"}) {
    const Tensor y = run_on(backend, 1, graph_of(c), leaves).at("y");
    EXPECT_EQ(values<int8_t>(y), (std::vector<int8_t>{-2, -2, -1, 0, 0, 0})) << backend;
    leaves["offset"].as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
    const Tensor none = run_on(backend, 1, graph_of(c), leaves).at("y");
    EXPECT_EQ(values<int8_t>(none), (std::vector<int8_t>(6, -128))) << backend;
    leaves["offset"].as<float>()[0] = -2;
  }
}

TEST(QuantizedOps, RoundingAndPoolingGiveTheReferenceBytes) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Rng rng(mix(seed));
    const Shape maps{between(rng, 1, 9), pick(rng, {1, 3, 8, 17, 33, 130}), between(rng, 1, 57), between(rng, 1, 57)};
    const bool images = rng.below(2) == 0;  // read row-major
    const DType dtype = rng.below(2) == 0 ? DType::u8 : DType::i8;
    const int64_t h = between(rng, 1, std::min<int64_t>(5, maps[2])),
                  w = between(rng, 1, std::min<int64_t>(5, maps[3]));
    const PoolAttrs pool{.kernel = {h, w},
                         .stride = {between(rng, 1, 3), between(rng, 1, 3)},
                         .pad = {between(rng, 0, h / 2), between(rng, 0, w / 2)}};
    const BuildGraph build = [&](Graph& g) {
      const auto state = [&](const char* name, const Shape& s) { return g.state(name, {DType::f32, s}, {}, false); };
      Value x = g.input("x", {DType::f32, maps});
      const auto rounded = [&](Value v) {
        return g.add(kQuantize, {v, state("factor", {maps[1]}), state("zero", {maps[1]})}, QuantizeAttrs{dtype});
      };
      const Value q = rounded(x);
      const auto real = [&](Value v) { return g.add(kDequantize, {v, state("scale", {1}), state("shift", {1})}); };
      const Value pooled = g.add(kQuantizedMaxPool, {q}, pool);
      g.set_output("q", q);
      g.set_output("pooled", pooled);
      g.set_output("mean", g.add(kQuantizedGlobalAvgPool, {q, state("scale", {1})}));
      g.set_output("real", real(pooled));
      if (!images) g.set_output("again", rounded(real(q)));  // of what is channel-blocked
    };
    Tensors leaves;
    leaves["x"] = random_floats(maps, rng, -3, 3);
    leaves["factor"] = random_floats({maps[1]}, rng, 20, 60);
    leaves["zero"] = random_floats({maps[1]}, rng, 0, dtype == DType::u8 ? 200 : 20);
    leaves["scale"] = random_floats({1}, rng, 0.01, 0.1);
    leaves["shift"] = tensor<float>(DType::f32, {1}, {static_cast<float>(rng.below(100))});
    const Tensors want = run_on("reference", 1, build, leaves);
    const Tensors got = run_on("cpu", 2, build, leaves);
    for (const auto& [name, value] : want)
      ASSERT_EQ(got.at(name), value) << "seed " << seed << " " << name << " of " << maps.str();
  }
}

TEST(QuantizedOps, TooManyTapsAreRefused) {
  Graph g;
  Case c;
  c.x = {1, 65537, 1, 1};
  c.w = {1, 65537, 1, 1};
  c.y = {1, 1, 1, 1};
  expect_user_error([&] { graph_of(c)(g); }, {"65537 taps", "65536"});
}

}  // namespace
}  // namespace resnet
