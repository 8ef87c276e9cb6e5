#pragma once
// Labelled images in memory.

#include <cstdint>
#include <string>
#include <vector>

#include "data/preprocess.h"

namespace resnet {

enum class Split : uint8_t { train, test };

/// "train" or "test".
const char* name_of(Split split);

/// Images of one size with a class each. Whoever fills it keeps the sizes true; image() checks.
struct Dataset {
  std::string name;  ///< "fashion-mnist", or the folder it was read from
  Split split = Split::train;
  int64_t count = 0;
  int64_t channels = 1;
  int64_t height = 0;
  int64_t width = 0;
  std::vector<uint8_t> pixels;           ///< [count, channels, height, width]
  std::vector<int32_t> labels;           ///< [count], each in 0..classes()-1
  std::vector<std::string> class_names;  ///< in the order of the labels

  int64_t classes() const { return static_cast<int64_t>(class_names.size()); }
  /// Throws InternalError when `index` is outside the pixels.
  ImageView image(int64_t index) const;
  /// The first 64 bits of SHA-256 over sizes, classes, pixels and labels: whether a checkpoint was trained on this.
  uint64_t fingerprint() const;
};

/// Where Debian's package dataset-fashion-mnist keeps its files.
inline constexpr const char* kFashionMnistFolder = "/usr/share/datasets/fashion-mnist";

/// Reads a data set by name, "fashion-mnist", or from a folder with the files of MNIST:
/// train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each plain or
/// as .gz (the plain one first). A name wins over a folder of that name; "./fashion-mnist" is the folder.
/// Classes: fashion-mnist's ten; of a folder, one more than the largest training label (of the split's own labels where
/// the folder has no training labels), named by their numbers. Labels are bytes, so there are 256 classes at most.
/// Throws UserError usage (unknown name), UserError bad_data (content, counts that differ, a label out of range),
/// ResourceError io (missing or unreadable) and ResourceError limit (see IdxFile).
Dataset load_dataset(const std::string& name_or_path, Split split);

}  // namespace resnet
