#include "data/idx.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>

#include "base/checked_math.h"
#include "base/error.h"

namespace resnet {

namespace {

// Deflate cannot expand more: a match of 258 bytes costs at least two bits (zlib's "Technical Details").
constexpr uint64_t kMaxDeflateRatio = 1032;
constexpr size_t kChunkBytes = size_t{1} << 16;
// Reserved at once, so that MNIST's files never move while they are read; beyond it memory follows the content.
constexpr uint64_t kFirstReserveBytes = uint64_t{64} << 20;

uint32_t big_endian(const uint8_t* bytes) {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | uint32_t{bytes[3]};
}

const char* describe_magic(uint32_t magic) {
  if (magic == 0x00000803u) return " (an idx file of images)";
  if (magic == 0x00000801u) return " (an idx file of labels)";
  if (magic >> 16 == 0 && (magic >> 8 & 0xff) != 0x08) return " (not an idx file of unsigned bytes)";
  return "";
}

const char* describe_kind(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

}  // namespace

uint64_t idx_max_bytes() {
  constexpr uint64_t kFourGiB = uint64_t{4} << 30;
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) return kFourGiB;
  return std::min(kFourGiB, static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_bytes) / 2);
}

/// The decompressed bytes of a file in order.
class IdxFile::Stream {
 public:
  Stream(const std::string& path, std::string shown_path) : path_(std::move(shown_path)) {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer that may never come.
    file_ = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (file_ < 0) throw io_error(path_, "open", errno);
    try {
      start();
    } catch (...) {
      close_all();
      throw;
    }
  }
  ~Stream() { close_all(); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  bool compressed() const { return compressed_; }
  uint64_t file_bytes() const { return file_bytes_; }

  /// Fills `out`; returns less than its size only at the end of the content.
  size_t read(std::span<uint8_t> out) { return compressed_ ? inflate_into(out) : copy_into(out); }

 private:
  void start() {
    struct stat status {};
    if (fstat(file_, &status) != 0) throw io_error(path_, "inspect", errno);
    if (!S_ISREG(status.st_mode)) {
      throw ResourceError(ExitCode::io, "{}: is {}; expected a regular file in idx format, plain or gzip", path_,
                          describe_kind(status.st_mode));
    }
    file_bytes_ = static_cast<uint64_t>(status.st_size);
    refill();
    compressed_ = input_bytes_ >= 2 && input_[0] == 0x1f && input_[1] == 0x8b;
    if (!compressed_) return;
    constexpr int kGzipOnly = 16;
    if (inflateInit2(&inflater_, MAX_WBITS + kGzipOnly) != Z_OK) {
      throw ResourceError(ExitCode::limit, "{}: not enough memory to decompress", path_);
    }
    inflater_ready_ = true;
    inflater_.next_in = input_.data();
    inflater_.avail_in = static_cast<uInt>(input_bytes_);
  }

  void close_all() {
    if (inflater_ready_) inflateEnd(&inflater_);
    if (file_ >= 0) close(file_);
  }

  /// Reads the next chunk of the file; false at its end.
  bool refill() {
    input_used_ = input_bytes_ = 0;
    while (input_bytes_ < input_.size()) {
      const ssize_t got = ::read(file_, input_.data() + input_bytes_, input_.size() - input_bytes_);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw io_error(path_, "read", errno);
      if (got == 0) break;
      input_bytes_ += static_cast<size_t>(got);
    }
    file_offset_ += input_bytes_;
    return input_bytes_ > 0;
  }

  size_t copy_into(std::span<uint8_t> out) {
    size_t copied = 0;
    while (copied < out.size()) {
      if (input_used_ == input_bytes_ && !refill()) break;
      const size_t part = std::min(out.size() - copied, input_bytes_ - input_used_);
      std::copy_n(input_.data() + input_used_, part, out.data() + copied);
      input_used_ += part;
      copied += part;
    }
    return copied;
  }

  size_t inflate_into(std::span<uint8_t> out) {
    size_t produced = 0;
    while (produced < out.size()) {
      if (inflater_.avail_in == 0 && !refill_inflater()) {
        if (between_members_) break;
        throw bad_data(path_, file_offset_, "gzip stream",
                       "the compressed data ends in the middle; expected a complete gzip stream");
      }
      if (between_members_) {
        inflateReset(&inflater_);
        between_members_ = false;
        first_member_ = false;
      }
      inflater_.next_out = out.data() + produced;
      inflater_.avail_out = static_cast<uInt>(out.size() - produced);
      const int result = inflate(&inflater_, Z_NO_FLUSH);
      produced = out.size() - inflater_.avail_out;
      if (result == Z_STREAM_END) {
        between_members_ = true;
      } else if (result == Z_MEM_ERROR) {
        throw ResourceError(ExitCode::limit, "{}: not enough memory to decompress", path_);
      } else if (result != Z_OK && !(result == Z_BUF_ERROR && inflater_.avail_in == 0)) {
        throw_corrupt();
      }
    }
    return produced;
  }

  bool refill_inflater() {
    if (!refill()) return false;
    inflater_.next_in = input_.data();
    inflater_.avail_in = static_cast<uInt>(input_bytes_);
    return true;
  }

  [[noreturn]] void throw_corrupt() const {
    const uint64_t offset = file_offset_ - inflater_.avail_in;
    const char* reason = inflater_.msg ? inflater_.msg : "corrupt";
    if (!first_member_ && inflater_.total_out == 0) {
      throw bad_data(path_, offset, "gzip stream",
                     "found bytes after the compressed data ({}); expected the end of the file or another gzip member",
                     reason);
    }
    throw bad_data(path_, offset, "gzip stream", "the compressed data is damaged ({}); expected an intact gzip file",
                   reason);
  }

  std::string path_;
  int file_ = -1;
  uint64_t file_bytes_ = 0;
  uint64_t file_offset_ = 0;  // of the end of input_
  std::array<uint8_t, kChunkBytes> input_{};
  size_t input_bytes_ = 0;
  size_t input_used_ = 0;  // of a plain file; the inflater counts for itself
  bool compressed_ = false;
  bool inflater_ready_ = false;
  bool between_members_ = false;
  bool first_member_ = true;
  z_stream inflater_{};
};

IdxFile::IdxFile(const std::string& path, Kind kind, uint64_t max_bytes)
    : path_(escape_control(path)), stream_(std::make_unique<Stream>(path, path_)) {
  const uint32_t wanted_magic = kind == Kind::images ? 0x00000803u : 0x00000801u;
  const size_t rank = wanted_magic & 0xff;
  const size_t header_bytes = 4 + 4 * rank;
  std::array<uint8_t, 16> header{};
  size_t have = stream_->read({header.data(), 4});
  if (have == 4) {
    const uint32_t magic = big_endian(header.data());
    if (magic != wanted_magic) {
      throw bad_data(path_, 0, "magic", "found 0x{:08x}{}; expected 0x{:08x}{}", magic, describe_magic(magic),
                     wanted_magic, describe_magic(wanted_magic));
    }
    have += stream_->read({header.data() + 4, header_bytes - 4});
  }
  if (have < header_bytes) {
    throw bad_data(path_, have, "header", "the file ends after {} bytes; expected a header of {} bytes", have,
                   header_bytes);
  }

  static constexpr const char* kNames[] = {"count", "height", "width"};
  for (size_t axis = 0; axis < rank; ++axis) {
    const size_t offset = 4 + 4 * axis;
    dims_.push_back(big_endian(header.data() + offset));
    if (dims_.back() == 0) throw bad_data(path_, offset, kNames[axis], "found 0; expected at least 1");
  }
  const std::optional<uint64_t> claimed = checked_multiply(
      {static_cast<uint64_t>(count()), static_cast<uint64_t>(height()), static_cast<uint64_t>(width())});
  const std::string shape = fmt::format("{}", fmt::join(dims_, " x "));
  const uint64_t file_bytes = stream_->file_bytes();
  const uint64_t most_bytes = stream_->compressed()
                                  ? checked_multiply({file_bytes, kMaxDeflateRatio}).value_or(UINT64_MAX)
                                  : file_bytes - std::min<uint64_t>(file_bytes, header_bytes);
  if (!claimed || *claimed > most_bytes) {
    throw bad_data(path_, 4, "count",
                   "found {} elements; expected at most {}, which is all that a{} file of {} bytes can hold", shape,
                   most_bytes, stream_->compressed() ? " gzip" : "", file_bytes);
  }
  if (!stream_->compressed() && *claimed < most_bytes) {
    throw bad_data(path_, header_bytes + *claimed, "end", "found {} more bytes; expected the end after {} elements",
                   most_bytes - *claimed, shape);
  }
  if (*claimed > max_bytes || file_bytes > max_bytes + kChunkBytes) {
    throw ResourceError(ExitCode::limit, "{}: holds {} elements in a file of {} bytes; at most {} bytes are read",
                        path_, shape, file_bytes, max_bytes);
  }
  body_bytes_ = *claimed;
}

IdxFile::~IdxFile() = default;

std::vector<uint8_t> IdxFile::read() try {
  std::vector<uint8_t> body;
  body.reserve(std::min(body_bytes_, kFirstReserveBytes));
  std::vector<uint8_t> chunk(kChunkBytes);
  while (body.size() < body_bytes_) {
    const size_t wanted = std::min<uint64_t>(chunk.size(), body_bytes_ - body.size());
    const size_t got = stream_->read({chunk.data(), wanted});
    if (body.capacity() - body.size() < got) body.reserve(std::min<uint64_t>(body_bytes_, 2 * body.capacity()));
    body.insert(body.end(), chunk.begin(), chunk.begin() + static_cast<std::ptrdiff_t>(got));
    if (got < wanted) {
      throw bad_data(path_, body_offset() + body.size(), "elements",
                     "the content ends after {} of {} elements; expected {}", body.size(), body_bytes_,
                     fmt::join(dims_, " x "));
    }
  }
  uint8_t beyond = 0;
  if (stream_->read({&beyond, 1}) != 0) {
    throw bad_data(path_, body_offset() + body_bytes_, "end", "found more bytes; expected the end after {} elements",
                   fmt::join(dims_, " x "));
  }
  return body;
} catch (const std::bad_alloc&) {
  throw ResourceError(ExitCode::limit, "{}: not enough memory for {} bytes", path_, body_bytes_);
}

}  // namespace resnet
