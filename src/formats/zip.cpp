#include "formats/zip.h"

#include <zlib.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/checked_math.h"
#include "base/error.h"
#include "formats/byte_reader.h"
#include "formats/stored_tensor.h"

namespace resnet {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kLocator64 = 0x07064b50;
constexpr uint64_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocator64Bytes = 20;
constexpr uint16_t kExtra64 = 1;
constexpr uint16_t kEncrypted = 1, kDescriptor = 8, kUtf8 = 1 << 11;
constexpr uint32_t kIn64 = 0xffffffff;  // the number is in the zip64 field
constexpr uint64_t kMaxEntries = 50'000;
constexpr uint64_t kMaxDirectoryBytes = uint64_t{8} << 20;
// Names and extra fields before the contents, together: 50,000 entries could claim 6 GB of them, all of one hole.
constexpr uint64_t kMaxLocalBytes = uint64_t{64} << 20;
constexpr size_t kMaxNameBytes = 4096;  // Linux' longest path
constexpr uint64_t kAlignment = 64;

uint32_t crc_of(uint32_t crc, std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(::crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

std::string text_at(const InputFile& file, uint64_t offset, uint64_t bytes) {
  std::string text(static_cast<size_t>(bytes), '\0');
  file.read_at(offset, std::as_writable_bytes(std::span(text)));
  return text;
}

struct Directory {
  uint64_t entries = 0, bytes = 0, begin = 0;
  uint64_t end = 0;  ///< where the records after it begin
};

/// What the records at the file's end say of the directory.
class EndReader {
 public:
  explicit EndReader(const InputFile& file) : file_(file) {}

  Directory read() {
    if (file_.size() < kEndBytes) {
      throw bad_data(file_.path(), file_.size(), "zip end",
                     "the file ends here; expected a zip archive of {} bytes or more", kEndBytes);
    }
    const uint64_t at = file_.size() - kEndBytes;
    const std::string bytes = text_at(file_, at, kEndBytes);
    ByteReader end(file_.path(), bytes, at);
    if (end.number<uint32_t>("zip end") != kEnd) {
      throw bad_data(
          file_.path(), at, "zip end",
          "no end of a zip archive in the last {} bytes; expected one: the file is cut off, or has bytes or a "
          "comment after the archive",
          kEndBytes);
    }
    const auto disk = end.number<uint16_t>("disk"), first_disk = end.number<uint16_t>("first disk");
    const auto here = end.number<uint16_t>("entries here"), all = end.number<uint16_t>("entries");
    const auto size = end.number<uint32_t>("directory size"), begin = end.number<uint32_t>("directory offset");
    const auto comment = end.number<uint16_t>("comment");
    if (disk != 0 || first_disk != 0 || here != all || comment != 0) {
      throw bad_data(file_.path(), at, "zip end",
                     "an archive of several disks, or a comment of {} bytes; expected one disk and no comment",
                     comment);
    }
    Directory directory{all, size, begin, at};
    if (const std::optional<Directory> wide = read_64(at)) {
      const bool same = (all == 0xffff || all == wide->entries) && (size == kIn64 || size == wide->bytes) &&
                        (begin == kIn64 || begin == wide->begin);
      if (!same)
        throw bad_data(file_.path(), at, "zip end", "differs from the zip64 record before it; expected the same");
      directory = *wide;
    }
    if (directory.entries > kMaxEntries || directory.bytes > kMaxDirectoryBytes) {
      throw ResourceError(ExitCode::limit,
                          "{}: byte {} (zip end): {} entries in a directory of {} bytes; at most {} in {} "
                          "bytes are accepted",
                          file_.path(), at, directory.entries, directory.bytes, kMaxEntries, kMaxDirectoryBytes);
    }
    if (checked_add(directory.begin, directory.bytes) != directory.end) {
      throw bad_data(file_.path(), at, "directory offset",
                     "{} and {} bytes of it do not end at byte {}, where the end begins", directory.begin,
                     directory.bytes, directory.end);
    }
    if (directory.entries > directory.bytes / kCentralBytes) {
      throw bad_data(file_.path(), at, "entries", "{} in a directory of {} bytes; expected {} bytes or more for each",
                     directory.entries, directory.bytes, kCentralBytes);
    }
    return directory;
  }

 private:
  std::optional<Directory> read_64(uint64_t end_at) const {
    if (end_at < kLocator64Bytes + kEnd64Bytes) return std::nullopt;
    const uint64_t locator_at = end_at - kLocator64Bytes, at = locator_at - kEnd64Bytes;
    const std::string bytes = text_at(file_, at, kEnd64Bytes + kLocator64Bytes);
    ByteReader locator(file_.path(), std::string_view(bytes).substr(kEnd64Bytes), locator_at);
    if (locator.number<uint32_t>("zip64 locator") != kLocator64) return std::nullopt;
    const auto disk = locator.number<uint32_t>("disk");
    const auto record_at = locator.number<uint64_t>("zip64 offset");
    const auto disks = locator.number<uint32_t>("disks");
    ByteReader record(file_.path(), bytes, at);
    const auto signature = record.number<uint32_t>("zip64 end");
    const auto length = record.number<uint64_t>("zip64 length");
    if (disk != 0 || disks > 1 || record_at != at || signature != kEnd64 || length != kEnd64Bytes - 12) {
      throw bad_data(file_.path(), locator_at, "zip64 locator",
                     "points to byte {}; expected a zip64 end of {} bytes at byte {}", record_at, kEnd64Bytes, at);
    }
    record.number<uint32_t>("versions");
    const auto this_disk = record.number<uint32_t>("disk"), first_disk = record.number<uint32_t>("first disk");
    const auto here = record.number<uint64_t>("entries here"), all = record.number<uint64_t>("entries");
    const auto size = record.number<uint64_t>("directory size"), begin = record.number<uint64_t>("directory offset");
    if (this_disk != 0 || first_disk != 0 || here != all)
      throw bad_data(file_.path(), at, "zip64 end", "an archive of several disks; expected one");
    return Directory{all, size, begin, at};
  }

  const InputFile& file_;
};

/// An entry as the directory tells it.
struct Listed {
  std::string name;
  uint64_t record = 0;  ///< where it is told
  uint64_t header = 0;  ///< where the entry begins
  uint64_t bytes = 0;
  uint32_t crc = 0;
  uint16_t flags = 0;
};

/// Names are only keys here, nothing is ever unpacked; but one that would leave its folder says what the file is for.
void check_name(const std::string& path, uint64_t at, const std::string& name) {
  const bool leaves = name.starts_with('/') || name == ".." || name.starts_with("../") || name.ends_with("/..") ||
                      name.find("/../") != std::string::npos || name.find('\\') != std::string::npos;
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) >= 32; });
  if (name.empty() || leaves || !plain)
    throw bad_data(path, at, "entry name", "'{}'; expected a relative name without '..'", shown_name(name));
  if (name.size() > kMaxNameBytes)
    throw bad_data(path, at, "entry name", "'{}' of {} bytes; expected {} at most", shown_name(name), name.size(),
                   kMaxNameBytes);
}

