#include "data/preprocess.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
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

/// torchvision's Resize, then CenterCrop or one crop of FiveCrop, perhaps of the mirror image: made whole, step by
/// step.
std::vector<uint8_t> by_hand(const ImageView& image, const Preprocessing& p, const CropView& view) {
  int64_t height = resized_side(p), width = height;
  if (p.resize == ResizeRule::shortest) {
    const int64_t shorter = std::min(image.height, image.width);
    if (image.width <= image.height) {
      height = resized_side(p) * image.height / shorter;
    } else {
      width = resized_side(p) * image.width / shorter;
    }
  }
  const int64_t size = p.image_size;
  std::vector<uint8_t> out, working;
  for (int64_t c = 0; c < image.channels; ++c) {
    const auto plane = static_cast<size_t>(image.height * image.width);
    std::vector<uint8_t> resized(static_cast<size_t>(height * width));
    Resizer(image.height, image.width, height, width, p.interpolation)
        .resize(image.pixels.subspan(static_cast<size_t>(c) * plane, plane), resized, working);
    const auto pad_top = std::max<int64_t>(0, size - height) / 2, pad_left = std::max<int64_t>(0, size - width) / 2;
    const auto padded_height = std::max(size, height), padded_width = std::max(size, width);
    const auto pixel = [&](int64_t y, int64_t x) -> uint8_t {
      y -= pad_top;
      x -= pad_left;
      if (y < 0 || y >= height || x < 0 || x >= width) return 0;
      return resized[static_cast<size_t>(y * width + (view.mirrored ? width - 1 - x : x))];
    };
    using enum CropView::Place;
    const bool at_top = view.place == top_left || view.place == top_right;
    const bool at_left = view.place == top_left || view.place == bottom_left;
    // std::nearbyint rounds a half to the even neighbour, as Python's round() does.
    const auto start = [&](int64_t padded, bool first) {
      if (view.place == center) return static_cast<int64_t>(std::nearbyint(static_cast<double>(padded - size) / 2));
      return first ? 0 : padded - size;
    };
    const int64_t top = start(padded_height, at_top), left = start(padded_width, at_left);
    for (int64_t y = 0; y < size; ++y) {
      for (int64_t x = 0; x < size; ++x) out.push_back(pixel(top + y, left + x));
    }
  }
  return out;
}

TEST(Preprocess, resizes_and_crops_any_view_as_torchvision_does_step_by_step) {
  PreprocessScratch scratch;
  const std::vector<std::array<int64_t, 2>> sides = {{20, 31}, {31, 20}, {7, 7}, {1, 9}, {9, 1}, {40, 23}, {12, 13}};
  for (const auto& [height, width] : sides) {
    const std::vector<uint8_t> pixels = ramp(static_cast<size_t>(2 * height * width));
    const ImageView image{.pixels = pixels, .channels = 2, .height = height, .width = width};
    for (const ResizeRule rule : {ResizeRule::squash, ResizeRule::shortest}) {
      for (const int64_t resize_size : {0, 10, 11, 12, 13, 16}) {
        for (const Interpolation interpolation : {Interpolation::bilinear, Interpolation::bicubic}) {
          const Preprocessing p{.image_size = 12,
                                .resize = rule,
                                .resize_size = resize_size,
                                .crop_pct = resize_size == 0 ? 0.8 : 1,
                                .interpolation = interpolation};
          validate(p, 2);
          for (const CropView& view : list_of(Views::ten_crop)) {
            const bool corner = view.place != CropView::Place::center;
            if (corner && resized_side(p) < p.image_size) continue;  // refused where views are chosen
            std::vector<uint8_t> out(2 * 12 * 12);
            preprocess_pixels(image, p, scratch, out, {}, view);
            ASSERT_EQ(out, by_hand(image, p, view))
                << height << "x" << width << " " << name_of(rule) << " " << resized_side(p) << " place "
                << static_cast<int>(view.place) << (view.mirrored ? " mirrored" : "");
          }
        }
      }
    }
  }
}

TEST(Preprocess, knows_the_sizes_of_torchvision_and_timm) {
  EXPECT_EQ(resized_side({.image_size = 224, .resize_size = 256}), 256);
  EXPECT_EQ(resized_side({.image_size = 224, .crop_pct = 0.875}), 256);
  EXPECT_EQ(resized_side({.image_size = 224, .crop_pct = 0.95}), 235) << "floor, not round";
  EXPECT_EQ(resized_side({.image_size = 288, .crop_pct = 1}), 288);
  EXPECT_EQ(resized_side({.image_size = 224, .resize_size = 232, .crop_pct = 0.5}), 232) << "pixels win";
}

