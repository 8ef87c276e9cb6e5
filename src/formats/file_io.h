#pragma once
// Files that survive a full disk and a power cut. Every failure is an Error with the path and errno's
// text, exit code 4 (ExitCode::io), unless a function says otherwise; nothing here dies by signal.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/content_hash.h"

namespace resnet {

/// Where bytes go, in order: a file, a string, a hash.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual void write(std::span<const std::byte> bytes) = 0;
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
};

/// Produces a file's content. May be called more than once and must write the same bytes each time.
using ContentWriter = std::function<void(ByteSink&)>;

/// Collects the bytes in memory.
class StringSink final : public ByteSink {
 public:
  using ByteSink::write;
  void write(std::span<const std::byte> bytes) override {
    text_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

/// SHA-256 (FIPS 180-4) of everything written.
class Sha256Sink final : public ByteSink {
 public:
  Sha256Sink();
  ~Sha256Sink() override;
  Sha256Sink(const Sha256Sink&) = delete;
  Sha256Sink& operator=(const Sha256Sink&) = delete;
  using ByteSink::write;
  void write(std::span<const std::byte> bytes) override;
  /// 64 lowercase hex digits; ends the hash.
  std::string hex();

 private:
  void* context_;  // EVP_MD_CTX, not named here so that no includer needs OpenSSL
};

std::string sha256_hex(std::string_view bytes);
std::string sha256_hex_of_file(const std::string& path);

/// A file descriptor that closes itself.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  ~FileDescriptor() { reset(); }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = other.release();
    }
    return *this;
  }
  int value() const { return fd_; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void reset();

 private:
  int fd_;
};

/// A regular file open for reading. Reads by offset instead of mapping it: a file that another
/// process truncates gives an error, where a mapping would give SIGBUS.
class InputFile {
 public:
  /// Throws when the path is missing, unreadable or no regular file (a FIFO does not block).
  explicit InputFile(std::string path);
  const std::string& path() const { return path_; }
  /// Bytes at the time of opening.
  uint64_t size() const { return size_; }
  /// Fills `target` from `offset`; throws bad_data (exit code 3) when the file ends before.
  void read_at(uint64_t offset, std::span<std::byte> target) const;

 private:
  std::string path_;
  FileDescriptor fd_;
  uint64_t size_ = 0;
};

/// Of all its bytes; `threads` share the work.
ContentHash content_hash(const InputFile& file, int threads);

/// The whole of a regular file; ResourceError(ExitCode::limit) when it holds more than `limit` bytes.
std::string read_whole_file(const std::string& path, uint64_t limit);

/// A new file being written. Never overwrites: throws when the path exists.
class OutputFile final : public ByteSink {
 public:
  /// `shown`: what errors call it, for a file that gets its name later; empty: its path. `permissions` are narrowed by
  /// the process's mask.
  explicit OutputFile(const std::string& path, std::string shown = "", unsigned permissions = 0666);
  using ByteSink::write;
  /// All of it, over short writes and EINTR; a full disk or file-size limit throws.
  void write(std::span<const std::byte> bytes) override;
  /// fsync and close: only now is the content on the disk (the name needs sync_directory).
  void commit();
  /// Closes it without fsync: for what can be made again.
  void close();

 private:
  std::string shown_;
  FileDescriptor fd_;
};

/// fsync of a directory, so that names created, renamed or removed in it survive a power cut.
void sync_directory(const std::string& path);
/// The directory that holds `path`, "." for a bare name.
std::string directory_of(const std::string& path);

/// Replaces or creates `path` by one rename of a synced temporary file beside it: readers see the old
/// content or the new, whole. On any exception the old content stays and no temporary file is left.
/// A symlink is followed, so that the file it names is replaced; anything else that is no regular file is refused.
void atomic_write_file(const std::string& path, const ContentWriter& content);
void atomic_write_file(const std::string& path, std::string_view bytes);

}  // namespace resnet
