#include "data/dataset.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include "base/error.h"
#include "data/idx.h"

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
  dataset.split = split;
  dataset.count = images.count();
  dataset.height = images.height();
  dataset.width = images.width();
  dataset.labels.assign(classes_of_images.begin(), classes_of_images.end());
  dataset.class_names = std::move(class_names);
  dataset.pixels = images.read();
  return dataset;
}

bool same_folder(const struct stat& status, const char* path) {
  struct stat other {};
  return stat(path, &other) == 0 && other.st_dev == status.st_dev && other.st_ino == status.st_ino;
}

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) fail();
  }
  void add(const void* bytes, size_t size) {
    if (EVP_DigestUpdate(context_.get(), bytes, size) != 1) fail();
  }
  /// Little-endian, so that every machine has the same fingerprint.
  void add(int64_t value) {
    std::array<uint8_t, 8> bytes{};
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(static_cast<uint64_t>(value) >> (8 * i));
    add(bytes.data(), bytes.size());
  }
  uint64_t first_64_bits() {
    std::array<uint8_t, EVP_MAX_MD_SIZE> digest{};
    if (EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr) != 1) fail();
    uint64_t bits = 0;
    for (size_t i = 0; i < 8; ++i) bits = bits << 8 | digest[i];
    return bits;
  }

 private:
  [[noreturn]] static void fail() { throw ResourceError(ExitCode::limit, "fingerprint: SHA-256 is not available"); }
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

}  // namespace

const char* name_of(Split split) { return split == Split::train ? "train" : "test"; }

ImageView Dataset::image(int64_t index) const {
  const auto image_bytes = static_cast<uint64_t>(channels * height * width);
  const bool inside = index >= 0 && image_bytes > 0 && static_cast<uint64_t>(index) < pixels.size() / image_bytes;
  check(inside, "Dataset: an image's index is outside the pixels");
  return {.pixels = {pixels.data() + static_cast<uint64_t>(index) * image_bytes, image_bytes},
          .channels = channels,
          .height = height,
          .width = width};
}

uint64_t Dataset::fingerprint() const {
  Sha256 hash;
  for (const int64_t size : {count, channels, height, width, classes()}) hash.add(size);
  hash.add(pixels.data(), pixels.size());
  for (const int32_t label : labels) hash.add(label);
  return hash.first_64_bits();
}

Dataset load_dataset(const std::string& name_or_path, Split split) {
  const std::string shown = escape_control(name_or_path);
  if (name_or_path == kFashionMnist) {
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
  struct stat status {};
  if (stat(name_or_path.c_str(), &status) != 0) {
    const int reason = errno;
    if (reason == ENOENT && name_or_path.find('/') == std::string::npos) {
      throw UserError(
          "data '{}': neither a known data set nor a folder; expected {} (nearest name: {}), or the path of a folder "
          "with "
          "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, plain "
          "or "
          ".gz",
          shown, kFashionMnist, nearest_names(name_or_path, {kFashionMnist}));
    }
    throw io_error(shown, "open the data set's folder", reason);
  }
  if (!S_ISDIR(status.st_mode)) {
    throw ResourceError(ExitCode::io, "{}: is no folder; expected a folder of idx files, or a data set's name: {}",
                        shown, kFashionMnist);
  }
  // The package's own folder is the same data, so it has the same class names.
  return load_idx_folder(name_or_path, split,
                         same_folder(status, kFashionMnistFolder) ? kFashionMnistClasses : std::vector<std::string>{});
}

}  // namespace resnet
