#pragma once
// Image files to batches of network input, read, decoded and resized by threads of their own.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/tensor.h"
#include "data/preprocess.h"

namespace resnet {

struct ImageFilesOptions {
  int64_t batch_size = 32;
  int64_t channels = 3;  ///< 1 or 3
  DType dtype = DType::f32;
  Preprocessing preprocessing = {};
  int threads = 1;     ///< that read, decode and resize
  bool ahead = false;  ///< whether they prepare the next batch while the caller computes, or work only within next()
};

/// Files in the order given. One that cannot be used leaves the others as they are.
struct FileBatch {
  struct Failure {
    ExitCode code = ExitCode::bad_data;
    std::string message;
  };
  size_t first = 0;                              ///< index of the first file
  std::vector<std::optional<Failure>> failures;  ///< [files]; empty where all went well
  Tensor inputs;                                 ///< [files without failure, channels, S, S] in order, see preprocess()
  int64_t turned = 0;                            ///< files with an EXIF orientation other than upright

  size_t files() const { return failures.size(); }
};

class ImageFiles {
 public:
  /// Throws UserError for an option out of range, ResourceError limit when threads are exhausted.
  ImageFiles(std::vector<std::string> paths, ImageFilesOptions options);
  /// Ends the threads, at any moment.
  ~ImageFiles();
  ImageFiles(const ImageFiles&) = delete;
  ImageFiles& operator=(const ImageFiles&) = delete;

  /// The next batch, valid until the next call, or nullptr after the last. To be called by one thread. What is no fault
  /// of a file (our own bug) is thrown.
  const FileBatch* next();

 private:
  class Pool;
  std::unique_ptr<Pool> pool_;
};

}  // namespace resnet