TEST(Preprocess, a_line_of_pixels_is_resized_where_the_crop_looks) {
  // 65535 x 1 pixels resized to a shorter side of 256 would be 16 million columns.
  const std::vector<uint8_t> pixels(65535, 200);
  const Preprocessing p{.image_size = 224, .resize = ResizeRule::shortest, .resize_size = 256};
  PreprocessScratch scratch;
  std::vector<uint8_t> out(224 * 224);
  preprocess_pixels({.pixels = pixels, .channels = 1, .height = 1, .width = 65535}, p, scratch, out);
  EXPECT_EQ(out, std::vector<uint8_t>(224 * 224, 200));
}

TEST(Preprocess, scales_the_padding_too) {
  const std::vector<uint8_t> pixels(9, 255);
  const Preprocessing p{.image_size = 4, .resize_size = 2, .mean = {0.5f}, .std = {0.25f}};
  PreprocessScratch scratch;
  std::vector<float> out(16);
  preprocess({.pixels = pixels, .channels = 1, .height = 3, .width = 3}, p, scratch, out);
  EXPECT_EQ(out, (std::vector<float>{-2, -2, -2, -2, -2, 2, 2, -2, -2, 2, 2, -2, -2, -2, -2, -2}));
}

TEST(Preprocess, lists_the_views_in_torchvisions_order) {
  EXPECT_EQ(list_of(Views::one), std::vector<CropView>{CropView{}});
  EXPECT_EQ(list_of(Views::flip), (std::vector<CropView>{{}, {.mirrored = true}}));
  using enum CropView::Place;
  EXPECT_EQ(list_of(Views::ten_crop), (std::vector<CropView>{{top_left, false},
                                                             {top_right, false},
                                                             {bottom_left, false},
                                                             {bottom_right, false},
                                                             {center, false},
                                                             {top_left, true},
                                                             {top_right, true},
                                                             {bottom_left, true},
                                                             {bottom_right, true},
                                                             {center, true}}));
  EXPECT_NO_THROW(validate(Views::ten_crop, {.image_size = 8, .crop_pct = 0.8}));
  EXPECT_NO_THROW(validate(Views::ten_crop, {.image_size = 8, .resize = ResizeRule::shortest}));
  EXPECT_NO_THROW(validate(Views::flip, {.image_size = 8, .resize_size = 4}));
  EXPECT_THROW(validate(Views::ten_crop, {.image_size = 8}), UserError) << "ten times the same";
  EXPECT_THROW(validate(Views::ten_crop, {.image_size = 8, .resize_size = 7}), UserError);
}

TEST(Preprocess, names_its_resize_rules_and_knows_the_names) {
  for (const ResizeRule rule : {ResizeRule::squash, ResizeRule::shortest}) {
    EXPECT_EQ(parse_resize_rule(name_of(rule)), rule);
  }
  EXPECT_THROW(parse_resize_rule("Squash"), UserError);
}

TEST(Preprocess, refuses_settings_that_make_no_sense) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_NO_THROW(validate({.image_size = 1}, 1));
  EXPECT_NO_THROW(validate({.image_size = kMaxImageSize, .mean = {0.5f}, .std = {-1.0f}}, 1));
  EXPECT_THROW(validate({.image_size = 0}, 1), UserError);
  EXPECT_THROW(validate({.image_size = -96}, 1), UserError);
  EXPECT_THROW(validate({.image_size = kMaxImageSize + 1}, 1), UserError);
  EXPECT_NO_THROW(validate({.image_size = 6, .crop_pct = 6.0 / kMaxImageSize}, 1));
  EXPECT_THROW(validate({.resize_size = -1}, 1), UserError);
  EXPECT_THROW(validate({.resize_size = kMaxImageSize + 1}, 1), UserError);
  for (const double share : {0.0, -0.5, 1.0001, 1e-9, 5e-324, std::nan("")}) {
    EXPECT_THROW(validate({.crop_pct = share}, 1), UserError) << share;
  }
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
  for (const int64_t side : {int64_t{0}, kMaxImageSide + 1}) {
    const std::vector<uint8_t> line(static_cast<size_t>(side));
    EXPECT_THROW(preprocess({.pixels = line, .channels = 1, .height = 1, .width = side}, preprocessing, scratch, out),
                 UserError);
  }
}

}  // namespace
}  // namespace resnet
