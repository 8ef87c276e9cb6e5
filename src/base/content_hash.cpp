#include "base/content_hash.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

// The functions themselves, not a library to load at each start.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/format.h"

namespace resnet {
namespace {

constexpr uint64_t kPiece = uint64_t{256} << 10;  ///< with its copy it fits a core's second cache

ContentHash hash_of(const void* data, size_t bytes) {
  const XXH128_hash_t hash = XXH3_128bits(data, bytes);
  return {hash.low64, hash.high64};
}

/// hash_piece(offset, bytes, buffer) of all pieces; a thread's buffer is kPiece long where `buffered`.
template <class F>
ContentHash hash_pieces(uint64_t bytes, int threads, size_t buffer_bytes, F&& hash_piece) {
  const size_t count = static_cast<size_t>((bytes + kPiece - 1) / kPiece);
  std::vector<ContentHash> hashes(count);
  std::atomic<size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&] {
    try {
      std::vector<std::byte> buffer(buffer_bytes);
      for (size_t i; (i = next++) < count;) {
        const uint64_t offset = i * kPiece;
        hashes[i] = hash_piece(offset, static_cast<size_t>(std::min(kPiece, bytes - offset)), buffer);
      }
    } catch (...) {
      const std::lock_guard lock(failure_mutex);
      failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> helpers;
    const size_t wanted = std::min(static_cast<size_t>(std::max(threads, 1)), std::max<size_t>(count, 1));
    try {
      while (helpers.size() + 1 < wanted) helpers.emplace_back(work);
    } catch (const std::system_error&) {  // the system gives no more: those that are there do it all
    }
    work();
  }
  if (failure) std::rethrow_exception(failure);
  return hash_of(hashes.data(), hashes.size() * sizeof(ContentHash));
}

}  // namespace

std::string ContentHash::hex() const { return fmt::format("{:016x}{:016x}", high, low); }

ContentHash content_hash(std::span<const std::byte> bytes, int threads) {
  return hash_pieces(bytes.size(), threads, 0, [&](uint64_t offset, size_t size, std::vector<std::byte>&) {
    return hash_of(bytes.data() + offset, size);
  });
}

ContentHash content_hash(uint64_t bytes, int threads,
                         const std::function<void(uint64_t offset, std::span<std::byte> target)>& read) {
  return hash_pieces(bytes, threads, kPiece, [&](uint64_t offset, size_t size, std::vector<std::byte>& buffer) {
    const std::span<std::byte> piece(buffer.data(), size);
    read(offset, piece);
    return hash_of(piece.data(), size);
  });
}

}  // namespace resnet