/// The numbers that did not fit their 32 bits, from the zip64 field, in APPNOTE's order (4.5.3).
void widen(ByteReader extra, const std::string& path, std::initializer_list<uint64_t*> numbers) {
  const bool any = std::any_of(numbers.begin(), numbers.end(), [](const uint64_t* n) { return *n == kIn64; });
  const uint64_t at = extra.offset();
  bool found = false;
  while (extra.left() > 0) {
    const auto id = extra.number<uint16_t>("extra field");
    const auto length = extra.number<uint16_t>("extra field length");
    const uint64_t begin = extra.offset();
    const std::string_view content = extra.text(length, "extra field");
    if (id != kExtra64) continue;
    if (std::exchange(found, true)) throw bad_data(path, begin, "zip64 field", "appears twice; expected once");
    ByteReader wide(path, content, begin);
    for (uint64_t* number : numbers) {
      if (*number == kIn64) *number = wide.number<uint64_t>("zip64 field");
    }
  }
  if (any && !found) throw bad_data(path, at, "extra field", "no zip64 field; expected the sizes that it must hold");
}

Listed read_listed(const std::string& path, ByteReader& directory) {
  Listed e;
  e.record = directory.offset();
  if (directory.number<uint32_t>("directory entry") != kCentralHeader)
    throw bad_data(path, e.record, "directory entry", "no signature; expected PK\\x01\\x02");
  directory.number<uint32_t>("versions");
  e.flags = directory.number<uint16_t>("flags");
  const auto method = directory.number<uint16_t>("method");
  directory.number<uint32_t>("time");
  e.crc = directory.number<uint32_t>("crc");
  uint64_t packed = directory.number<uint32_t>("compressed size");
  e.bytes = directory.number<uint32_t>("size");
  const auto name_bytes = directory.number<uint16_t>("name length");
  const auto extra_bytes = directory.number<uint16_t>("extra length");
  const auto comment_bytes = directory.number<uint16_t>("comment length");
  const auto disk = directory.number<uint16_t>("disk");
  directory.number<uint16_t>("attributes");
  directory.number<uint32_t>("attributes");
  e.header = directory.number<uint32_t>("header offset");
  e.name = std::string(directory.text(name_bytes, "entry name"));
  const uint64_t extra_at = directory.offset();
  widen(ByteReader(path, directory.text(extra_bytes, "extra field"), extra_at), path, {&e.bytes, &packed, &e.header});
  directory.text(comment_bytes, "comment");
  check_name(path, e.record, e.name);
  const std::string name = shown_name(e.name);
  if (method != 0 || packed != e.bytes) {
    throw bad_data(
        path, e.record, name.c_str(),
        "compressed (method {}, {} bytes from {}); expected an entry stored as it is, as torch.save writes it, "
        "not a repacked file or TorchScript; load it in Python and torch.save its state_dict()",
        method, e.bytes, packed);
  }
  if ((e.flags & ~(kDescriptor | kUtf8)) != 0 || disk != 0) {
    throw bad_data(path, e.record, name.c_str(), "{}; expected a plain entry",
                   e.flags & kEncrypted ? "encrypted" : "flags or a disk of no plain archive");
  }
  return e;
}

