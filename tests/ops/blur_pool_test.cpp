#include "ops/blur_pool.h"

#include "ops/gradient_check.h"

namespace resnet {
namespace {

using namespace testing;

Tensor blurred(const Tensor& x, int64_t stride) {
  Graph g;
  g.set_output("y", blur_pool(g.input("x", x.type()), stride));
  return evaluate(g, {{"x", x}}).at("y");
}

TEST(BlurPool, MirrorsTheBorderWithoutRepeatingItsPixel) {
  // Rows 0 1 2 alike, so only columns blur: at the left 1 8 | 8 in the mirror, weights 2 and 1 + 1 of 4.
  const Tensor x = f64({1, 1, 3, 3}, {8, 0, 4, 8, 0, 4, 8, 0, 4});
  expect_near(blurred(x, 1), {4, 3, 2, 4, 3, 2, 4, 3, 2});
  expect_near(blurred(x, 2), {4, 2, 4, 2});
}

TEST(BlurPool, AConstantStaysAsItIs) { expect_near(blurred(f64({1, 1, 2, 4}, std::vector<double>(8, 3)), 2), {3, 3}); }

TEST(BlurPool, GradientAgreesWithCentralDifferences) {
  check_gradients(20, [](Rng& rng) {
    const int64_t stride = draw_between(rng, 1, 3);
    GradientCase c;
    c.inputs = {{"x", random_tensor({draw_between(rng, 1, 2), draw_between(rng, 1, 2), draw_between(rng, 2, 6),
                                     draw_between(rng, 2, 6)},
                                    rng)}};
    c.build = [stride](Graph&, const Leaves& in) { return blur_pool(in.at("x"), stride); };
    return c;
  });
}

TEST(BlurPool, AMapWithoutAPixelToMirrorIsRefused) {
  Graph g;
  expect_user_error(
      [&] {
        blur_pool(g.input("x", f32_type({1, 4, 1, 5})), 2, "aa");
      },
      {"blur_pool 'aa'", "1x4x1x5", "2 pixels or more"});
}

}  // namespace
}  // namespace resnet
