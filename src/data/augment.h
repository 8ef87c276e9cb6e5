#pragma once
// Random crops and flips of training images. What an image gets is a pure function of (seed, epoch, sample index), so
// that it depends neither on who prepares the batch nor on where a run was stopped and resumed.

#include <cstdint>
#include <span>

namespace resnet {

/// What training images may get, after the resize and in this order; the defaults are nothing. As torchvision's
/// RandomCrop(image_size, padding) and RandomHorizontalFlip(p): padding is 0 before the mean is taken. He et al. 2015,
/// Sec. 4.2, train on CIFAR-10 with {4, 0.5}.
struct Augmentation {
  int64_t random_crop_padding = 0;  ///< pixels of zeros added on each side before a crop back to the image's size
  double hflip_prob = 0;            ///< probability of mirroring left to right
  bool operator==(const Augmentation&) const = default;
};

/// Throws UserError unless random_crop_padding is in 0..image_size-1 and hflip_prob in [0, 1].
void validate(const Augmentation& augmentation, int64_t image_size);

/// A change of one square image that keeps its size: another part of the zero-padded image, then perhaps its mirror
/// image. The default changes nothing.
struct CropFlip {
  int64_t top = 0;   ///< the image's row that becomes row 0, pixels; negative: rows of zeros come first
  int64_t left = 0;  ///< the image's column that becomes column 0, likewise
  bool flip = false;
  bool operator==(const CropFlip&) const = default;
};

/// What sample `sample` gets in epoch `epoch` (from 0): top and left uniform in -padding..padding, flip with
/// probability hflip_prob, all independent. `augmentation` must have passed validate().
CropFlip draw_crop_flip(const Augmentation& augmentation, uint64_t seed, int64_t epoch, int64_t sample);

/// One channel, in [side, side] -> out [side, side], which do not overlap:
///   out(y, x) = in(y + top, x' + left), x' = side - 1 - x if flip, else x; 0 outside the image.
void crop_flip(std::span<const uint8_t> in, int64_t side, const CropFlip& change, std::span<uint8_t> out);

}  // namespace resnet
