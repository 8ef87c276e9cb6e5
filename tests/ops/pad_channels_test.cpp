#include "ops/pad_channels.h"

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

TEST(PadChannels, PutsChannelsOfZerosBeforeAndAfter) {
  Graph g;
  g.set_output("map", pad_channels(g.input("x", f64_type({2, 2, 1, 2})), {.before = 1, .after = 2}));
  g.set_output("flat", pad_channels(g.input("f", f64_type({2, 1})), {.before = 0, .after = 1}));
  const Tensors out = evaluate(g, {{"x", f64({2, 2, 1, 2}, {1, 2, 3, 4, 5, 6, 7, 8})}, {"f", f64({2, 1}, {9, 10})}});
  EXPECT_EQ(out.at("map").shape(), (Shape{2, 5, 1, 2}));
  expect_near(out.at("map"), {0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0, 0});
  expect_near(out.at("flat"), {9, 0, 10, 0});
}

TEST(SliceChannels, LeavesTheFirstAndLastChannelsOut) {
  Graph g;
  g.set_output("y", slice_channels(g.input("x", f64_type({2, 4, 1, 1})), {.before = 1, .after = 2}));
  const Tensors out = evaluate(g, {{"x", f64({2, 4, 1, 1}, {1, 2, 3, 4, 5, 6, 7, 8})}});
  EXPECT_EQ(out.at("y").shape(), (Shape{2, 1, 1, 1}));
  expect_near(out.at("y"), {2, 6});
}

TEST(SliceChannels, UndoesThePadding) {
  Rng rng(1);
  const Tensor x = random_tensor({3, 5, 2, 3}, rng);
  Graph g;
  const ChannelPadAttrs attrs{.before = 2, .after = 4};
  g.set_output("y", slice_channels(pad_channels(g.input("x", x.type()), attrs), attrs));
  EXPECT_EQ(evaluate(g, {{"x", x}}).at("y"), x);
}

TEST(PadChannels, GradientsOfBothAgreeWithCentralDifferences) {
  for (const bool pad : {true, false}) {
    SCOPED_TRACE(pad ? "pad" : "slice");
    check_gradients(10, [pad](Rng& rng) {
      const ChannelPadAttrs attrs{.before = draw_between(rng, 0, 3), .after = draw_between(rng, 0, 3)};
      const int64_t channels = draw_between(rng, 1, 3) + (pad ? 0 : attrs.before + attrs.after);
      const Shape shape = rng.below(3) == 0 ? Shape{draw_between(rng, 1, 3), channels}
                                            : Shape{draw_between(rng, 1, 2), channels, draw_between(rng, 1, 2),
                                                    draw_between(rng, 1, 3)};
      GradientCase c;
      c.inputs = {{"x", random_tensor(shape, rng)}};
      c.build = [pad, attrs](Graph&, const Leaves& in) {
        return pad ? pad_channels(in.at("x"), attrs) : slice_channels(in.at("x"), attrs);
      };
      return c;
    });
  }
}

TEST(PadChannels, ShapeErrorsNameThePathAndTheNumbers) {
  Graph g;
  const Value x = g.input("x", f32_type({1, 4, 2, 2}));
  expect_user_error([&] { pad_channels(x, {.before = -1, .after = 2}, "short"); },
                    {"pad_channels 'short'", "-1", "0 to"});
  expect_user_error([&] { slice_channels(x, {.before = 1, .after = -1}, "cut"); }, {"slice_channels 'cut'", "-1"});
  expect_user_error([&] { pad_channels(x, {.before = 0, .after = INT64_MAX}, "short"); }, {"9223372036854775807"});
  expect_user_error([&] { slice_channels(x, {.before = 1, .after = 3}, "cut"); },
                    {"slice_channels 'cut'", "1x4x2x2", "4 channels", "first 1", "last 3"});
  expect_user_error([&] { pad_channels(g.input("v", f32_type({4})), {}, "short"); }, {"shape 4", "[N,C,...]"});
  expect_user_error([&] { pad_channels(g.input("i", {DType::i32, {1, 4}}), {}, "short"); }, {"f32 or f64"});
}

TEST(PadChannels, TheAttributesPrintBothEnds) {
  EXPECT_EQ(to_string(Attributes{ChannelPadAttrs{.before = 8, .after = 9}}), "before=8 after=9");
  EXPECT_EQ(to_string(Attributes{ChannelPadAttrs{}}), "");
}

}  // namespace
}  // namespace resnet
