#include "data/preprocess.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/error.h"

namespace resnet {

const char* name_of(ResizeRule rule) { return rule == ResizeRule::squash ? "squash" : "shortest"; }

ResizeRule parse_resize_rule(const std::string& name) {
  for (const ResizeRule rule : {ResizeRule::squash, ResizeRule::shortest}) {
    if (name == name_of(rule)) return rule;
  }
  throw UserError("resize: found '{}'; expected squash or shortest", escape_control(name));
}

int64_t resized_side(const Preprocessing& preprocessing) {
  if (preprocessing.resize_size != 0) return preprocessing.resize_size;
  return static_cast<int64_t>(std::floor(static_cast<double>(preprocessing.image_size) / preprocessing.crop_pct));
}

void validate(const Preprocessing& preprocessing, int64_t channels) {
  if (preprocessing.image_size < 1 || preprocessing.image_size > kMaxImageSize) {
    throw UserError("image size: found {}; expected 1 to {} pixels", preprocessing.image_size, kMaxImageSize);
  }
  if (preprocessing.resize_size < 0 || preprocessing.resize_size > kMaxImageSize) {
    throw UserError("resize size: found {}; expected 1 to {} pixels, or 0 (as crop_pct says)",
                    preprocessing.resize_size, kMaxImageSize);
  }
  if (!(preprocessing.crop_pct > 0 && preprocessing.crop_pct <= 1)) {  // a NaN too
    throw UserError("crop_pct: found {}; expected a number above 0, at most 1", preprocessing.crop_pct);
  }
  if (const double side = static_cast<double>(preprocessing.image_size) / preprocessing.crop_pct;
      preprocessing.resize_size == 0 && !(side < kMaxImageSize + 1)) {
    throw UserError("crop_pct: found {}, which resizes to {:.0f} pixels; expected at most {}", preprocessing.crop_pct,
                    side, kMaxImageSize);
  }
  const auto check_values = [&](const char* what, const std::vector<float>& values) {
    if (!values.empty() && static_cast<int64_t>(values.size()) != channels) {
      throw UserError("{}: found {} values; expected one for each of the {} channels, or none", what, values.size(),
                      channels);
    }
    for (const float value : values) {
      if (!std::isfinite(value)) throw UserError("{}: found {}; expected finite numbers", what, value);
    }
  };
  check_values("mean", preprocessing.mean);
  check_values("std", preprocessing.std);
  if (std::count(preprocessing.std.begin(), preprocessing.std.end(), 0.0f) != 0) {
    throw UserError("std: found 0; expected numbers to divide by");
  }
}

std::vector<CropView> list_of(Views views) {
  if (views == Views::one) return {CropView{}};
  if (views == Views::flip) return {CropView{}, CropView{.mirrored = true}};
  std::vector<CropView> ten;
  for (const bool mirrored : {false, true}) {
    for (const CropView::Place place :
         {CropView::Place::top_left, CropView::Place::top_right, CropView::Place::bottom_left,
          CropView::Place::bottom_right, CropView::Place::center}) {
      ten.push_back({.place = place, .mirrored = mirrored});
    }
  }
  return ten;
}

void validate(Views views, const Preprocessing& preprocessing) {
  if (views != Views::ten_crop) return;
  const int64_t side = resized_side(preprocessing);
  const bool room = side > preprocessing.image_size ||
                    (side == preprocessing.image_size && preprocessing.resize == ResizeRule::shortest);
  if (!room) {
    throw UserError(
        "ten crops: images are resized to {0} ({1}), and the crop is {2} pixels; expected a resize above "
        "{2}, as a model trained with --resize-size or --crop-pct has; use the flip instead",
        side, name_of(preprocessing.resize), preprocessing.image_size);
  }
}

namespace {

/// Along one side: `size` pixels from `begin` of the resized image lie at `at` of the square.
struct Stretch {
  int64_t begin = 0, size = 0, at = 0;
};

enum class Edge : uint8_t { start, middle, end };

Stretch stretch_of(int64_t resized, int64_t crop, Edge edge) {
  // torchvision's center_crop pads the smaller side, the odd pixel behind.
  if (resized < crop) return {.begin = 0, .size = resized, .at = (crop - resized) / 2};
  const int64_t margin = resized - crop;
  // Python's round(): a half goes to the even neighbour.
  const int64_t middle = margin / 2 + (margin % 2 == 1 && margin / 2 % 2 == 1 ? 1 : 0);
  return {.begin = edge == Edge::start ? 0 : edge == Edge::end ? margin : middle, .size = crop, .at = 0};
}

Edge vertical(CropView::Place place) {
  if (place == CropView::Place::center) return Edge::middle;
  return place == CropView::Place::top_left || place == CropView::Place::top_right ? Edge::start : Edge::end;
}

Edge horizontal(CropView::Place place) {
  if (place == CropView::Place::center) return Edge::middle;
  return place == CropView::Place::top_left || place == CropView::Place::bottom_left ? Edge::start : Edge::end;
}

}  // namespace

const PreprocessScratch::Crop& PreprocessScratch::crop(int64_t height, int64_t width, const CropView& view) {
  for (const int64_t side : {height, width}) {
    if (side < 1 || side > kMaxImageSide) {
      throw UserError("resize: found an image side of {} pixels; expected 1 to {}", side, kMaxImageSide);
    }
  }
  // A folder of photos may hold any number of sizes; the tables of a few are worth their memory.
  constexpr size_t kMostCrops = 64;
  const auto number = static_cast<uint64_t>(view.place) << 1 | (view.mirrored ? 1 : 0);
  const uint64_t key = static_cast<uint64_t>(height) << 32 | static_cast<uint64_t>(width) << 8 | number;
  const auto found = crops_.find(key);
  if (found != crops_.end()) return found->second;
  if (crops_.size() >= kMostCrops) crops_.clear();

  const int64_t side = resized_side(*preprocessing_);
  int64_t resized_height = side, resized_width = side;
  if (preprocessing_->resize == ResizeRule::shortest) {
    // Both numbers are exact in double, so that this is Python's int(side * long / short).
    const auto longer = [&](int64_t from, int64_t shorter) {
      return static_cast<int64_t>(static_cast<double>(side * from) / static_cast<double>(shorter));
    };
    (width <= height ? resized_height : resized_width) =
        width <= height ? longer(height, width) : longer(width, height);
  }
  const int64_t size = preprocessing_->image_size;
  const Stretch rows = stretch_of(resized_height, size, vertical(view.place));
  Stretch columns = stretch_of(resized_width, size, horizontal(view.place));
  // The part of the mirror image, found in the image itself.
  if (view.mirrored) columns.begin = resized_width - columns.size - columns.begin;
  const Window window{.top = rows.begin, .left = columns.begin, .height = rows.size, .width = columns.size};
  Resizer resizer(height, width, resized_height, resized_width, preprocessing_->interpolation, window);
  return crops_.emplace(key, Crop{.resizer = std::move(resizer), .top = rows.at, .left = columns.at}).first->second;
}

void PreprocessScratch::make_levels(const Preprocessing& preprocessing, int64_t channels) {
  const auto make = [&](auto& levels) {
    using T = typename std::remove_reference_t<decltype(levels)>::value_type::value_type;
    levels.resize(static_cast<size_t>(channels));
    for (size_t c = 0; c < levels.size(); ++c) {
      for (size_t level = 0; level < 256; ++level) {
        T value = static_cast<T>(level) / T{255};
        if (!preprocessing.mean.empty()) value -= static_cast<T>(preprocessing.mean[c]);
        if (!preprocessing.std.empty()) value /= static_cast<T>(preprocessing.std[c]);
        levels[c][level] = value;
      }
    }
  };
  std::apply([&](auto&... levels) { (make(levels), ...); }, levels_);
}

void PreprocessScratch::prepare(const Preprocessing& preprocessing, int64_t channels) {
  if (preprocessing_ == preprocessing && levels<float>().size() == static_cast<size_t>(channels)) return;
  preprocessing_ = preprocessing;
  crops_.clear();
  make_levels(preprocessing, channels);
}

void preprocess_pixels(const ImageView& image, const Preprocessing& preprocessing, PreprocessScratch& scratch,
                       std::span<uint8_t> out, const CropFlip& change, const CropView& view) {
  const auto plane_in = static_cast<size_t>(image.height * image.width);
  const int64_t size = preprocessing.image_size;
  const auto plane_out = static_cast<size_t>(size * size);
  const auto channels = static_cast<size_t>(image.channels);
  check(channels >= 1 && image.pixels.size() == channels * plane_in, "preprocess: the pixels do not fill the image");
  check(out.size() == channels * plane_out, "preprocess: the output is not of the image's channels and the input size");
  scratch.prepare(preprocessing, image.channels);
  const PreprocessScratch::Crop& crop = scratch.crop(image.height, image.width, view);
  const Resizer& resizer = crop.resizer;
  const auto height = resizer.out_height(), width = resizer.out_width();
  const bool fills = height == size && width == size && !view.mirrored;
  scratch.window_.resize(fills ? 0 : static_cast<size_t>(height * width));
  for (size_t c = 0; c < channels; ++c) {
    const auto from = image.pixels.subspan(c * plane_in, plane_in);
    const auto square = out.subspan(c * plane_out, plane_out);
    if (fills) {
      resizer.resize(from, square, scratch.working_);
    } else {
      resizer.resize(from, scratch.window_, scratch.working_);
      std::fill(square.begin(), square.end(), uint8_t{0});
      for (int64_t y = 0; y < height; ++y) {
        const auto row = scratch.window_.begin() + y * width;
        const auto to = square.begin() + (crop.top + y) * size + crop.left;
        std::copy_n(row, width, to);
        if (view.mirrored) std::reverse(to, to + width);
      }
    }
    if (change != CropFlip{}) {
      scratch.changed_.assign(square.begin(), square.end());
      crop_flip(scratch.changed_, size, change, square);
    }
  }
}

template <class T>
void preprocess_as(const ImageView& image, const Preprocessing& preprocessing, PreprocessScratch& scratch,
                   std::span<T> out, const CropFlip& change, const CropView& view) {
  scratch.square_.resize(out.size());
  preprocess_pixels(image, preprocessing, scratch, scratch.square_, change, view);
  const auto plane = static_cast<size_t>(preprocessing.image_size * preprocessing.image_size);
  for (size_t i = 0; i < out.size(); i += plane) {
    const std::array<T, 256>& levels = scratch.levels<T>()[i / plane];
    for (size_t x = 0; x < plane; ++x) out[i + x] = levels[scratch.square_[i + x]];
  }
}

void preprocess(const ImageView& image, const Preprocessing& preprocessing, PreprocessScratch& scratch,
                std::span<float> out, const CropFlip& change, const CropView& view) {
  preprocess_as(image, preprocessing, scratch, out, change, view);
}

void preprocess(const ImageView& image, const Preprocessing& preprocessing, PreprocessScratch& scratch,
                std::span<double> out, const CropFlip& change, const CropView& view) {
  preprocess_as(image, preprocessing, scratch, out, change, view);
}

}  // namespace resnet
