#include "serve/image_files.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "data/decode.h"

namespace resnet {

namespace {

void validate(const ImageFilesOptions& options) {
  if (options.batch_size < 1) throw UserError("batch size: found {}; expected at least 1", options.batch_size);
  if (options.threads < 1 || options.threads > 1024) {
    throw UserError("threads: found {} that decode; expected 1 to 1024", options.threads);
  }
  if (options.channels != 1 && options.channels != 3) {
    throw UserError(ExitCode::refused, "model: takes images of {} channels; expected 1 or 3, as image files have",
                    options.channels);
  }
  validate(options.preprocessing, options.channels);
}

}  // namespace

/// Batch b lives in slot b % slots. Threads take one file at a time, so that a few large ones do not hold up the rest;
/// they may take files of the batches before allowed_.
class ImageFiles::Pool {
 public:
  Pool(std::vector<std::string> paths, ImageFilesOptions options)
      : paths_(std::move(paths)), options_(std::move(options)), slots_(options_.ahead ? 2 : 1) {
    validate(options_);
    start();
  }
  ~Pool() { stop(); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  const FileBatch* next() {
    std::unique_lock lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
    if (given_ == batches()) return nullptr;
    // The slot of the batch that the caller had is free now.
    while (allowed_ < std::min(batches(), given_ + slots_.size())) prepare(allowed_++);
    work_.notify_all();
    Slot& slot = slots_[given_ % slots_.size()];
    done_.wait(lock, [&] { return slot.files_left == 0; });
    if (failure_) std::rethrow_exception(failure_);
    ++given_;
    lock.unlock();
    drop_failures(slot.batch);
    return &slot.batch;
  }

 private:
  struct Slot {
    FileBatch batch;
    size_t files_left = 0;  // guarded by mutex_
  };

  size_t per_batch() const { return static_cast<size_t>(options_.batch_size); }
  size_t batches() const { return (paths_.size() + per_batch() - 1) / per_batch(); }
  Tensor rows(size_t count) const {
    const int64_t size = options_.preprocessing.image_size;
    return Tensor(options_.dtype, Shape{static_cast<int64_t>(count), options_.channels, size, size});
  }

  void start() try {
    // Signals are the main thread's business.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const std::unique_ptr<sigset_t, void (*)(sigset_t*)> restore(
        &before, [](sigset_t* mask) { pthread_sigmask(SIG_SETMASK, mask, nullptr); });
    const auto count = std::min(static_cast<size_t>(options_.threads), std::max<size_t>(paths_.size(), 1));
    for (size_t i = 0; i < count; ++i) threads_.emplace_back([this] { work(); });
  } catch (const std::system_error& error) {
    stop();
    throw ResourceError(ExitCode::limit, "threads: not all of {} that decode could start ({}); expected fewer",
                        options_.threads, error.what());
  }

  void stop() {
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
    }
    work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  /// With mutex_ held.
  void prepare(size_t number) {
    Slot& slot = slots_[number % slots_.size()];
    FileBatch& batch = slot.batch;
    batch.first = number * per_batch();
    const size_t files = std::min(per_batch(), paths_.size() - batch.first);
    batch.failures.assign(files, std::nullopt);
    batch.turned = 0;
    if (batch.inputs.shape().rank() == 0 || batch.inputs.shape()[0] != static_cast<int64_t>(files)) {
      batch.inputs = rows(files);
    }
    slot.files_left = files;
  }

  void work() {
    PreprocessScratch scratch;
    std::vector<std::byte> bytes;
    std::unique_lock lock(mutex_);
    while (true) {
      work_.wait(lock, [&] { return stopping_ || next_file_ < std::min(paths_.size(), allowed_ * per_batch()); });
      if (stopping_) return;
      const size_t file = next_file_++;
      Slot& slot = slots_[file / per_batch() % slots_.size()];
      lock.unlock();
      std::exception_ptr failure;
      bool turned = false;
      try {
        turned = fill(slot.batch, file - slot.batch.first, paths_[file], scratch, bytes);
      } catch (...) {
        failure = std::current_exception();
      }
      lock.lock();
      if (failure && !failure_) failure_ = failure;
      slot.batch.turned += turned;
      if (--slot.files_left == 0) done_.notify_one();
    }
  }

  /// Row `row` of the batch, or its failure. Says whether the file has an orientation.
  bool fill(FileBatch& batch, size_t row, const std::string& path, PreprocessScratch& scratch,
            std::vector<std::byte>& bytes) const try {
    read_image_bytes(path, bytes);
    const Preprocessing& preprocessing = options_.preprocessing;
    const Image image =
        decode_image(bytes, path, {.channels = options_.channels, .exif_orientation = preprocessing.exif_orientation});
    with_float(options_.dtype, [&](auto tag) {
      const auto all = batch.inputs.as<decltype(tag)>();
      const size_t size = all.size() / batch.files();
      preprocess(image.view(), preprocessing, scratch, all.subspan(row * size, size));
    });
    return probe_image(bytes, path).orientation != 1;
  } catch (const InternalError&) {
    throw;
  } catch (const UserError& error) {
    // A side that cannot be resized is the file's fault here, no flag's.
    const bool from_flag = error.code() == ExitCode::usage;
    batch.failures[row] = {from_flag ? ExitCode::limit : error.code(),
                           from_flag ? escape_control(path) + ": " + error.what() : error.what()};
    return false;
  } catch (const Error& error) {
    batch.failures[row] = {error.code(), error.what()};
    return false;
  } catch (const std::bad_alloc&) {
    batch.failures[row] = {ExitCode::limit, escape_control(path) + ": not enough memory to decode it"};
    return false;
  }

  /// The rows without failure move together.
  void drop_failures(FileBatch& batch) const {
    const auto failed = std::count_if(batch.failures.begin(), batch.failures.end(), [](const auto& f) { return !!f; });
    if (failed == 0) return;
    Tensor good = rows(batch.files() - static_cast<size_t>(failed));
    const size_t row_bytes = batch.inputs.size_bytes() / batch.files();
    size_t to = 0;
    for (size_t row = 0; row < batch.files(); ++row) {
      if (batch.failures[row]) continue;
      std::memcpy(good.data() + to++ * row_bytes, batch.inputs.data() + row * row_bytes, row_bytes);
    }
    batch.inputs = std::move(good);
  }

  const std::vector<std::string> paths_;
  const ImageFilesOptions options_;
  std::vector<std::thread> threads_;

  std::mutex mutex_;  // guards everything below but what is said of a batch's files
  std::condition_variable work_;
  std::condition_variable done_;
  std::vector<Slot> slots_;
  size_t next_file_ = 0;  // the first file that no thread has taken
  size_t allowed_ = 0;    // batches that threads may work on, all before it
  size_t given_ = 0;      // batches handed to the caller
  bool stopping_ = false;
  std::exception_ptr failure_;
};

ImageFiles::ImageFiles(std::vector<std::string> paths, ImageFilesOptions options)
    : pool_(std::make_unique<Pool>(std::move(paths), std::move(options))) {}
ImageFiles::~ImageFiles() = default;
const FileBatch* ImageFiles::next() { return pool_->next(); }

}  // namespace resnet
