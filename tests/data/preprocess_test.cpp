#include "data/preprocess.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"

namespace resnet {
namespace {

std::vector<uint8_t> ramp(size_t size) {
  std::vector<uint8_t> pixels(size);
  for (size_t i = 0; i < size; ++i) pixels[i] = static_cast<uint8_t>(i * 37 + 11);
  return pixels;
}

TEST(Preprocess, divides_the_resized_pixels_by_255_in_f32) {
  const std::vector<uint8_t> pixels = ramp(28 * 28);
  const Preprocessing preprocessing;
  PreprocessScratch scratch;
  std::vector<float> out(96 * 96);
  preprocess({.pixels = pixels, .channels = 1, .height = 28, .width = 28}, preprocessing, scratch, out);
  std::vector<uint8_t> resized(96 * 96);
  std::vector<uint8_t> working;
  Resizer(28, 28, 96, 96).resize(pixels, resized, working);
  for (size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], static_cast<float>(resized[i]) / 255.0f) << i;
}

TEST(Preprocess, applies_mean_and_std_of_each_channel_and_any_change_of_settings) {
  const std::vector<uint8_t> pixels = ramp(3 * 4 * 5);
  PreprocessScratch scratch;
  for (const int64_t size : {4, 7, 4}) {
    for (const float shift : {0.0f, 0.25f}) {
      const Preprocessing preprocessing{
          .image_size = size, .mean = {0.485f, 0.456f + shift, 0.406f}, .std = {0.229f, 0.224f, 0.225f}};
      validate(preprocessing, 3);
      std::vector<float> out(static_cast<size_t>(3 * size * size));
      preprocess({.pixels = pixels, .channels = 3, .height = 4, .width = 5}, preprocessing, scratch, out);
      const auto plane = static_cast<size_t>(size * size);
      std::vector<uint8_t> resized(plane);
      std::vector<uint8_t> working;
      for (size_t c = 0; c < 3; ++c) {
        Resizer(4, 5, size, size).resize(std::span(pixels).subspan(c * 20, 20), resized, working);
        for (size_t i = 0; i < plane; ++i) {
          const float expected =
              (static_cast<float>(resized[i]) / 255.0f - preprocessing.mean[c]) / preprocessing.std[c];
          ASSERT_EQ(out[c * plane + i], expected) << "size " << size << " channel " << c << " pixel " << i;
        }
      }
    }
  }
}

TEST(Preprocess, crops_and_flips_the_resized_pixels_before_the_mean_is_taken) {
  const std::vector<uint8_t> pixels = ramp(2 * 4 * 5);
  const Preprocessing preprocessing{.image_size = 7, .mean = {0.5f, 0.25f}, .std = {0.5f, 2.0f}};
  const ImageView image{.pixels = pixels, .channels = 2, .height = 4, .width = 5};
  const CropFlip change{.top = -2, .left = 1, .flip = true};
  PreprocessScratch scratch;
  std::vector<float> plain(2 * 49), out(2 * 49), again(2 * 49);
  preprocess(image, preprocessing, scratch, plain);
  preprocess(image, preprocessing, scratch, out, change);
  preprocess(image, preprocessing, scratch, again);
  EXPECT_EQ(again, plain) << "the change is of one call";
  std::vector<uint8_t> resized(49), working, expected(49);
  for (size_t c = 0; c < 2; ++c) {
    Resizer(4, 5, 7, 7).resize(std::span(pixels).subspan(c * 20, 20), resized, working);
    crop_flip(resized, 7, change, expected);
    for (size_t i = 0; i < 49; ++i) {
      const float value = (static_cast<float>(expected[i]) / 255.0f - preprocessing.mean[c]) / preprocessing.std[c];
      ASSERT_EQ(out[c * 49 + i], value) << "channel " << c << " pixel " << i;
    }
    EXPECT_EQ(out[c * 49], -preprocessing.mean[c] / preprocessing.std[c]) << "padding is black";
  }
}

TEST(Preprocess, gives_the_same_result_from_used_and_fresh_scratch_over_more_sizes_than_it_remembers) {
  const Preprocessing preprocessing{.image_size = 6};
  PreprocessScratch used;
  for (int64_t width = 1; width <= 150; ++width) {
    const int64_t height = 1 + width % 7;
    const std::vector<uint8_t> pixels = ramp(static_cast<size_t>(width * height));
    const ImageView image{.pixels = pixels, .channels = 1, .height = height, .width = width};
    std::vector<float> first(36), second(36);
    PreprocessScratch fresh;
    preprocess(image, preprocessing, used, first);
    preprocess(image, preprocessing, fresh, second);
    ASSERT_EQ(first, second) << width;
  }
}

TEST(Preprocess, refuses_settings_that_make_no_sense) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_NO_THROW(validate({.image_size = 1}, 1));
  EXPECT_NO_THROW(validate({.image_size = kMaxImageSize, .mean = {0.5f}, .std = {-1.0f}}, 1));
  EXPECT_THROW(validate({.image_size = 0}, 1), UserError);
  EXPECT_THROW(validate({.image_size = -96}, 1), UserError);
  EXPECT_THROW(validate({.image_size = kMaxImageSize + 1}, 1), UserError);
  EXPECT_THROW(validate({.mean = {0.5f, 0.5f, 0.5f}}, 1), UserError);
  EXPECT_THROW(validate({.std = {1.0f}}, 3), UserError);
  EXPECT_THROW(validate({.mean = {infinity}}, 1), UserError);
  EXPECT_THROW(validate({.std = {std::numeric_limits<float>::quiet_NaN()}}, 1), UserError);
  EXPECT_THROW(validate({.std = {0.0f}}, 1), UserError);
}

TEST(Preprocess, refuses_buffers_of_another_size) {
  PreprocessScratch scratch;
  const std::vector<uint8_t> pixels = ramp(12);
  std::vector<float> out(36), wrong(35);
  const Preprocessing preprocessing{.image_size = 6};
  EXPECT_THROW(preprocess({.pixels = pixels, .channels = 1, .height = 3, .width = 5}, preprocessing, scratch, out),
               InternalError);
  EXPECT_THROW(preprocess({.pixels = pixels, .channels = 1, .height = 3, .width = 4}, preprocessing, scratch, wrong),
               InternalError);
}

}  // namespace
}  // namespace resnet
