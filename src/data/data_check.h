#pragma once
// Looks at every image of a data set before anybody trains on it.

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace resnet {

/// Something that should be looked at.
struct DataFinding {
  enum class Kind : uint8_t {
    unreadable,   ///< no image, truncated, damaged beyond reading, missing: training stops at it
    damaged,      ///< read, but with checksums or data that are wrong: Pillow reads over it too
    leak,         ///< the same pixels in two splits
    two_classes,  ///< the same pixels in two classes
    duplicate,    ///< the same pixels twice in one class of one split
    empty_class,  ///< a class without images
    classes,      ///< a class that only an evaluation split has, or that it lacks
    name,         ///< a path that is not UTF-8 or has control characters
  };
  Kind kind;
  std::vector<std::string> files;  ///< paths below what was checked, as they are; of images in memory "train image 17"
  std::string detail;              ///< for a reader; escaped
};

/// "unreadable", "damaged", "leak", "two_classes", "duplicate", "empty_class", "classes", "name".
const char* name_of(DataFinding::Kind kind);

struct DataReport {
  struct Class {
    std::string name;
    int64_t images = 0;
  };
  struct SplitCount {
    std::string name;  ///< "train", "val", ...; "" where there are no splits
    int64_t images = 0;
    std::vector<Class> classes;  ///< in the order of their numbers
  };
  std::string path;
  std::string kind;  ///< "image folder", "list", "idx", "CIFAR-10", "CIFAR-100"
  std::vector<SplitCount> splits;
  int64_t images = 0;                                    ///< in all splits
  int64_t checked = 0;                                   ///< fewer after a stop
  double seconds = 0;                                    ///< of reading, decoding and hashing them
  std::map<std::string, int64_t> formats, modes;         ///< of the readable ones
  std::map<std::pair<int64_t, int64_t>, int64_t> sizes;  ///< (width, height) -> images
  int64_t turned = 0;                                    ///< whose EXIF orientation is not 1
  std::vector<DataFinding> findings;                     ///< by kind, then by path
  std::vector<std::string> notes;                        ///< worth knowing, and no finding
};

struct DataCheckOptions {
  int threads = 1;
  std::function<void(int64_t done, int64_t total)> progress = {};
  ScanProgress scan_progress = {};
  const std::atomic<int>* stop = nullptr;  ///< non-zero ends the check early
};

/// Decodes every image of a path that load_dataset() takes, in all its splits. Memory: one image a thread and about
/// 200 bytes an image.
/// Throws what finding the images throws (an unknown name, a folder that cannot be read); what is wrong with an image
/// is a finding.
DataReport check_data(const std::string& path, const DataCheckOptions& options = {});

}  // namespace resnet
