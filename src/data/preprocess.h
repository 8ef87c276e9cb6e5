#pragma once
// From 8-bit pixels to the network's input. The one function behind training, evaluation, prediction and serving,
// so that a model sees at work exactly what it saw in training.

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "data/augment.h"
#include "data/image.h"
#include "data/resize.h"

namespace resnet {

/// What a model file records of its input; the defaults are the lecture's.
struct Preprocessing {
  int64_t image_size = 96;  ///< side of the square the whole image is resized to, in pixels
  Interpolation interpolation = Interpolation::bilinear;
  std::vector<float> mean = {};  ///< one value per channel, of the scale 0..1; empty: 0
  std::vector<float> std = {};   ///< one value per channel, not 0; empty: 1
  bool operator==(const Preprocessing&) const = default;
};

/// The largest side a network's input may have.
inline constexpr int64_t kMaxImageSize = 8192;

/// Throws UserError unless image_size is in 1..kMaxImageSize, and mean and std are empty or hold one finite value per
/// channel, std none of 0.
void validate(const Preprocessing& preprocessing, int64_t channels);

/// Tables and working memory that calls of preprocess share; one per thread.
class PreprocessScratch {
 private:
  template <class T>
  friend void preprocess_as(const ImageView&, const Preprocessing&, PreprocessScratch&, std::span<T>, const CropFlip&);
  template <class T>
  using Levels = std::vector<std::array<T, 256>>;  // per channel: the input's value for each pixel value
  template <class T>
  const Levels<T>& levels() const {
    return std::get<Levels<T>>(levels_);
  }
  const Resizer& resizer(int64_t height, int64_t width, const Preprocessing& preprocessing);
  void make_levels(const Preprocessing& preprocessing, int64_t channels);

  std::optional<Preprocessing> preprocessing_;  // what the tables below were made for
  std::unordered_map<uint64_t, Resizer> resizers_;
  std::tuple<Levels<float>, Levels<double>> levels_;
  std::vector<uint8_t> resized_;
  std::vector<uint8_t> changed_;  // by a crop or a flip
  std::vector<uint8_t> working_;
};

/// out [channels, S, S] = (resized / 255 - mean) / std, each step in T: in f32 as torchvision's ToTensor and Normalize
/// do it, in f64 for runs in double; resized is Pillow's image.resize((S, S), interpolation), S = image_size.
/// `change`, which only training asks for, is applied to the resized pixels.
/// `preprocessing` must have passed validate(). Throws UserError for a side outside 1..kMaxImageSide.
void preprocess(const ImageView& image, const Preprocessing& preprocessing, PreprocessScratch& scratch,
                std::span<float> out, const CropFlip& change = {});
void preprocess(const ImageView& image, const Preprocessing& preprocessing, PreprocessScratch& scratch,
                std::span<double> out, const CropFlip& change = {});

}  // namespace resnet