/// The header at the entry itself must tell what the directory told. Returns where the content begins.
/// Adds the header's own names and extra fields to `local_bytes`, of all headers together.
uint64_t check_local_header(const InputFile& file, const Listed& listed, uint64_t limit, uint64_t& local_bytes) {
  const std::string name = shown_name(listed.name);
  const std::string& path = file.path();
  if (limit < kLocalBytes || listed.header > limit - kLocalBytes) {
    throw bad_data(path, listed.record, name.c_str(), "begins at byte {}; expected it before the directory at byte {}",
                   listed.header, limit);
  }
  const std::string bytes = text_at(file, listed.header, kLocalBytes);
  ByteReader header(path, bytes, listed.header);
  const auto signature = header.number<uint32_t>("entry header");
  header.number<uint16_t>("version");
  const auto flags = header.number<uint16_t>("flags");
  const auto method = header.number<uint16_t>("method");
  header.number<uint32_t>("time");
  const auto crc = header.number<uint32_t>("crc");
  uint64_t packed = header.number<uint32_t>("compressed size"), size = header.number<uint32_t>("size");
  const auto name_bytes = header.number<uint16_t>("name length"), extra_bytes = header.number<uint16_t>("extra length");
  if (signature != kLocalHeader)
    throw bad_data(path, listed.header, name.c_str(), "no entry begins here; expected PK\\x03\\x04");
  const uint64_t rest_at = listed.header + kLocalBytes;
  if (uint64_t{name_bytes} + extra_bytes > limit - rest_at)
    throw bad_data(path, rest_at, name.c_str(), "its header reaches into the directory at byte {}", limit);
  local_bytes += uint64_t{name_bytes} + extra_bytes;
  if (local_bytes > kMaxLocalBytes) {
    throw ResourceError(
        ExitCode::limit,
        "{}: byte {} ({}): the names and extra fields up to here have {} bytes; at most {} are accepted", path, rest_at,
        name, local_bytes, kMaxLocalBytes);
  }
  const std::string rest = text_at(file, rest_at, uint64_t{name_bytes} + extra_bytes);
  ByteReader names(path, rest, rest_at);
  const std::string_view own_name = names.text(name_bytes, "entry name");
  const uint64_t extra_at = names.offset();
  // With a descriptor after the content, as PyTorch writes, the header may leave sizes and sum 0.
  const bool later = (flags & kDescriptor) != 0 && packed == 0 && size == 0 && crc == 0;
  if (!later) widen(ByteReader(path, names.text(extra_bytes, "extra field"), extra_at), path, {&size, &packed});
  const bool same = own_name == listed.name && method == 0 && flags == listed.flags &&
                    (later || (packed == listed.bytes && size == listed.bytes && crc == listed.crc));
  if (!same) {
    throw bad_data(
        path, listed.header, name.c_str(),
        "its header ('{}', method {}, {} bytes) is not what the directory at byte {} says ({} bytes, stored)",
        shown_name(std::string(own_name)), method, size, listed.record, listed.bytes);
  }
  const uint64_t begin = rest_at + rest.size();
  if (listed.bytes > limit - begin) {
    throw bad_data(path, listed.record, name.c_str(), "{} bytes from byte {}; the directory begins at byte {}",
                   listed.bytes, begin, limit);
  }
  return begin;
}

}  // namespace

