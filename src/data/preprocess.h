#pragma once
// From 8-bit pixels to the network's input. The one function behind training, evaluation, prediction and serving,
// so that a model sees at work exactly what it saw in training.

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "data/augment.h"
#include "data/image.h"
#include "data/resize.h"

namespace resnet {

/// How an image of any shape becomes a square.
enum class ResizeRule : uint8_t {
  squash,    ///< the whole image to a square, whatever its shape: torchvision's Resize((S, S))
  shortest,  ///< the shorter side to S, the shape kept: torchvision's Resize(S), timm's default
};

/// "squash", "shortest": the spelling of flags, configurations and model files.
const char* name_of(ResizeRule rule);
/// Throws UserError with the accepted names.
ResizeRule parse_resize_rule(const std::string& name);

/// What a model file records of its input; the defaults are the lecture's.
struct Preprocessing {
  int64_t image_size = 96;  ///< side of the network's input, which is cut out of the resized image, pixels
  ResizeRule resize = ResizeRule::squash;  ///< to the side S = resized_side()
  int64_t resize_size = 0;                 ///< S in pixels; 0: as crop_pct says
  double crop_pct = 1;                     ///< timm's: S = floor(image_size / crop_pct)
  Interpolation interpolation = Interpolation::bilinear;
  std::vector<float> mean = {};   ///< one value per channel, of the scale 0..1; empty: 0
  std::vector<float> std = {};    ///< one value per channel, not 0; empty: 1
  bool exif_orientation = false;  ///< files are turned as their EXIF orientation says before all this
  bool operator==(const Preprocessing&) const = default;
};

/// The largest side a network's input, and the shorter side of a resized image, may have.
inline constexpr int64_t kMaxImageSize = 8192;

/// The side S of the square, or the shorter side, that images are resized to, in pixels.
int64_t resized_side(const Preprocessing& preprocessing);

/// Throws UserError unless image_size and resized_side() are in 1..kMaxImageSize, crop_pct is in (0, 1], and mean and
/// std are empty or hold one finite value per channel, std none of 0.
void validate(const Preprocessing& preprocessing, int64_t channels);

/// Which part of the resized image the network sees, for predictions averaged over several.
struct CropView {
  enum class Place : uint8_t { center, top_left, top_right, bottom_left, bottom_right };
  Place place = Place::center;
  bool mirrored = false;  ///< that part of the resized image's mirror image, left to right
  bool operator==(const CropView&) const = default;
};

/// The centre alone; with its mirror image; torchvision's TenCrop in its order: the corners and the centre, then those
/// of the mirror image (Krizhevsky et al. 2012, Sec. 4.1).
enum class Views : uint8_t { one, flip, ten_crop };
std::vector<CropView> list_of(Views views);
/// Throws UserError where the views would all be the same: ten crops of an image no larger than the crop.
void validate(Views views, const Preprocessing& preprocessing);

/// Tables and working memory that calls of preprocess share; one per thread.
class PreprocessScratch {
 private:
  friend void preprocess_pixels(const ImageView&, const Preprocessing&, PreprocessScratch&, std::span<uint8_t>,
                                const CropFlip&, const CropView&);
  template <class T>
  friend void preprocess_as(const ImageView&, const Preprocessing&, PreprocessScratch&, std::span<T>, const CropFlip&,
                            const CropView&);
  template <class T>
  using Levels = std::vector<std::array<T, 256>>;  // per channel: the input's value for each pixel value
  /// A resize that makes what a view sees, and where that lies in the square.
  struct Crop {
    Resizer resizer;
    int64_t top = 0, left = 0;
  };
  template <class T>
  const Levels<T>& levels() const {
    return std::get<Levels<T>>(levels_);
  }
  void prepare(const Preprocessing& preprocessing, int64_t channels);
  const Crop& crop(int64_t height, int64_t width, const CropView& view);
  void make_levels(const Preprocessing& preprocessing, int64_t channels);

  std::optional<Preprocessing> preprocessing_;  // what the tables below were made for
  std::unordered_map<uint64_t, Crop> crops_;
  std::tuple<Levels<float>, Levels<double>> levels_;
  std::vector<uint8_t> square_;   // [channels, S, S]
  std::vector<uint8_t> window_;   // what is resized of one channel, where it does not fill the square
  std::vector<uint8_t> changed_;  // one channel after a crop or a flip
  std::vector<uint8_t> working_;
};

/// The pixels that preprocess() scales: out u8 [channels, S, S], S = image_size, equal to torchvision's byte for byte:
///   Resize((R, R)) for squash, or Resize(R), which keeps the shape (the longer side is int(R * long / short)), with
///   Pillow's filter, R = resized_side(); then CenterCrop(S), which pads with 0 where the resized image is smaller.
/// `change`, which only training asks for, is applied to the square; `view` takes another part than the centre.
/// `preprocessing` must have passed validate(), and so must `view`. Throws UserError for a side outside
/// 1..kMaxImageSide.
void preprocess_pixels(const ImageView& image, const Preprocessing& preprocessing, PreprocessScratch& scratch,
                       std::span<uint8_t> out, const CropFlip& change = {}, const CropView& view = {});

/// out [channels, S, S] = (pixels / 255 - mean) / std of preprocess_pixels(), each step in T: in f32 the bits of
/// torchvision's ToTensor and Normalize, in f64 for runs in double.
void preprocess(const ImageView& image, const Preprocessing& preprocessing, PreprocessScratch& scratch,
                std::span<float> out, const CropFlip& change = {}, const CropView& view = {});
void preprocess(const ImageView& image, const Preprocessing& preprocessing, PreprocessScratch& scratch,
                std::span<double> out, const CropFlip& change = {}, const CropView& view = {});

}  // namespace resnet
