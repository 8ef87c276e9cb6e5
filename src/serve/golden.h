#pragma once
// A golden: what a model made of some images once, here or in another program, to be held against what it makes now.

#include <cstdint>
#include <string>
#include <vector>

#include "data/image.h"
#include "serve/classifier.h"

namespace resnet {

/// One image's way through the model.
struct GoldenImage {
  std::string file;           ///< path, relative to the golden's folder
  std::string sha256;         ///< of the file, 64 hex digits
  std::string pixels_sha256;  ///< of preprocess_pixels(): u8 [channels, S, S]
  std::vector<float> logits;  ///< [classes]
};

/// As JSON: {"format": "resnet golden 1", "architecture", "preprocessing": {...}, "images": [{"file", "sha256",
/// "pixels_sha256", "logits": [...]}]}. `architecture` and `preprocessing` are for readers; what they must be is proved
/// by the pixels and logits.
struct Golden {
  std::string architecture;
  Preprocessing preprocessing;
  std::vector<GoldenImage> images;
};

/// What `classifier` makes of the file at `path`; `file` is the name it gets. One image at a time, so that the number
/// of images changes nothing. Throws as read_image() and Classifier::logits().
GoldenImage observe(Classifier& classifier, const std::string& path, const std::string& file);

/// Throws as atomic_write_file().
void write_golden(const std::string& path, const Golden& golden);
/// The images alone. Throws bad_data naming the image and field that is missing or malformed, also when `classes` is
/// not the number of logits; io when missing; limit above 32 MiB.
std::vector<GoldenImage> read_golden(const std::string& path, size_t classes);

/// How far `now` is from `then`.
struct GoldenDifference {
  bool file = false;    ///< another file: then the rest says little
  bool pixels = false;  ///< not byte for byte
  double logits = 0;    ///< largest |now - then| over largest |then|; infinite with a NaN on one side alone
};
GoldenDifference difference(const GoldenImage& now, const GoldenImage& then);

}  // namespace resnet
