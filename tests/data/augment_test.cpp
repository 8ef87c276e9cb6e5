#include "data/augment.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"

namespace resnet {
namespace {

std::vector<uint8_t> changed(const std::vector<uint8_t>& in, int64_t side, const CropFlip& change) {
  std::vector<uint8_t> out(in.size(), uint8_t{77});  // what it held before must not show
  crop_flip(in, side, change, out);
  return out;
}

TEST(CropFlip, mirrors_a_known_image_left_to_right) {
  const std::vector<uint8_t> image = {1, 2, 3,  //
                                      4, 5, 6,  //
                                      7, 8, 9};
  EXPECT_EQ(changed(image, 3, {}), image);
  EXPECT_EQ(changed(image, 3, {.flip = true}), (std::vector<uint8_t>{3, 2, 1, 6, 5, 4, 9, 8, 7}));
}

TEST(CropFlip, moves_a_known_image_and_fills_the_rest_with_zeros) {
  const std::vector<uint8_t> image = {1, 2, 3,  //
                                      4, 5, 6,  //
                                      7, 8, 9};
  EXPECT_EQ(changed(image, 3, {.top = 1, .left = -1}), (std::vector<uint8_t>{0, 4, 5, 0, 7, 8, 0, 0, 0}));
  EXPECT_EQ(changed(image, 3, {.top = -2, .left = 0}), (std::vector<uint8_t>{0, 0, 0, 0, 0, 0, 1, 2, 3}));
  EXPECT_EQ(changed(image, 3, {.top = 0, .left = 2, .flip = true}), (std::vector<uint8_t>{0, 0, 3, 0, 0, 6, 0, 0, 9}));
  EXPECT_EQ(changed(image, 3, {.top = 3, .left = 0}), std::vector<uint8_t>(9)) << "nothing of it is left";
}

TEST(CropFlip, is_a_crop_of_the_padded_image_for_every_offset) {
  constexpr int64_t kSide = 5;
  constexpr int64_t kPadding = 6;  // more than the side: some crops see nothing
  constexpr int64_t kPadded = kSide + 2 * kPadding;
  std::vector<uint8_t> image(kSide * kSide);
  for (size_t i = 0; i < image.size(); ++i) image[i] = static_cast<uint8_t>(i + 1);
  std::vector<uint8_t> padded(kPadded * kPadded);
  for (int64_t y = 0; y < kSide; ++y) {
    for (int64_t x = 0; x < kSide; ++x) {
      padded[static_cast<size_t>((y + kPadding) * kPadded + x + kPadding)] = image[static_cast<size_t>(y * kSide + x)];
    }
  }
  for (int64_t top = -kPadding; top <= kPadding; ++top) {
    for (int64_t left = -kPadding; left <= kPadding; ++left) {
      for (const bool flip : {false, true}) {
        std::vector<uint8_t> expected;
        for (int64_t y = 0; y < kSide; ++y) {
          for (int64_t x = 0; x < kSide; ++x) {
            const int64_t column = flip ? kSide - 1 - x : x;
            expected.push_back(padded[static_cast<size_t>((y + top + kPadding) * kPadded + column + left + kPadding)]);
          }
        }
        ASSERT_EQ(changed(image, kSide, {.top = top, .left = left, .flip = flip}), expected)
            << "top " << top << " left " << left << " flip " << flip;
      }
    }
  }
}

TEST(CropFlip, refuses_buffers_of_another_size) {
  const std::vector<uint8_t> image(9);
  std::vector<uint8_t> out(9), wrong(8);
  EXPECT_THROW(crop_flip(image, 3, {}, wrong), InternalError);
  EXPECT_THROW(crop_flip(image, 2, {}, out), InternalError);
}

TEST(Augmentation, changes_nothing_by_default) {
  for (int64_t sample = 0; sample < 100; ++sample) EXPECT_EQ(draw_crop_flip({}, 1, 2, sample), CropFlip{});
}

TEST(Augmentation, is_a_function_of_seed_epoch_and_sample_that_never_changes) {
  const Augmentation augmentation{.random_crop_padding = 4, .hflip_prob = 0.5};
  const auto draws = [&](uint64_t seed, int64_t epoch) {
    std::vector<CropFlip> list;
    for (int64_t sample = 0; sample < 100; ++sample) list.push_back(draw_crop_flip(augmentation, seed, epoch, sample));
    return list;
  };
  EXPECT_EQ(draws(1, 0), draws(1, 0));
  EXPECT_NE(draws(2, 0), draws(1, 0));
  EXPECT_NE(draws(1, 1), draws(1, 0));
  // A checkpoint relies on it: a run resumed by a later version must see the same images.
  EXPECT_EQ(draw_crop_flip(augmentation, 7, 3, 0), (CropFlip{.top = 3, .left = -4, .flip = false}));
  EXPECT_EQ(draw_crop_flip(augmentation, 7, 3, 1), (CropFlip{.top = -1, .left = -4, .flip = true}));
  EXPECT_EQ(draw_crop_flip(augmentation, 7, 3, 2), (CropFlip{.top = -4, .left = -3, .flip = false}));
  EXPECT_EQ(draw_crop_flip(augmentation, 7, 3, 3), (CropFlip{.top = 3, .left = 0, .flip = true}));
}

TEST(Augmentation, draws_every_offset_equally_often_and_flips_independently_of_it) {
  // 9 x 9 offsets, each with an expected 1000 draws and 300 flips; the bounds are six deviations.
  constexpr int64_t kDraws = 81000;
  std::map<std::pair<int64_t, int64_t>, int64_t> count, flips;
  int64_t all_flips = 0;
  for (int64_t i = 0; i < kDraws; ++i) {
    const CropFlip change =
        draw_crop_flip({.random_crop_padding = 4, .hflip_prob = 0.3}, 42, i / 1000, i % 1000);  // 81 epochs
    ++count[{change.top, change.left}];
    flips[{change.top, change.left}] += change.flip;
    all_flips += change.flip;
  }
  const auto within = [](double p) { return 6 * std::sqrt(static_cast<double>(kDraws) * p * (1 - p)); };
  EXPECT_EQ(count.size(), 81u);
  EXPECT_EQ(count.begin()->first, (std::pair<int64_t, int64_t>{-4, -4}));
  EXPECT_EQ(count.rbegin()->first, (std::pair<int64_t, int64_t>{4, 4}));
  for (const auto& [offset, n] : count) EXPECT_NEAR(static_cast<double>(n), 1000, within(1.0 / 81));
  for (const auto& [offset, n] : flips) EXPECT_NEAR(static_cast<double>(n), 300, within(0.3 / 81));
  EXPECT_NEAR(static_cast<double>(all_flips), 0.3 * kDraws, within(0.3));
}

TEST(Augmentation, gives_one_sample_every_change_over_the_epochs) {
  // 18 changes, each of about 56 epochs.
  std::set<std::pair<int64_t, bool>> seen;
  for (int64_t epoch = 0; epoch < 1000; ++epoch) {
    const CropFlip change = draw_crop_flip({.random_crop_padding = 1, .hflip_prob = 0.5}, 3, epoch, 12345);
    seen.insert({change.top * 3 + change.left, change.flip});
  }
  EXPECT_EQ(seen.size(), 18u);
}

TEST(Augmentation, leaves_the_crops_as_they_are_when_flips_are_turned_on_and_the_other_way_round) {
  for (int64_t sample = 0; sample < 200; ++sample) {
    const CropFlip both = draw_crop_flip({.random_crop_padding = 4, .hflip_prob = 0.5}, 1, 2, sample);
    EXPECT_EQ(draw_crop_flip({.random_crop_padding = 4}, 1, 2, sample), (CropFlip{both.top, both.left, false}));
    EXPECT_EQ(draw_crop_flip({.hflip_prob = 0.5}, 1, 2, sample), (CropFlip{0, 0, both.flip}));
    EXPECT_TRUE(draw_crop_flip({.hflip_prob = 1}, 1, 2, sample).flip);
  }
}

TEST(Augmentation, refuses_values_out_of_range) {
  EXPECT_NO_THROW(validate(Augmentation{}, 1));
  EXPECT_NO_THROW(validate(Augmentation{.random_crop_padding = 31, .hflip_prob = 1}, 32));
  EXPECT_THROW(validate(Augmentation{.random_crop_padding = 32}, 32), UserError);
  EXPECT_THROW(validate(Augmentation{.random_crop_padding = -1}, 32), UserError);
  EXPECT_THROW(validate(Augmentation{.hflip_prob = -0.1}, 32), UserError);
  EXPECT_THROW(validate(Augmentation{.hflip_prob = 1.1}, 32), UserError);
  EXPECT_THROW(validate(Augmentation{.hflip_prob = std::numeric_limits<double>::quiet_NaN()}, 32), UserError);
}

}  // namespace
}  // namespace resnet
