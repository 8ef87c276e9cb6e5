#include "data/image_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "base/error.h"
#include "data/class_names.h"
#include "data/decode.h"

namespace resnet {

namespace {

constexpr const char* kTrain = "train";
constexpr const char* kValidation[] = {"val", "validation"};
constexpr const char* kTest = "test";

bool is_directory(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

bool has_image_ending(const std::string& name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos) return false;
  std::string ending = name.substr(dot + 1);
  for (char& c : ending) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  static constexpr std::array kEndings = {"jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "tif", "tiff"};
  return std::find(kEndings.begin(), kEndings.end(), ending) != kEndings.end();
}

bool has_image_content(int folder, const char* name) {
  const int file = openat(folder, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (file < 0) return false;
  std::array<std::byte, 16> start{};
  const ssize_t got = read(file, start.data(), start.size());
  close(file);
  return got > 0 && looks_like_image(std::span(start).first(static_cast<size_t>(got)));
}

/// The walk over one folder of classes.
class Walk {
 public:
  Walk(std::string root, const ScanProgress& progress) : root_(std::move(root)), progress_(progress) {}

  struct Entry {
    std::string name;
    int64_t bytes = 0;
  };
  struct Listing {
    std::vector<Entry> images;         ///< sorted
    std::vector<std::string> folders;  ///< sorted
    std::vector<std::string> others;
    std::pair<dev_t, ino_t> identity;
  };

  /// What one folder holds, hidden names left out. `with_files`: false looks for folders only.
  Listing list(const std::string& path, bool with_files) {
    const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(path.c_str()), closedir);
    if (!folder) throw io_error(escape_control(path), "open the folder", errno);
    const int fd = dirfd(folder.get());
    Listing listing;
    struct stat status {};
    if (fstat(fd, &status) == 0) listing.identity = {status.st_dev, status.st_ino};
    while (true) {
      errno = 0;
      const dirent* entry = readdir(folder.get());
      if (entry == nullptr) {
        if (errno != 0) throw io_error(escape_control(path), "read the folder", errno);
        break;
      }
      const char* name = entry->d_name;
      if (name[0] == '.' || (!with_files && entry->d_type == DT_REG)) continue;
      const bool found = fstatat(fd, name, &status, 0) == 0;
      if (found && S_ISDIR(status.st_mode)) {
        listing.folders.emplace_back(name);
        continue;
      }
      if (!with_files) continue;
      count();
      // A link to nothing stays an image if it is named like one, so that decoding names it.
      const bool image =
          (!found || S_ISREG(status.st_mode)) && (has_image_ending(name) || (found && has_image_content(fd, name)));
      if (image) {
        listing.images.push_back({name, found ? static_cast<int64_t>(status.st_size) : -1});
      } else {
        listing.others.emplace_back(name);
      }
    }
    std::sort(listing.images.begin(), listing.images.end(),
              [](const Entry& a, const Entry& b) { return a.name < b.name; });
    std::sort(listing.folders.begin(), listing.folders.end());
    std::sort(listing.others.begin(), listing.others.end());
    return listing;
  }

  /// All folders of a class, by the bytes of their paths, and then their images.
  void scan_class(const std::string& name, int32_t label, FolderScan& scan) {
    std::vector<std::pair<std::string, Listing>> folders;
    std::vector<std::pair<dev_t, ino_t>> parents;
    descend(name, parents, folders);
    std::sort(folders.begin(), folders.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto& [path, listing] : folders) {
      for (Entry& image : listing.images) {
        scan.files.push_back(path + "/" + image.name);
        scan.file_bytes.push_back(image.bytes);
        scan.labels.push_back(label);
      }
      for (const std::string& other : listing.others) scan.ignored.push_back(path + "/" + other);
    }
  }

 private:
  void descend(const std::string& path, std::vector<std::pair<dev_t, ino_t>>& parents,
               std::vector<std::pair<std::string, Listing>>& folders) {
    Listing listing = list(root_ + "/" + path, true);
    // A link that leads back into a folder above would be walked for ever.
    if (std::find(parents.begin(), parents.end(), listing.identity) != parents.end()) return;
    constexpr size_t kMostDepth = 64;
    if (parents.size() >= kMostDepth) {
      throw ResourceError(ExitCode::limit, "{}: lies more than {} folders deep; expected fewer",
                          escape_control(root_ + "/" + path), kMostDepth);
    }
    parents.push_back(listing.identity);
    const std::vector<std::string> below = std::move(listing.folders);
    folders.emplace_back(path, std::move(listing));
    for (const std::string& name : below) descend(path + "/" + name, parents, folders);
    parents.pop_back();
  }

  void count() {
    using Clock = std::chrono::steady_clock;
    ++files_;
    constexpr int64_t kLookEvery = 256;
    if (!progress_ || files_ % kLookEvery != 0) return;
    const Clock::time_point now = Clock::now();
    if (now < next_word_) return;
    progress_(files_);
    next_word_ = now + std::chrono::milliseconds(200);
  }

  std::string root_;
  const ScanProgress& progress_;
  int64_t files_ = 0;
  std::chrono::steady_clock::time_point next_word_ = std::chrono::steady_clock::now() + std::chrono::seconds(2);
};

}  // namespace

std::vector<std::string> class_folders(const std::string& folder) {
  const ScanProgress silent;
  return Walk(folder, silent).list(folder, false).folders;
}

FolderScan scan_image_folder(const std::string& folder, const ScanProgress& progress) {
  FolderScan scan;
  scan.class_names = class_folders(folder);
  Walk walk(folder, progress);
  int32_t label = 0;
  for (const std::string& name : scan.class_names) walk.scan_class(name, label++, scan);
  return scan;
}

std::optional<SplitFolder> split_folder(const std::string& folder, Split split) {
  const SplitFolder train{kTrain, Split::train}, val{kValidation[0], Split::validation},
      validation{kValidation[1], Split::validation}, test{kTest, Split::test};
  std::vector<SplitFolder> names;
  switch (split) {
    case Split::train: names = {train}; break;
    case Split::validation: names = {val, validation, test}; break;
    case Split::test: names = {test, val, validation}; break;
  }
  for (const SplitFolder& name : names) {
    const std::string path = folder + "/" + name.path;
    if (is_directory(path)) return SplitFolder{path, name.split};
  }
  return std::nullopt;
}

bool is_image_folder(const std::string& folder) {
  return split_folder(folder, Split::train) || split_folder(folder, Split::test) || !class_folders(folder).empty();
}

Dataset load_image_folder(const std::string& folder, Split split, const ScanProgress& progress) {
  const std::string shown = escape_control(folder);
  const std::optional<SplitFolder> train = split_folder(folder, Split::train);
  std::optional<SplitFolder> own = split_folder(folder, split);
  if (!own && !train && split == Split::test) own = SplitFolder{folder, split};
  if (!own) {
    throw ResourceError(ExitCode::io, "{}: has no folder of {} images; expected {}, with a folder for each class in it",
                        shown, name_of(split), split == Split::train ? "train" : "val, validation or test");
  }
  FolderScan scan = scan_image_folder(own->path, progress);
  const std::string own_shown = escape_control(own->path);
  if (scan.class_names.empty()) {
    throw bad_data(own_shown, 0, "classes", "found no folder in it; expected one for each class");
  }
  for (const std::string& name : scan.class_names) {
    if (is_utf8(name)) continue;
    throw bad_data(own_shown + "/" + escape_control(name), 0, "class",
                   "found a folder's name that is not UTF-8; expected one that a model file can keep; rename it");
  }
  if (split == Split::train) {
    std::vector<int64_t> images(scan.class_names.size());
    for (const int32_t label : scan.labels) ++images[static_cast<size_t>(label)];
    const auto none = std::find(images.begin(), images.end(), 0);
    if (none != images.end()) {
      throw bad_data(own_shown + "/" + escape_control(scan.class_names[static_cast<size_t>(none - images.begin())]), 0,
                     "class", "found no image in it; expected at least one, or no such folder");
    }
  } else if (train) {
    // torchvision numbers each split's folders on its own; with one missing, all labels after it would be others.
    const std::vector<std::string> classes = class_folders(train->path);
    std::vector<int32_t> number;
    for (const std::string& name : scan.class_names) {
      const auto found = std::lower_bound(classes.begin(), classes.end(), name);
      if (found == classes.end() || *found != name) {
        throw bad_data(own_shown + "/" + escape_control(name), 0, "class",
                       "found a class that {} lacks; expected its {} classes only", escape_control(train->path),
                       classes.size());
      }
      number.push_back(static_cast<int32_t>(found - classes.begin()));
    }
    for (int32_t& label : scan.labels) label = number[static_cast<size_t>(label)];
    scan.class_names = classes;
  }
  if (scan.files.empty()) throw bad_data(own_shown, 0, "images", "found no image in it; expected at least one");
  Dataset dataset;
  dataset.name = folder;
  dataset.split = own->split;
  dataset.count = static_cast<int64_t>(scan.files.size());
  dataset.channels = 3;
  dataset.root = own->path + "/";
  dataset.files = std::move(scan.files);
  dataset.file_bytes = std::move(scan.file_bytes);
  dataset.labels = std::move(scan.labels);
  dataset.class_names = std::move(scan.class_names);
  return dataset;
}

}  // namespace resnet
