#include "data/dataset.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <unordered_map>

#include "base/error.h"
#include "data/cifar.h"
#include "data/decode.h"
#include "data/file_bytes.h"
#include "data/idx.h"
#include "data/image_folder.h"
#include "data/image_list.h"
#include "data/pixel_rows.h"
#include "data/sha256.h"

namespace resnet {

namespace {

const std::vector<std::string> kFashionMnistClasses = {"t-shirt/top", "trouser", "pullover", "dress", "coat",
                                                       "sandal",      "shirt",   "sneaker",  "bag",   "ankle boot"};
constexpr const char* kFashionMnist = "fashion-mnist";

const char* file_stem(Split split, IdxFile::Kind kind) {
  const bool images = kind == IdxFile::Kind::images;
  if (split == Split::train) return images ? "train-images-idx3-ubyte" : "train-labels-idx1-ubyte";
  return images ? "t10k-images-idx3-ubyte" : "t10k-labels-idx1-ubyte";
}

bool exists(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 || errno != ENOENT;
}

/// The plain file or its .gz; empty when the folder has neither.
std::string find_file(const std::string& folder, const char* stem) {
  for (const char* ending : {"", ".gz"}) {
    std::string path = folder + "/" + stem + ending;
    if (exists(path)) return path;
  }
  return "";
}

std::string require_file(const std::string& folder, const char* stem) {
  std::string path = find_file(folder, stem);
  if (path.empty()) {
    throw ResourceError(ExitCode::io,
                        "{0}: holds neither {1} nor {1}.gz; expected one of them beside its images or labels",
                        escape_control(folder), stem);
  }
  return path;
}

void check_labels(const std::vector<uint8_t>& labels, const IdxFile& file, int64_t classes) {
  const auto wrong = std::find_if(labels.begin(), labels.end(), [&](uint8_t label) { return label >= classes; });
  if (wrong == labels.end()) return;
  const auto index = static_cast<uint64_t>(wrong - labels.begin());
  throw bad_data(file.path(), file.body_offset() + index, "label", "found class {} for image {}; expected 0 to {}",
                 *wrong, index, classes - 1);
}

/// `class_names` empty: as many classes as the training labels use.
Dataset load_idx_folder(const std::string& folder, Split split, std::vector<std::string> class_names) {
  const std::string images_path = require_file(folder, file_stem(split, IdxFile::Kind::images));
  const std::string labels_path = require_file(folder, file_stem(split, IdxFile::Kind::labels));
  IdxFile images(images_path, IdxFile::Kind::images);
  IdxFile labels(labels_path, IdxFile::Kind::labels);
  if (labels.count() != images.count()) {
    throw bad_data(labels.path(), 4, "count", "found {} labels; expected {}, one for each image of {}", labels.count(),
                   images.count(), images.path());
  }
  for (const int64_t side : {images.height(), images.width()}) {
    if (side > kMaxImageSide) {
      throw ResourceError(ExitCode::limit, "{}: holds images of {} x {} pixels; at most {} pixels a side are read",
                          images.path(), images.height(), images.width(), kMaxImageSide);
    }
  }
  const std::vector<uint8_t> classes_of_images = labels.read();
  if (class_names.empty()) {
    const auto largest = [](const std::vector<uint8_t>& values) {
      return *std::max_element(values.begin(), values.end());
    };
    const std::string train_path = find_file(folder, file_stem(Split::train, IdxFile::Kind::labels));
    const int last = split == Split::train || train_path.empty()
                         ? largest(classes_of_images)
                         : largest(IdxFile(train_path, IdxFile::Kind::labels).read());
    for (int label = 0; label <= last; ++label) class_names.push_back(std::to_string(label));
  }
  check_labels(classes_of_images, labels, static_cast<int64_t>(class_names.size()));
  Dataset dataset;
  dataset.name = folder;
  dataset.split = split == Split::train ? Split::train : Split::test;  // there is no third
  dataset.count = images.count();
  dataset.stored_channels = 1;
  dataset.height = images.height();
  dataset.width = images.width();
  dataset.labels.assign(classes_of_images.begin(), classes_of_images.end());
  dataset.class_names = std::move(class_names);
  dataset.pixels = images.read();
  return dataset;
}

bool has_idx_files(const std::string& folder) {
  for (const Split split : {Split::train, Split::test}) {
    for (const IdxFile::Kind kind : {IdxFile::Kind::images, IdxFile::Kind::labels}) {
      if (!find_file(folder, file_stem(split, kind)).empty()) return true;
    }
  }
  return false;
}

bool same_folder(const struct stat& status, const char* path) {
  struct stat other {};
  return stat(path, &other) == 0 && other.st_dev == status.st_dev && other.st_ino == status.st_ino;
}

}  // namespace

const char* name_of(Split split) {
  switch (split) {
    case Split::train: return "train";
    case Split::validation: return "validation";
    case Split::test: return "test";
  }
  throw InternalError("dataset: a split without a name");
}

std::string Dataset::path_of(int64_t index) const {
  check(index >= 0 && static_cast<size_t>(index) < files.size(), "Dataset: an image's index is outside the files");
  const std::string& file = files[static_cast<size_t>(index)];
  return file.starts_with('/') ? file : root + file;
}

ImageView Dataset::image(int64_t index) const {
  check(in_memory() && (stored_channels == 0 || stored_channels == channels), "Dataset: this image needs a scratch");
  const auto image_bytes = static_cast<uint64_t>(channels * height * width);
  const bool inside = index >= 0 && image_bytes > 0 && static_cast<uint64_t>(index) < pixels.size() / image_bytes;
  check(inside, "Dataset: an image's index is outside the pixels");
  return {.pixels = {pixels.data() + static_cast<uint64_t>(index) * image_bytes, image_bytes},
          .channels = channels,
          .height = height,
          .width = width};
}

ImageView Dataset::image(int64_t index, Image& scratch) const {
  if (!in_memory()) {
    scratch = read_image(path_of(index), {.channels = channels, .exif_orientation = exif_orientation});
    return scratch.view();
  }
  if (stored_channels == 0 || stored_channels == channels) return image(index);
  const auto plane = static_cast<uint64_t>(height * width);
  const uint64_t image_bytes = plane * static_cast<uint64_t>(stored_channels);
  const bool inside = index >= 0 && image_bytes > 0 && static_cast<uint64_t>(index) < pixels.size() / image_bytes;
  check(inside, "Dataset: an image's index is outside the pixels");
  const uint8_t* stored = pixels.data() + static_cast<uint64_t>(index) * image_bytes;
  scratch.channels = channels;
  scratch.height = height;
  scratch.width = width;
  scratch.pixels.resize(plane * static_cast<uint64_t>(channels));
  if (channels == 1) {
    for (uint64_t i = 0; i < plane; ++i) {
      scratch.pixels[i] = luma(stored[i], stored[plane + i], stored[2 * plane + i]);
    }
  } else {
    for (uint64_t c = 0; c < static_cast<uint64_t>(channels); ++c) {
      std::copy_n(stored, plane, scratch.pixels.begin() + static_cast<std::ptrdiff_t>(c * plane));
    }
  }
  return scratch.view();
}

uint64_t Dataset::fingerprint() const {
  Sha256 hash;
  for (const int64_t size : {count, channels, height, width, classes()}) hash.add(size);
  hash.add(pixels.data(), pixels.size());
  for (const int32_t label : labels) hash.add(label);
  if (in_memory()) return hash.first_64_bits();
  hash.add(int64_t{exif_orientation});
  for (size_t i = 0; i < files.size(); ++i) {
    hash.add(static_cast<int64_t>(files[i].size()));
    hash.add(files[i].data(), files[i].size());
    hash.add(file_bytes[i]);
  }
  constexpr int64_t kChosen = 256;
  constexpr size_t kMostBytes = size_t{1} << 20;
  std::vector<std::byte> start;
  for (int64_t k = 0; k < std::min(kChosen, count); ++k) {
    const int64_t index = k * count / std::min(kChosen, count);
    // What cannot be read counts as empty here: whether that stops a run is not the fingerprint's to say.
    try {
      read_file_start(path_of(index), kMostBytes, start);
    } catch (const ResourceError&) {
      start.clear();
    }
    hash.add(start.data(), start.size());
  }
  return hash.first_64_bits();
}

std::string list_in_folder(const std::string& folder) {
  for (const char* name : {"train.csv", "train.tsv", "train.txt"}) {
    std::string path = folder + "/" + name;
    if (exists(path)) return path;
  }
  return "";
}

FolderKind kind_of_folder(const std::string& folder) {
  if (has_idx_files(folder)) return FolderKind::idx;
  if (is_cifar_folder(folder, CifarKind::cifar10)) return FolderKind::cifar10;
  if (is_cifar_folder(folder, CifarKind::cifar100)) return FolderKind::cifar100;
  if (!list_in_folder(folder).empty()) return FolderKind::list;
  return is_image_folder(folder) ? FolderKind::images : FolderKind::unknown;
}

namespace {

Dataset load_fashion_mnist(Split split) {
  for (const IdxFile::Kind kind : {IdxFile::Kind::images, IdxFile::Kind::labels}) {
    if (!find_file(kFashionMnistFolder, file_stem(split, kind)).empty()) continue;
    throw ResourceError(ExitCode::io,
                        "fashion-mnist: {} has no {}.gz; expected Debian's package, so run: apt-get install "
                        "dataset-fashion-mnist",
                        kFashionMnistFolder, file_stem(split, kind));
  }
  Dataset dataset = load_idx_folder(kFashionMnistFolder, split, kFashionMnistClasses);
  dataset.name = kFashionMnist;
  return dataset;
}

constexpr const char* kKinds =
    "the path of a folder with idx files (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
    "t10k-labels-idx1-ubyte, plain or .gz), with CIFAR's binary files, or with images as train/CLASS/... and "
    "val/CLASS/..., or a list of path,label";

Dataset load_folder(const std::string& path, const struct stat& status, Split split, const DatasetOptions& options) {
  switch (kind_of_folder(path)) {
    // The package's own folder is the same data, so it has the same class names.
    case FolderKind::idx:
      return load_idx_folder(
          path, split, same_folder(status, kFashionMnistFolder) ? kFashionMnistClasses : std::vector<std::string>{});
    case FolderKind::cifar10: return load_cifar_folder(path, CifarKind::cifar10, split);
    case FolderKind::cifar100: return load_cifar_folder(path, CifarKind::cifar100, split);
    case FolderKind::list: return load_image_list(list_in_folder(path), split, options.missing_files);
    case FolderKind::images: return load_image_folder(path, split, options.progress);
    case FolderKind::unknown: break;
  }
  throw ResourceError(ExitCode::io, "{}: holds no data set; expected {}", escape_control(path), kKinds);
}

Dataset load_any(const std::string& name_or_path, Split split, const DatasetOptions& options) {
  if (name_or_path == kFashionMnist) return load_fashion_mnist(split);
  const std::string shown = escape_control(name_or_path);
  struct stat status {};
  if (stat(name_or_path.c_str(), &status) != 0) {
    const int reason = errno;
    if (reason == ENOENT && name_or_path.find('/') == std::string::npos) {
      throw UserError("data '{}': neither a known data set nor a folder; expected {} (nearest name: {}), or {}", shown,
                      kFashionMnist, nearest_names(name_or_path, {kFashionMnist}), kKinds);
    }
    throw io_error(shown, "open the data set", reason);
  }
  if (S_ISDIR(status.st_mode)) return load_folder(name_or_path, status, split, options);
  if (S_ISREG(status.st_mode)) return load_image_list(name_or_path, split, options.missing_files);
  throw ResourceError(ExitCode::io, "{}: is neither a folder nor a file; expected {}, or {}", shown, kFashionMnist,
                      kKinds);
}

/// Labels by their place in `names`. Data that knows none of the names keeps its own; of a mixture nobody can say which
/// class is which.
void renumber(Dataset& dataset, const std::vector<std::string>& names) {
  std::unordered_map<std::string, int32_t> place;
  for (const std::string& name : names) place.emplace(name, static_cast<int32_t>(place.size()));
  if (place.size() != names.size()) return;  // a model may call two classes the same
  std::vector<int32_t> number;
  std::vector<std::string> unknown;
  for (const std::string& name : dataset.class_names) {
    const auto found = place.find(name);
    if (found == place.end()) {
      unknown.push_back(name);
    } else {
      number.push_back(found->second);
    }
  }
  if (number.empty()) return;
  if (!unknown.empty()) {
    throw UserError(ExitCode::refused,
                    "{}: has the class '{}' (and {} more) that the model does not know, and {} that it does; expected "
                    "the model's class names only; nearest: {}",
                    escape_control(dataset.name), escape_control(unknown[0]), unknown.size() - 1, number.size(),
                    escape_control(nearest_names(unknown[0], names)));
  }
  for (int32_t& label : dataset.labels) label = number[static_cast<size_t>(label)];
  dataset.class_names = names;
}

}  // namespace

Dataset load_dataset(const std::string& name_or_path, Split split, const DatasetOptions& options) {
  if (options.channels != 0 && options.channels != 1 && options.channels != 3) {
    throw UserError("channels: found {}; expected 1 (grey), 3 (RGB) or 0 (the data set's own)", options.channels);
  }
  Dataset dataset = load_any(name_or_path, split, options);
  dataset.name = name_or_path;
  if (options.channels != 0) dataset.channels = options.channels;
  if (!dataset.in_memory() && !options.class_names.empty()) renumber(dataset, options.class_names);
  dataset.exif_orientation = options.exif_orientation && !dataset.in_memory();
  return dataset;
}

}  // namespace resnet
