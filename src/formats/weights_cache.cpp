#include "formats/weights_cache.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "base/align.h"
#include "base/cache_directory.h"
#include "base/content_hash.h"
#include "base/error.h"
#include "base/format.h"
#include "formats/file_io.h"

namespace resnet {
namespace {

constexpr char kMagic[8] = {'r', 'e', 's', 'n', 'e', 't', 'w', '1'};
constexpr size_t kPage = 4096;
constexpr const char* kExtension = ".weights";
constexpr const char* kTemporary = ".tmp-";

struct Head {
  char magic[8];
  uint64_t description_bytes;
  ContentHash body;
};
static_assert(sizeof(Head) == 32);

/// Where everything lies in a file; the same for the same description and sizes.
struct Outline {
  size_t body = 0;
  std::vector<size_t> parts;  ///< offsets
  size_t bytes = 0;           ///< of the file
};

Outline outline_of(std::string_view description, std::span<const size_t> part_bytes) {
  Outline outline{.body = align_up(sizeof(Head) + description.size(), kPage), .parts = {}, .bytes = 0};
  outline.bytes = outline.body;
  for (const size_t bytes : part_bytes) {
    outline.parts.push_back(outline.bytes);
    outline.bytes += align_up(bytes);
  }
  return outline;
}

/// Reads `bytes` from the beginning; false when they are not there.
bool read_head(int fd, std::byte* target, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t got = ::pread(fd, target + done, bytes - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

/// A regular file of this user's that nobody else may write.
bool is_ours(const struct stat& status) {
  return S_ISREG(status.st_mode) && status.st_uid == ::geteuid() && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/// The body as it will lie in the file, of which any range can be had.
class Body {
 public:
  Body(const Outline& outline, std::span<const std::span<const std::byte>> parts) : outline_(outline), parts_(parts) {}
  uint64_t bytes() const { return outline_.bytes - outline_.body; }
  void read(uint64_t offset, std::span<std::byte> target) const {
    const size_t begin = outline_.body + static_cast<size_t>(offset), end = begin + target.size();
    std::fill(target.begin(), target.end(), std::byte{0});
    // The first part that may reach into the range is the one before the first that begins after its beginning.
    auto at = std::upper_bound(outline_.parts.begin(), outline_.parts.end(), begin);
    if (at != outline_.parts.begin()) --at;
    for (; at != outline_.parts.end() && *at < end; ++at) {
      const std::span<const std::byte> part = parts_[static_cast<size_t>(at - outline_.parts.begin())];
      const size_t from = std::max(begin, *at), to = std::min(end, *at + part.size());
      if (from < to) std::memcpy(target.data() + (from - begin), part.data() + (from - *at), to - from);
    }
  }

 private:
  const Outline& outline_;
  std::span<const std::span<const std::byte>> parts_;
};

/// The folder and what is above it; those that are new are the owner's alone. Empty, or why it cannot be made.
std::string why_not_made(const std::filesystem::path& folder) {
  std::error_code error;
  if (std::filesystem::exists(folder, error)) return {};
  if (folder.has_parent_path() && folder.parent_path() != folder) {
    if (std::string why = why_not_made(folder.parent_path()); !why.empty()) return why;
  }
  if (::mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST) return {};
  return fmt::format("{}: {}", folder.string(), std::strerror(errno));
}

/// Empty for a folder in which nobody but the user may have put files; else what is wrong with it.
std::string why_not_own_folder(const std::filesystem::path& folder) {
  struct stat status {};
  if (::stat(folder.c_str(), &status) != 0) return std::strerror(errno);
  if (!S_ISDIR(status.st_mode)) return "is no folder";
  if (status.st_uid != ::geteuid()) return "belongs to another user";
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) return "others may write to it";
  return {};
}

/// By name; what else lies in the folder is not ours to remove.
bool is_entry(const std::filesystem::path& path) {
  const std::string stem = path.stem().string();
  return path.extension() == kExtension && stem.size() == 32 &&
         stem.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

MappedWeights::~MappedWeights() { ::munmap(const_cast<std::byte*>(begin_), bytes_); }

WeightsCache WeightsCache::from_environment(int threads) {
  constexpr uint64_t kUsualMib = 2048, kMostMib = uint64_t{1} << 20;
  uint64_t mib = kUsualMib;
  if (const char* text = std::getenv("RESNET_WEIGHTS_CACHE_MIB"); text && *text) {
    const char* end = text + std::strlen(text);
    const auto [last, error] = std::from_chars(text, end, mib);
    if (error != std::errc() || last != end || mib > kMostMib) {
      throw UserError("environment RESNET_WEIGHTS_CACHE_MIB: '{}'; expected 0 (no cache of weights) to {} MiB",
                      escape_control(text), kMostMib);
    }
  }
  const std::filesystem::path directory = cache_directory();
  return {directory.empty() ? directory : directory / "weights", mib << 20, threads};
}

std::filesystem::path WeightsCache::path_of(std::string_view description) const {
  return folder_ / (content_hash(std::as_bytes(std::span(description))).hex() + kExtension);
}

std::shared_ptr<const MappedWeights> WeightsCache::find(std::string_view description,
                                                        std::span<const size_t> part_bytes) const {
  if (!enabled()) return nullptr;
  // A link may lead anywhere, and a pipe would have us wait.
  const FileDescriptor fd(::open(path_of(description).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat status {};
  if (fd.value() < 0 || ::fstat(fd.value(), &status) != 0 || !is_ours(status)) return nullptr;
  const Outline outline = outline_of(description, part_bytes);
  if (static_cast<uint64_t>(status.st_size) != outline.bytes || outline.bytes == outline.body) return nullptr;
  std::vector<std::byte> beginning(sizeof(Head) + description.size());
  if (!read_head(fd.value(), beginning.data(), beginning.size())) return nullptr;
  Head head;
  std::memcpy(&head, beginning.data(), sizeof head);
  if (std::memcmp(head.magic, kMagic, sizeof kMagic) != 0 || head.description_bytes != description.size() ||
      std::memcmp(beginning.data() + sizeof head, description.data(), description.size()) != 0)
    return nullptr;
  void* mapped = ::mmap(nullptr, outline.bytes, PROT_READ, MAP_PRIVATE, fd.value(), 0);
  if (mapped == MAP_FAILED) return nullptr;
  const auto* begin = static_cast<const std::byte*>(mapped);
  std::vector<const std::byte*> parts;
  for (const size_t offset : outline.parts) parts.push_back(begin + offset);
  auto weights = std::make_shared<const MappedWeights>(begin, outline.bytes, std::move(parts));
  // The file was not forced to the disk: after a power cut it may have its name and size, and not its bytes.
  if (!(content_hash({begin + outline.body, outline.bytes - outline.body}, threads_) == head.body)) return nullptr;
  const timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
  ::futimens(fd.value(), now);  // when it cannot be told, it only goes sooner
  return weights;
}

std::string WeightsCache::store(std::string_view description, std::span<const std::span<const std::byte>> parts) const {
  if (!enabled()) return "off";
  std::vector<size_t> sizes;
  for (const auto& part : parts) sizes.push_back(part.size());
  const Outline outline = outline_of(description, sizes);
  if (outline.bytes > limit_)
    return fmt::format("{} bytes are more than all that may be kept, {}", outline.bytes, limit_);
  if (std::string why = why_not_made(folder_); !why.empty()) return why;
  if (const std::string why = why_not_own_folder(folder_); !why.empty())
    return fmt::format("{}: {}", folder_.string(), why);
  struct statvfs disk {};
  if (::statvfs(folder_.c_str(), &disk) != 0) return fmt::format("{}: {}", folder_.string(), std::strerror(errno));
  if (uint64_t{disk.f_bavail} * disk.f_frsize / 2 < outline.bytes) return "the disk is nearly full";
  const std::filesystem::path path = path_of(description);
  static std::atomic<uint64_t> counter{0};
  const std::filesystem::path temporary = folder_ / fmt::format("{}{}-{}", kTemporary, ::getpid(), counter++);
  ::unlink(temporary.c_str());  // left by a killed process that had our number
  try {
    const Body body(outline, parts);
    Head head{.magic = {},
              .description_bytes = description.size(),
              .body = content_hash(body.bytes(), threads_,
                                   [&](uint64_t offset, std::span<std::byte> target) { body.read(offset, target); })};
    std::memcpy(head.magic, kMagic, sizeof kMagic);
    OutputFile file(temporary, path, 0600);
    file.write(std::as_bytes(std::span(&head, 1)));
    file.write(description);
    const std::vector<std::byte> zeros(kPage);
    file.write(std::span(zeros).first(outline.body - sizeof head - description.size()));
    for (const auto& part : parts) {
      file.write(part);
      file.write(std::span(zeros).first(align_up(part.size()) - part.size()));
    }
    file.close();
    if (::rename(temporary.c_str(), path.c_str()) != 0) throw io_error(path, "rename into place", errno);
  } catch (const std::exception& error) {
    ::unlink(temporary.c_str());
    return error.what();
  }
  make_room(path);
  return {};
}

void WeightsCache::make_room(const std::filesystem::path& kept) const {
  constexpr time_t kAbandoned = 3600;  // seconds; a temporary file lives as long as one write
  struct File {
    timespec used;
    uint64_t bytes;
    std::filesystem::path path;
  };
  std::vector<File> files;
  uint64_t total = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder_, error), end; !error && at != end; at.increment(error)) {
    const std::filesystem::path& path = at->path();
    const bool temporary = path.filename().string().starts_with(kTemporary);
    struct stat status {};
    if (!(temporary || is_entry(path)) || ::lstat(path.c_str(), &status) != 0) continue;
    if (temporary) {
      if (status.st_mtime + kAbandoned < std::time(nullptr)) ::unlink(path.c_str());
      continue;
    }
    total += static_cast<uint64_t>(status.st_size);
    if (path != kept) files.push_back({status.st_mtim, static_cast<uint64_t>(status.st_size), path});
  }
  std::sort(files.begin(), files.end(), [](const File& a, const File& b) {
    return std::pair(a.used.tv_sec, a.used.tv_nsec) < std::pair(b.used.tv_sec, b.used.tv_nsec);
  });
  for (const File& file : files) {
    if (total <= limit_) return;
    // Who has it mapped keeps it. What cannot be removed, others may have removed already.
    ::unlink(file.path.c_str());
    total -= file.bytes;
  }
}

}  // namespace resnet
