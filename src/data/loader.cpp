#include "data/loader.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <numeric>
#include <optional>
#include <system_error>
#include <thread>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/rng.h"
#include "data/file_bytes.h"
#include "data/signals_blocked.h"

namespace resnet {

namespace {

void shuffle(std::span<int64_t> order, uint64_t seed, uint64_t epoch) {
  std::iota(order.begin(), order.end(), int64_t{0});
  Rng rng(hash_combine(hash_combine(hash_text("shuffle"), seed), epoch));
  for (size_t left = order.size(); left > 1; --left) std::swap(order[left - 1], order[rng.below(left)]);
}

}  // namespace

std::vector<int64_t> shuffled_order(int64_t count, uint64_t seed, uint64_t epoch) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  shuffle(order, seed, epoch);
  return order;
}

namespace {

constexpr int kMaxWorkers = 256;

void validate(const Dataset& dataset, const LoaderOptions& options) {
  if (options.batch_size < 1) throw UserError("batch size: found {}; expected at least 1", options.batch_size);
  if (options.limit < 0) throw UserError("limit: found {}; expected 0 (all) or a number of images", options.limit);
  if (options.workers < 0 || options.workers > kMaxWorkers) {
    throw UserError("workers: found {}; expected 0 to {}", options.workers, kMaxWorkers);
  }
  if (options.epochs < 0) throw UserError("epochs: found {}; expected 0 or more", options.epochs);
  if (dataset.count < 1 || dataset.labels.size() != static_cast<size_t>(dataset.count)) {
    throw UserError("data '{}': found {} images and {} labels; expected as many, and at least one",
                    escape_control(dataset.name), dataset.count, dataset.labels.size());
  }
  validate(options.preprocessing, dataset.channels);
  validate(options.views, options.preprocessing);
  validate(options.augmentation, options.preprocessing.image_size);
}

}  // namespace

