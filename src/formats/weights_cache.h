#pragma once
// Weights as programs read them (folded, laid out, packed), kept on disk so that a later start reads no model file,
// folds nothing and packs nothing: it maps a file.
//
// One file holds all that one set of programs reads. It is named after, and begins with, a description: everything that
// the bytes depend on, in words. A reader knows which description and how many bytes it wants, so nothing of a file is
// believed or even parsed: one that does not begin with exactly these words, is not exactly that long, or whose hash is
// not that of its bytes, is as good as none.
//
//   8 bytes "resnetw1" | u64 bytes of the description | u64, u64 the body's content_hash | the description
//   from the next multiple of 4096 on, the body: the parts in order, each from a multiple of 64 on, zeros between them
// Numbers are little endian, as are all processors that this runs on.
//
// Whom it trusts: this user, as the cache of measured algorithms does. Files are written for their owner alone; one
// that belongs to somebody else, or that others may write, is not read. Who may write there as this user could as well
// replace the program.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace resnet {

/// Parts of a file of the cache, in memory that every process with the same weights shares. Must not be written to.
class MappedWeights {
 public:
  MappedWeights(const std::byte* begin, size_t bytes, std::vector<const std::byte*> parts)
      : begin_(begin), bytes_(bytes), parts_(std::move(parts)) {}
  ~MappedWeights();
  MappedWeights(const MappedWeights&) = delete;
  MappedWeights& operator=(const MappedWeights&) = delete;
  /// 64-byte aligned, in the order in which they were asked for.
  const std::vector<const std::byte*>& parts() const { return parts_; }

 private:
  const std::byte* begin_;
  size_t bytes_;
  std::vector<const std::byte*> parts_;
};

class WeightsCache {
 public:
  /// Keeps at most `limit_bytes` in `folder`, which is made when needed; 0: finds and keeps nothing. `threads` hash.
  WeightsCache(std::filesystem::path folder, uint64_t limit_bytes, int threads = 1)
      : folder_(std::move(folder)), limit_(limit_bytes), threads_(threads) {}
  /// XDG_CACHE_HOME/resnet/weights, at most RESNET_WEIGHTS_CACHE_MIB (2048; 0: none). Throws UserError when that is no
  /// such number.
  static WeightsCache from_environment(int threads);

  bool enabled() const { return limit_ > 0 && !folder_.empty(); }
  int threads() const { return threads_; }
  /// The file of this description with parts of these sizes; null when there is none that is whole and ours. What is
  /// found counts as used now.
  std::shared_ptr<const MappedWeights> find(std::string_view description, std::span<const size_t> part_bytes) const;
  /// Writes it (temporary file and rename: readers see all of it or nothing), then removes the files that were not used
  /// for longest until all fit the limit. Empty when it is kept; else why not, which nobody needs to act on.
  std::string store(std::string_view description, std::span<const std::span<const std::byte>> parts) const;

  /// Where a description's file lies.
  std::filesystem::path path_of(std::string_view description) const;

 private:
  void make_room(const std::filesystem::path& kept) const;

  std::filesystem::path folder_;
  uint64_t limit_;
  int threads_;
};

}  // namespace resnet
