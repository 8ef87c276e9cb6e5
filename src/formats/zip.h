#pragma once
// Zip archives as torch.save writes them (PKWARE APPNOTE 6.3.9, stored entries, with or without zip64), read strictly:
// every record where it must be, sizes and names told the same twice, nothing compressed, overlapping or repeated. So
// what is read here is what any other reader sees, and nothing can grow: docs/decisions/0012.

#include <map>
#include <string>
#include <vector>

#include "formats/file_io.h"

namespace resnet {

/// One stored entry. Offsets count from the start of the file.
struct ZipEntry {
  uint64_t begin = 0;  ///< first byte of its content
  uint64_t bytes = 0;
  uint32_t crc = 0;
};

class ZipFile {
 public:
  /// Reads and checks the whole directory and every entry's own header, but no content. Throws io_error (exit code 4),
  /// bad_data (3), and ResourceError (5) past 50,000 entries, 8 MiB of directory or 64 MiB of names and extra fields
  /// in the entries' own headers.
  explicit ZipFile(const std::string& path);
  const std::string& path() const { return file_.path(); }
  uint64_t size() const { return file_.size(); }
  const std::map<std::string, ZipEntry>& entries() const { return entries_; }

  /// The whole content; `target` has the entry's size. Throws bad_data when its CRC-32 is not the one promised.
  void read(const std::string& name, std::span<std::byte> target) const;
  /// Reads the whole content, a piece at a time, for its CRC-32 alone; throws as read.
  void verify(const std::string& name) const;
  /// target.size() bytes of the content from `offset`, of which nothing is checked: verify comes first.
  void read_part(const std::string& name, uint64_t offset, std::span<std::byte> target) const;
  /// The same as read, as text; ResourceError (5) when it holds more than `limit` bytes.
  std::string read_text(const std::string& name, uint64_t limit) const;

 private:
  void check_sum(const std::string& name, const ZipEntry& entry, uint32_t crc) const;

  InputFile file_;
  std::map<std::string, ZipEntry> entries_;
};

/// Writes stored entries one after another, each content aligned to 64 bytes as PyTorch has it, then the directory.
class ZipWriter {
 public:
  explicit ZipWriter(ByteSink& sink) : sink_(sink) {}
  /// `write` is called twice, first for the checksum, and must give `bytes` bytes, the same each time. Throws
  /// ResourceError (limit) past 4 GiB or 65,534 entries.
  void add(const std::string& name, uint64_t bytes, const ContentWriter& write);
  void finish();

 private:
  struct Written {
    std::string name;
    uint64_t header = 0, bytes = 0;
    uint32_t crc = 0;
  };
  void put(const std::string& bytes);

  ByteSink& sink_;
  uint64_t offset_ = 0;
  std::vector<Written> written_;
};

}  // namespace resnet
