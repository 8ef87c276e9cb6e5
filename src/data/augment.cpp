#include "data/augment.h"

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"

namespace resnet {

void validate(const Augmentation& augmentation, int64_t image_size) {
  if (augmentation.random_crop_padding < 0 || augmentation.random_crop_padding >= image_size) {
    throw UserError("random crop padding: found {}; expected 0 (off) to {} pixels, less than the image's side",
                    augmentation.random_crop_padding, image_size - 1);
  }
  if (!(augmentation.hflip_prob >= 0 && augmentation.hflip_prob <= 1)) {  // a NaN too
    throw UserError("horizontal flip: found probability {}; expected a number in [0, 1]", augmentation.hflip_prob);
  }
}

CropFlip draw_crop_flip(const Augmentation& augmentation, uint64_t seed, int64_t epoch, int64_t sample) {
  // A stream for each, so that turning one on or off leaves the other's draws as they are.
  const auto stream = [&](const char* name) {
    const uint64_t of_epoch = hash_combine(hash_combine(hash_text(name), seed), static_cast<uint64_t>(epoch));
    return Rng(hash_combine(of_epoch, static_cast<uint64_t>(sample)));
  };
  Rng crop = stream("random crop");
  Rng flip = stream("horizontal flip");
  const int64_t padding = augmentation.random_crop_padding;
  const auto places = static_cast<uint64_t>(2 * padding + 1);
  const auto offset = [&] { return static_cast<int64_t>(crop.below(places)) - padding; };
  CropFlip change;
  change.top = offset();
  change.left = offset();
  change.flip = flip.uniform() < augmentation.hflip_prob;
  return change;
}

void crop_flip(std::span<const uint8_t> in, int64_t side, const CropFlip& change, std::span<uint8_t> out) {
  const auto pixels = static_cast<size_t>(side * side);
  check(in.size() == pixels && out.size() == pixels, "crop_flip: the pixels do not fill the image");
  std::fill(out.begin(), out.end(), uint8_t{0});
  // Rows and columns of the result that lie inside the image; none where the shift is larger than the image.
  const int64_t first_row = std::max<int64_t>(0, -change.top);
  const int64_t end_row = std::min(side, side - change.top);
  const int64_t first_column = std::max<int64_t>(0, -change.left);
  const int64_t columns = std::min(side, side - change.left) - first_column;
  if (columns <= 0) return;
  for (int64_t y = first_row; y < end_row; ++y) {
    const auto from = in.begin() + ((y + change.top) * side + first_column + change.left);
    const auto row = out.begin() + y * side;
    std::copy_n(from, columns, row + first_column);
    if (change.flip) std::reverse(row, row + side);
  }
}

}  // namespace resnet
