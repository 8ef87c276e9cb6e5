#pragma once
// Labelled images: in memory, or as files that are decoded when they are asked for.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/image.h"
#include "data/preprocess.h"

namespace resnet {

/// Which part of a data set. `validation` is what training is judged by and `test` what a finished model is; a data set
/// that has only one of the two gives it for both.
enum class Split : uint8_t { train, validation, test };

/// "train", "validation" or "test".
const char* name_of(Split split);

/// Images with a class each, all of `channels`. Whoever fills it keeps the sizes true; image() checks.
struct Dataset {
  std::string name;            ///< "fashion-mnist", or the path it was read from
  Split split = Split::train;  ///< whose images these are, where the one asked for is not there
  int64_t count = 0;
  int64_t channels = 1;                  ///< of what image() gives: 1 or 3
  std::vector<int32_t> labels;           ///< [count], each in 0..classes()-1
  std::vector<std::string> class_names;  ///< in the order of the labels

  // In memory: images of one size.
  int64_t height = 0;
  int64_t width = 0;
  int64_t stored_channels = 0;  ///< of `pixels`, 1 or 3; 0: `channels`
  std::vector<uint8_t> pixels;  ///< [count, stored_channels, height, width]

  // Files: images of any sizes.
  std::string root;                 ///< what relative `files` stand under, with a "/" at its end, or empty
  std::vector<std::string> files;   ///< [count]; empty: in memory
  std::vector<int64_t> file_bytes;  ///< [count], as found; -1: missing
  bool exif_orientation = false;    ///< turn images upright as EXIF says

  int64_t classes() const { return static_cast<int64_t>(class_names.size()); }
  bool in_memory() const { return files.empty(); }
  /// The path of an image that is a file.
  std::string path_of(int64_t index) const;

  /// One image, u8 [channels, height, width] of its own. `scratch` holds it where it must be decoded or converted (grey
  /// to RGB: repeated; RGB to grey: Pillow's convert("L")); the view lives as long as both. Threads may share the data
  /// set when each brings its own scratch.
  /// Throws InternalError when `index` is outside; of a file what read_image() throws.
  ImageView image(int64_t index, Image& scratch) const;
  /// The same of images in memory that need no conversion.
  ImageView image(int64_t index) const;

  /// Whether a checkpoint was trained on this: the first 64 bits of SHA-256. In memory over sizes, classes, pixels and
  /// labels. Of files over each one's path below `root`, size and label, and over the first MiB of up to 256 of them,
  /// evenly chosen: enough to notice images added, removed, moved, renamed or written anew (any change of one file's
  /// size; a change that keeps every size when it touches the chosen ones), and fast for a million files.
  uint64_t fingerprint() const;
};

/// Where Debian's package dataset-fashion-mnist keeps its files.
inline constexpr const char* kFashionMnistFolder = "/usr/share/datasets/fashion-mnist";

/// Hears how many files a folder has shown so far; only of what takes longer than two seconds.
using ScanProgress = std::function<void(int64_t files)>;

struct DatasetOptions {
  int64_t channels = 0;           ///< 1 grey, 3 RGB; 0: the data set's own: idx 1, CIFAR and files 3
  bool exif_orientation = false;  ///< of files, see Dataset
  bool missing_files = false;     ///< accept a list's files that are not there; asking for one throws
  /// A model's classes: folders and lists are numbered by them, whatever part of them the data has. Data that has none
  /// of them keeps its own; with some of them and others too it is refused.
  std::vector<std::string> class_names = {};
  ScanProgress progress = {};
};

/// What a folder holds, by the files in it; see load_dataset().
enum class FolderKind : uint8_t { idx, cifar10, cifar100, list, images, unknown };
FolderKind kind_of_folder(const std::string& folder);
/// train.csv, train.tsv or train.txt in the folder; empty where there is none.
std::string list_in_folder(const std::string& folder);

/// Reads a data set by name, "fashion-mnist", or from a path:
/// - a folder with the files of MNIST: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
///   t10k-labels-idx1-ubyte, each plain or as .gz (the plain one first). A name wins over a folder of that name;
///   "./fashion-mnist" is the folder. Classes: fashion-mnist's ten; of a folder, one more than the largest training
///   label (of the split's own labels where the folder has no training labels), named by their numbers.
/// - a folder of CIFAR-10's or CIFAR-100's binary files, see cifar.h;
/// - a folder of images, train|val|validation|test/CLASS/..., see image_folder.h;
/// - a list of images with labels, or a folder with train.csv, see image_list.h.
/// Throws UserError usage (unknown name, channels), UserError bad_data (content, counts that differ, a label out of
/// range, classes that differ between splits), UserError refused (see class_names), ResourceError io (missing or
/// unreadable) and ResourceError limit.
Dataset load_dataset(const std::string& name_or_path, Split split, const DatasetOptions& options = {});

}  // namespace resnet
