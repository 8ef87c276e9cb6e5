#include "ops/channel_conv.h"

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

TEST(ChannelConv, RunsAlongTheChannelsWithZerosBeyondBothEnds) {
  Graph g;
  g.set_output("y", channel_conv(g.input("x", f64_type({2, 3, 1, 1})), g.input("w", f64_type({1, 1, 3}))));
  const Tensor x = f64({2, 3, 1, 1}, {1, 10, 100, 2, 0, 1}), w = f64({1, 1, 3}, {1, 2, 3});
  expect_near(evaluate(g, {{"x", x}, {"w", w}}).at("y"), {32, 321, 210, 4, 5, 2});
}

TEST(ChannelConv, GradientAgreesWithCentralDifferencesAlsoWhereTheKernelIsLongerThanTheChannels) {
  check_gradients(20, [](Rng& rng) {
    GradientCase c;
    c.inputs = {{"x", random_tensor({draw_between(rng, 1, 3), draw_between(rng, 1, 9), 1, 1}, rng)},
                {"w", random_tensor({1, 1, 2 * draw_between(rng, 0, 4) + 1}, rng)}};
    c.build = [](Graph&, const Leaves& in) { return channel_conv(in.at("x"), in.at("w")); };
    return c;
  });
}

TEST(ChannelConv, WhatIsNotAPixelOrAnOddKernelIsRefused) {
  Graph g;
  const Value x = g.input("x", f32_type({2, 8, 1, 1})), map = g.input("map", f32_type({2, 8, 2, 1}));
  const Value w = g.input("w", f32_type({1, 1, 3})), even = g.input("even", f32_type({1, 1, 4}));
  expect_user_error([&] { channel_conv(map, w, "eca"); }, {"channel_conv 'eca'", "2x8x2x1", "one pixel"});
  expect_user_error([&] { channel_conv(x, even, "eca"); }, {"channel_conv 'eca'", "1x1x4", "k odd"});
  expect_user_error([&] { channel_conv(x, x, "eca"); }, {"channel_conv 'eca'", "1x1xk"});
}

}  // namespace
}  // namespace resnet