/// The schedule of batches, the ring that holds them, and the workers. Batches are numbered in the order of use; number
/// b lives in slot b % slots, which is free for it once batch b - slots has been given back.
class Loader::Ring {
 public:
  Ring(const Dataset& dataset, LoaderOptions options)
      : dataset_(dataset), options_(std::move(options)), views_(list_of(options_.views)), cursor_(options_.start) {
    validate(dataset_, options_);
    samples_per_epoch_ = options_.limit == 0 ? dataset_.count : std::min(options_.limit, dataset_.count);
    if (cursor_.epoch < 0 || cursor_.sample < 0 || cursor_.sample > samples_per_epoch_) {
      throw UserError("loader: found a start at epoch {}, sample {}; expected epoch 0 or later and sample 0 to {}",
                      cursor_.epoch, cursor_.sample, samples_per_epoch_);
    }
    if (cursor_.sample == samples_per_epoch_) cursor_ = {.epoch = cursor_.epoch + 1, .sample = 0};
    allocate();
    start_workers();
  }
  ~Ring() { stop(); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  const Batch* next() {
    std::unique_lock lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
    if (held_) {
      held_->state = State::free;
      held_ = nullptr;
      slot_freed_.notify_all();
    }
    if (given_ == claimed_ && at_end()) return nullptr;
    Slot& slot = slot_of(given_);
    if (options_.workers == 0) {
      claim();
      fill(slot, own_scratch_);
    } else {
      slot_filled_.wait(lock, [&] { return slot.state == State::filled; });
    }
    failure_ = slot.failure;
    if (failure_) std::rethrow_exception(failure_);
    ++given_;
    held_ = &slot;
    return &slot.batch;
  }

  int64_t samples_per_epoch() const { return samples_per_epoch_; }
  int64_t batches_per_epoch() const { return (samples_per_epoch_ - 1) / options_.batch_size + 1; }

 private:
  enum class State : uint8_t { free, filling, filled };
  struct Scratch {
    PreprocessScratch preprocessing;
    Image decoded;
  };
  struct Slot {
    State state = State::free;   // guarded by mutex_
    Batch batch;                 // its owner's: of the worker while filling, of the caller while held
    std::exception_ptr failure;  // instead of a batch
  };

  void allocate() try {
    slots_.resize(static_cast<size_t>(options_.workers) + 1);
    const auto most = static_cast<uint64_t>(std::min(options_.batch_size, samples_per_epoch_));
    const auto size = static_cast<uint64_t>(options_.preprocessing.image_size);
    const auto values = checked_multiply({most, views_.size(), static_cast<uint64_t>(dataset_.channels), size, size});
    if (!values || *values > static_cast<uint64_t>(PTRDIFF_MAX) / size_of(options_.dtype)) throw std::bad_alloc();
    if (options_.shuffle) order_.resize(static_cast<size_t>(samples_per_epoch_));
    for (Slot& slot : slots_) {
      slot.batch.samples.reserve(most);
      slot.batch.labels.reserve(most);
      slot.batch.images = Tensor(images_type(most));
    }
  } catch (const std::bad_alloc&) {
    const int64_t size = options_.preprocessing.image_size;
    throw ResourceError(
        ExitCode::limit,
        "loader: not enough memory for {} batches of {} images of {}x{}x{}; expected a smaller batch size, "
        "image size or number of workers",
        options_.workers + 1, std::min(options_.batch_size, samples_per_epoch_), dataset_.channels, size, size);
  }

  TensorType images_type(uint64_t n) const {
    const int64_t size = options_.preprocessing.image_size;
    return {options_.dtype, Shape{static_cast<int64_t>(n * views_.size()), dataset_.channels, size, size}};
  }

  void start_workers() try {
    const SignalsBlocked blocked;
    for (int i = 0; i < options_.workers; ++i) workers_.emplace_back([this] { work(); });
  } catch (const std::system_error& error) {
    const size_t started = workers_.size();
    stop();
    throw ResourceError(ExitCode::limit, "loader: only {} of {} workers could start ({}); expected fewer workers",
                        started, options_.workers, error.what());
  }

  void stop() {
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
    }
    slot_freed_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

  void work() {
    Scratch scratch;
    std::unique_lock lock(mutex_);
    while (true) {
      slot_freed_.wait(lock, [&] { return stopping_ || (!at_end() && slot_of(claimed_).state == State::free); });
      if (stopping_) return;
      Slot& slot = claim();
      lock.unlock();
      fill(slot, scratch);
      lock.lock();
      slot.state = State::filled;
      slot_filled_.notify_one();
    }
  }

  Slot& slot_of(uint64_t batch) { return slots_[batch % slots_.size()]; }
  bool at_end() const { return cursor_.epoch >= options_.epochs; }

  /// Takes the next batch of the schedule, with mutex_ held: says which samples it has and moves the cursor. Allocates
  /// nothing, as a worker calls it where nothing may be thrown.
  Slot& claim() {
    Slot& slot = slot_of(claimed_++);
    slot.state = State::filling;
    Batch& batch = slot.batch;
    const int64_t begin = cursor_.sample;
    const int64_t end = begin + std::min(options_.batch_size, samples_per_epoch_ - begin);
    batch.samples.resize(static_cast<size_t>(end - begin));
    if (options_.shuffle) {
      if (order_epoch_ != cursor_.epoch) {
        shuffle(order_, options_.seed, static_cast<uint64_t>(cursor_.epoch));
        order_epoch_ = cursor_.epoch;
      }
      std::copy(order_.begin() + begin, order_.begin() + end, batch.samples.begin());
    } else {
      std::iota(batch.samples.begin(), batch.samples.end(), begin);
    }
    batch.epoch = cursor_.epoch;
    batch.last_of_epoch = end == samples_per_epoch_;
    cursor_ = batch.last_of_epoch ? LoaderPosition{.epoch = cursor_.epoch + 1, .sample = 0}
                                  : LoaderPosition{.epoch = cursor_.epoch, .sample = end};
    batch.next = cursor_;
    return slot;
  }

  void fill(Slot& slot, Scratch& scratch) noexcept try {
    Batch& batch = slot.batch;
    batch.bad.clear();
    const size_t n = batch.samples.size();
    set_images(batch, n);
    size_t filled = 0;
    with_float(options_.dtype, [&](auto tag) {
      using T = decltype(tag);
      const size_t views = views_.size();
      const size_t view_values = static_cast<size_t>(batch.images.type().shape.elements()) / (n * views);
      for (size_t i = 0; i < n; ++i) {
        const int64_t wanted = batch.samples[i];
        const std::optional<Found> found = find_image(wanted, scratch, batch);
        if (!found) continue;
        // What augmentation does goes with the place in the epoch, so that an image standing in is not seen twice
        // alike.
        const CropFlip change = draw_crop_flip(options_.augmentation, options_.seed, batch.epoch, wanted);
        for (size_t v = 0; v < views; ++v) {
          preprocess(found->image, options_.preprocessing, scratch.preprocessing,
                     batch.images.as<T>().subspan((filled * views + v) * view_values, view_values), change, views_[v]);
        }
        batch.samples[filled] = found->sample;
        batch.labels[filled] = dataset_.labels[static_cast<size_t>(found->sample)];
        ++filled;
      }
    });
    if (filled < n) keep_first(batch, filled);
  } catch (...) {
    slot.failure = std::current_exception();
  }

  void set_images(Batch& batch, size_t n) const {
    const TensorType type = images_type(n);
    if (batch.images.type() != type) batch.images = Tensor(type);  // the last batch of an epoch, and the one after it
    batch.labels.resize(n);
  }

  void keep_first(Batch& batch, size_t n) const {
    const Tensor all = std::move(batch.images);
    batch.images = Tensor(images_type(n));
    if (n > 0) std::memcpy(batch.images.data(), all.data(), batch.images.size_bytes());
    batch.samples.resize(n);
    batch.labels.resize(n);
  }

  struct Found {
    int64_t sample;
    ImageView image;
  };

  /// The image of a sample or the one that stands in for it; nothing where it is left out.
  std::optional<Found> find_image(int64_t wanted, Scratch& scratch, Batch& batch) const {
    int64_t sample = wanted;
    do {
      try {
        return Found{.sample = sample, .image = dataset_.image(sample, scratch.decoded)};
      } catch (const Error& error) {
        // Content, a limit, a missing file. A bug of ours, a failing disk, too many open files or a machine without
        // memory is no property of the file: a resumed run would go another way.
        const bool of_the_file =
            dynamic_cast<const UserError*>(&error) != nullptr || dynamic_cast<const NoFileError*>(&error) != nullptr;
        if (options_.on_bad_sample == BadSample::stop || !of_the_file) throw;
        if (sample == wanted) batch.bad.push_back({wanted, error.what()});
      }
      if (options_.on_bad_sample == BadSample::leave_out) return std::nullopt;
      sample = (sample + 1) % samples_per_epoch_;
    } while (sample != wanted);
    throw UserError(ExitCode::bad_data,
                    "{}: none of its {} images can be read (the last one: {}); expected at least one",
                    escape_control(dataset_.name), samples_per_epoch_, batch.bad.back().reason);
  }

  const Dataset& dataset_;
  const LoaderOptions options_;
  const std::vector<CropView> views_;
  int64_t samples_per_epoch_ = 0;
  std::vector<std::thread> workers_;
  Scratch own_scratch_;  // of next() when there are no workers

  std::mutex mutex_;  // guards everything below
  std::condition_variable slot_freed_;
  std::condition_variable slot_filled_;
  std::vector<Slot> slots_;
  Slot* held_ = nullptr;        // the slot the caller reads
  uint64_t claimed_ = 0;        // batches taken from the schedule
  uint64_t given_ = 0;          // batches handed to the caller
  LoaderPosition cursor_;       // where batch number claimed_ starts
  std::vector<int64_t> order_;  // of epoch order_epoch_
  int64_t order_epoch_ = -1;
  bool stopping_ = false;
  std::exception_ptr failure_;
};

Loader::Loader(const Dataset& dataset, LoaderOptions options)
    : ring_(std::make_unique<Ring>(dataset, std::move(options))) {}
Loader::~Loader() = default;
const Batch* Loader::next() { return ring_->next(); }
int64_t Loader::samples_per_epoch() const { return ring_->samples_per_epoch(); }
int64_t Loader::batches_per_epoch() const { return ring_->batches_per_epoch(); }

}  // namespace resnet