ZipFile::ZipFile(const std::string& path) : file_(path) {
  const Directory directory = EndReader(file_).read();
  const std::string bytes = text_at(file_, directory.begin, directory.bytes);
  ByteReader reader(file_.path(), bytes, directory.begin);
  struct Extent {
    uint64_t begin, end;
    const std::string* name;
  };
  std::vector<Extent> extents;
  uint64_t local_bytes = 0;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    const Listed listed = read_listed(file_.path(), reader);
    const uint64_t begin = check_local_header(file_, listed, directory.begin, local_bytes);
    const auto [at, is_new] = entries_.emplace(listed.name, ZipEntry{begin, listed.bytes, listed.crc});
    if (!is_new) {
      throw bad_data(file_.path(), listed.record, shown_name(listed.name).c_str(),
                     "appears twice; expected unique names");
    }
    extents.push_back({listed.header, begin + listed.bytes, &at->first});
  }
  if (reader.left() > 0)
    throw bad_data(file_.path(), reader.offset(), "directory", "{} bytes after its last entry; expected none",
                   reader.left());
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].begin < extents[i - 1].end) {
      throw bad_data(file_.path(), extents[i].begin, shown_name(*extents[i].name).c_str(),
                     "overlaps '{}', which ends at byte {}", shown_name(*extents[i - 1].name), extents[i - 1].end);
    }
  }
}

void ZipFile::check_sum(const std::string& name, const ZipEntry& entry, uint32_t crc) const {
  if (crc != entry.crc) {
    throw bad_data(path(), entry.begin, shown_name(name).c_str(),
                   "its bytes have CRC-32 {:08x}; expected {:08x}: the file is damaged", crc, entry.crc);
  }
}

void ZipFile::read(const std::string& name, std::span<std::byte> target) const {
  const ZipEntry& entry = entries_.at(name);
  check(target.size() == entry.bytes, "ZipFile::read: a target of another size");
  file_.read_at(entry.begin, target);
  check_sum(name, entry, crc_of(0, target));
}

void ZipFile::verify(const std::string& name) const {
  constexpr uint64_t kChunkBytes = uint64_t{1} << 20;
  const ZipEntry& entry = entries_.at(name);
  std::vector<std::byte> chunk(static_cast<size_t>(std::min(entry.bytes, kChunkBytes)));
  uint32_t crc = 0;
  for (uint64_t done = 0; done < entry.bytes; done += chunk.size()) {
    const auto part = std::span(chunk).first(static_cast<size_t>(std::min<uint64_t>(chunk.size(), entry.bytes - done)));
    file_.read_at(entry.begin + done, part);
    crc = crc_of(crc, part);
  }
  check_sum(name, entry, crc);
}

