#include "data/preprocess.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/error.h"

namespace resnet {

void validate(const Preprocessing& preprocessing, int64_t channels) {
  if (preprocessing.image_size < 1 || preprocessing.image_size > kMaxImageSize) {
    throw UserError("image size: found {}; expected 1 to {} pixels", preprocessing.image_size, kMaxImageSize);
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

const Resizer& PreprocessScratch::resizer(int64_t height, int64_t width, const Preprocessing& preprocessing) {
  // A folder of photos may hold any number of sizes; the tables of a few are worth their memory.
  constexpr size_t kMostResizers = 64;
  // Sides that could collide in this key are refused by the Resizer.
  const uint64_t key = static_cast<uint64_t>(height) << 32 ^ static_cast<uint64_t>(width);
  const auto found = resizers_.find(key);
  if (found != resizers_.end()) return found->second;
  if (resizers_.size() >= kMostResizers) resizers_.clear();
  const int64_t size = preprocessing.image_size;
  return resizers_.emplace(key, Resizer(height, width, size, size, preprocessing.interpolation)).first->second;
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

template <class T>
void preprocess_as(const ImageView& image, const Preprocessing& preprocessing, PreprocessScratch& scratch,
                   std::span<T> out, const CropFlip& change) {
  const auto plane_in = static_cast<size_t>(image.height * image.width);
  const auto plane_out = static_cast<size_t>(preprocessing.image_size * preprocessing.image_size);
  const auto channels = static_cast<size_t>(image.channels);
  check(image.pixels.size() == channels * plane_in, "preprocess: the pixels do not fill the image");
  check(out.size() == channels * plane_out, "preprocess: the output is not of the image's channels and the input size");
  if (scratch.preprocessing_ != preprocessing || scratch.levels<T>().size() != channels) {
    scratch.preprocessing_ = preprocessing;
    scratch.resizers_.clear();
    scratch.make_levels(preprocessing, image.channels);
  }
  const Resizer& resizer = scratch.resizer(image.height, image.width, preprocessing);
  scratch.resized_.resize(plane_out);
  const bool is_changed = change != CropFlip{};
  if (is_changed) scratch.changed_.resize(plane_out);
  const std::vector<uint8_t>& pixels = is_changed ? scratch.changed_ : scratch.resized_;
  for (size_t c = 0; c < channels; ++c) {
    resizer.resize(image.pixels.subspan(c * plane_in, plane_in), scratch.resized_, scratch.working_);
    if (is_changed) crop_flip(scratch.resized_, preprocessing.image_size, change, scratch.changed_);
    const std::array<T, 256>& levels = scratch.levels<T>()[c];
    std::transform(pixels.begin(), pixels.end(), out.begin() + static_cast<std::ptrdiff_t>(c * plane_out),
                   [&](uint8_t level) { return levels[level]; });
  }
}

void preprocess(const ImageView& image, const Preprocessing& preprocessing, PreprocessScratch& scratch,
                std::span<float> out, const CropFlip& change) {
  preprocess_as(image, preprocessing, scratch, out, change);
}

void preprocess(const ImageView& image, const Preprocessing& preprocessing, PreprocessScratch& scratch,
                std::span<double> out, const CropFlip& change) {
  preprocess_as(image, preprocessing, scratch, out, change);
}

}  // namespace resnet
