#pragma once
// Reader of idx files, the format of MNIST and Fashion-MNIST (source: http://yann.lecun.com/exdb/mnist,
// "File formats"): a big-endian header (magic, then one u32 per dimension) and row-major elements.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace resnet {

/// What one idx file may hold, in bytes after decompression: 4 GiB, or half of the machine's memory if that is less.
uint64_t idx_max_bytes();

/// One idx file of unsigned bytes, plain or gzip (any number of members; the first bytes decide, not the name).
/// The constructor reads and checks only the header, so that counts of two files can be compared before either
/// is inflated. Content is hostile: no more is inflated than the header claims, memory grows with what was really
/// inflated, and a claim that the file's size cannot hold is refused before that.
/// Throws UserError bad_data (wrong magic, a dimension of 0, truncated, trailing or corrupt bytes), ResourceError io
/// (missing, unreadable, not a regular file) and ResourceError limit (above max_bytes, or out of memory).
class IdxFile {
 public:
  enum class Kind {
    images,  ///< magic 0x00000803: u8 [count, height, width]
    labels,  ///< magic 0x00000801: u8 [count]
  };

  IdxFile(const std::string& path, Kind kind, uint64_t max_bytes = idx_max_bytes());
  ~IdxFile();
  IdxFile(const IdxFile&) = delete;
  IdxFile& operator=(const IdxFile&) = delete;

  /// The path with control characters escaped, as it stands in error messages.
  const std::string& path() const { return path_; }
  int64_t count() const { return dims_[0]; }
  int64_t height() const { return dims_.size() > 1 ? dims_[1] : 1; }
  int64_t width() const { return dims_.size() > 2 ? dims_[2] : 1; }
  /// Where the elements begin, counted in decompressed bytes: 16 for images, 8 for labels.
  uint64_t body_offset() const { return 4 + 4 * dims_.size(); }

  /// All elements, after which the file must end. To be called once.
  std::vector<uint8_t> read();

 private:
  class Stream;

  std::string path_;
  std::unique_ptr<Stream> stream_;
  std::vector<int64_t> dims_;
  uint64_t body_bytes_ = 0;
};

}  // namespace resnet