void ZipFile::read_part(const std::string& name, uint64_t offset, std::span<std::byte> target) const {
  const ZipEntry& entry = entries_.at(name);
  check(offset <= entry.bytes && target.size() <= entry.bytes - offset, "ZipFile::read_part: past the entry's end");
  file_.read_at(entry.begin + offset, target);
}

std::string ZipFile::read_text(const std::string& name, uint64_t limit) const {
  const ZipEntry& entry = entries_.at(name);
  if (entry.bytes > limit) {
    throw ResourceError(ExitCode::limit, "{}: byte {} ({}): {} bytes; at most {} are accepted here", path(),
                        entry.begin, shown_name(name), entry.bytes, limit);
  }
  std::string text(static_cast<size_t>(entry.bytes), '\0');
  read(name, std::as_writable_bytes(std::span(text)));
  return text;
}

namespace {

/// Puts little-endian numbers one after another.
class RecordWriter {
 public:
  template <class T>
  RecordWriter& put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  RecordWriter& text(const std::string& text) {
    bytes_ += text;
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

class Crc32Sink final : public ByteSink {
 public:
  using ByteSink::write;
  void write(std::span<const std::byte> bytes) override {
    crc_ = crc_of(crc_, bytes);
    bytes_ += bytes.size();
  }
  uint32_t crc() const { return crc_; }
  uint64_t bytes() const { return bytes_; }

 private:
  uint32_t crc_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace

void ZipWriter::put(const std::string& bytes) {
  sink_.write(bytes);
  offset_ += bytes.size();
}

void ZipWriter::add(const std::string& name, uint64_t bytes, const ContentWriter& write) {
  constexpr uint64_t kMost = 0xfffffffe - (uint64_t{1} << 24);  // room for the directory
  if (written_.size() >= 65'534 || offset_ > kMost || bytes > kMost - offset_) {
    throw ResourceError(ExitCode::limit,
                        "zip: entry '{}' would pass 4 GiB or 65,534 entries; a .safetensors file has no such limit",
                        shown_name(name));
  }
  Crc32Sink sum;
  write(sum);
  check(sum.bytes() == bytes, "ZipWriter: content of another size");
  written_.push_back({name, offset_, bytes, sum.crc()});
  // An extra field of zeros, id 'FB' as PyTorch's, moves the content to a multiple of 64.
  const uint64_t content = offset_ + kLocalBytes + name.size() + 4;
  const uint64_t padding = (kAlignment - content % kAlignment) % kAlignment;
  RecordWriter header;
  header.put(kLocalHeader).put(uint16_t{20}).put(kUtf8).put(uint16_t{0}).put(uint32_t{0x00210000});  // 1980-01-01
  header.put(sum.crc()).put(static_cast<uint32_t>(bytes)).put(static_cast<uint32_t>(bytes));
  header.put(static_cast<uint16_t>(name.size())).put(static_cast<uint16_t>(4 + padding)).text(name);
  header.text("FB").put(static_cast<uint16_t>(padding)).text(std::string(padding, '\0'));
  put(header.bytes());
  write(sink_);
  offset_ += bytes;
}

void ZipWriter::finish() {
  const uint64_t begin = offset_;
  RecordWriter directory;
  for (const Written& w : written_) {
    directory.put(kCentralHeader)
        .put(uint16_t{20})
        .put(uint16_t{20})
        .put(kUtf8)
        .put(uint16_t{0})
        .put(uint32_t{0x00210000});
    directory.put(w.crc).put(static_cast<uint32_t>(w.bytes)).put(static_cast<uint32_t>(w.bytes));
    directory.put(static_cast<uint16_t>(w.name.size()))
        .put(uint64_t{0})
        .put(uint32_t{0});  // no extra, comment, attributes
    directory.put(static_cast<uint32_t>(w.header)).text(w.name);
  }
  put(directory.bytes());
  const auto count = static_cast<uint16_t>(written_.size());
  RecordWriter end;
  end.put(kEnd).put(uint32_t{0}).put(count).put(count).put(static_cast<uint32_t>(offset_ - begin));
  end.put(static_cast<uint32_t>(begin)).put(uint16_t{0});
  put(end.bytes());
}

}  // namespace resnet
