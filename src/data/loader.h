#pragma once
// Batches for training and evaluation, prepared ahead of the step by threads of their own.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/tensor.h"
#include "data/augment.h"
#include "data/dataset.h"
#include "data/preprocess.h"

namespace resnet {

/// The order in which epoch `epoch` visits samples 0..count-1: a pure function of the arguments (Fisher-Yates driven by
/// hash(seed, epoch)), so that a resumed run sees what the first one would have seen.
std::vector<int64_t> shuffled_order(int64_t count, uint64_t seed, uint64_t epoch);

/// A place in the stream of samples, as a checkpoint keeps it.
struct LoaderPosition {
  int64_t epoch = 0;   ///< from 0
  int64_t sample = 0;  ///< samples of this epoch already consumed; all of them is the same as the next epoch's 0
  bool operator==(const LoaderPosition&) const = default;
};

/// What becomes of an image that cannot be decoded or read. Whatever is chosen is a pure function of the files'
/// contents, so that a resumed run meets it again.
enum class BadSample : uint8_t {
  stop,       ///< its error is thrown
  replace,    ///< the next image of the data set (after the last the first, all within `limit`) that is good stands in
  leave_out,  ///< the batch has one image less, or none at all
};

struct LoaderOptions {
  int64_t batch_size = 256;
  bool shuffle = true;  ///< false: every epoch is 0, 1, 2, ...
  uint64_t seed = 0;
  int64_t limit = 0;         ///< use only the first `limit` images; 0: all
  DType dtype = DType::f32;  ///< of the images
  int workers = 1;           ///< threads that prepare batches ahead; 0: prepared inside next()
  Preprocessing preprocessing = {};
  Views views = Views::one;        ///< of each image, one after the other in a batch's images
  Augmentation augmentation = {};  ///< of training images only; drawn from `seed`, see draw_crop_flip()
  BadSample on_bad_sample = BadSample::stop;
  LoaderPosition start = {};
  int64_t epochs = 1;  ///< next() ends before epoch `epochs`, counted from 0 whatever `start` is
};

/// One batch; the last of an epoch may be smaller (as PyTorch's drop_last=False).
struct Batch {
  int64_t epoch = 0;
  LoaderPosition next;           ///< where a run that resumes after this batch starts
  bool last_of_epoch = false;    ///< then next is {epoch + 1, 0}
  std::vector<int64_t> samples;  ///< [n], indices into the data set: of the images that are here
  std::vector<int32_t> labels;   ///< [n]
  Tensor images;                 ///< f32 or f64 [n * views, channels, S, S], see preprocess()

  /// Samples of this batch's part of the schedule that could not be used, in its order, with the reason.
  struct Bad {
    int64_t sample = 0;
    std::string reason;
  };
  std::vector<Bad> bad;

  int64_t size() const { return static_cast<int64_t>(labels.size()); }
};

/// Workers fill a ring of workers + 1 batches: one is with the caller, the others are ready or being filled. The
/// batches are the same for any number of workers.
class Loader {
 public:
  /// `dataset` must outlive the loader. The ring's memory is taken here.
  /// Throws UserError for an option out of range, ResourceError limit when memory or threads are exhausted.
  Loader(const Dataset& dataset, LoaderOptions options);
  /// Ends the workers, at any moment.
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// The next batch, valid until the next call, or nullptr after the last one. What a worker threw is thrown here, at
  /// the batch it belongs to, and again by every later call. To be called by one thread.
  const Batch* next();

  /// Images in one epoch and batches in one whole epoch.
  int64_t samples_per_epoch() const;
  int64_t batches_per_epoch() const;

 private:
  class Ring;
  std::unique_ptr<Ring> ring_;
};

}  // namespace resnet
