#include "ops/channel_sum.h"

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

TEST(ChannelSum, SumsAllAxesButTheSecond) {
  Graph g;
  g.set_output("image", channel_sum(g.input("x", f64_type({2, 2, 1, 2}))));
  g.set_output("flat", channel_sum(g.input("f", f64_type({3, 2}))));
  const Tensors out =
      evaluate(g, {{"x", f64({2, 2, 1, 2}, {1, 2, 3, 4, 5, 6, 7, 8})}, {"f", f64({3, 2}, {1, 10, 2, 20, 3, 30})}});
  expect_near(out.at("image"), {14, 22});
  expect_near(out.at("flat"), {6, 60});
}

TEST(ChannelSum, AVectorHasNoChannels) {
  Graph g;
  expect_user_error([&] { channel_sum(g.input("x", f32_type({3})), "s"); },
                    {"channel_sum 's'", "shape 3", "[N,C,...]"});
}

TEST(ChannelSum, HasNoGradient) {
  Graph g;
  const Value x = g.input("x", f64_type({3, 2}));
  const std::vector<Value> wrt{x};
  EXPECT_THROW(gradients(channel_sum(x), wrt), InternalError);
}

}  // namespace
}  // namespace resnet
