#include "base/aligned_memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/align.h"
#include "base/error.h"

namespace resnet {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kLargePage = size_t{2} << 20;
/// From here on memory comes from the kernel and goes straight back to it: weights that have been converted must not
/// stay behind as holes in the heap.
constexpr size_t kMapped = size_t{128} << 10;

/// `bytes`, a multiple of kPage, from the kernel; null when there are none.
std::byte* map_pages(size_t bytes) {
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return mapped == MAP_FAILED ? nullptr : static_cast<std::byte*>(mapped);
}

/// The same from an address that is a multiple of kLargePage. The kernel aligns to small pages only, so more is asked
/// for and the ends given back. The last page, if only a part of it is wanted, is of small ones: no byte more.
std::byte* map_large_pages(size_t bytes) {
  if (bytes > SIZE_MAX - kLargePage) return nullptr;
  std::byte* begin = map_pages(bytes + kLargePage);
  if (!begin) return nullptr;
  const size_t before = align_up(reinterpret_cast<uintptr_t>(begin), kLargePage) - reinterpret_cast<uintptr_t>(begin);
  if (before > 0) munmap(begin, before);
  if (before < kLargePage) munmap(begin + before + bytes, kLargePage - before);
  // Fewer page faults and TLB misses, a few per cent on arenas; where the system has no such pages it is ignored.
  madvise(begin + before, bytes, MADV_HUGEPAGE);
  return begin + before;
}

}  // namespace

AlignedMemory::AlignedMemory(size_t bytes) {
  if (bytes == 0) return;
  // The destructor knows the rounded size alone, so that decides: what rounds to kMapped is mapped.
  const size_t alignment = bytes > kMapped - kAlignment ? kPage : kAlignment;
  if (bytes <= SIZE_MAX - alignment) {
    bytes_ = align_up(bytes, alignment);
    if (bytes_ >= kLargePage) {
      data_ = map_large_pages(bytes_);
    } else if (bytes_ >= kMapped) {
      data_ = map_pages(bytes_);
    } else if ((data_ = static_cast<std::byte*>(std::aligned_alloc(alignment, bytes_)))) {
      std::memset(data_, 0, bytes_);
    }
  }
  if (!data_) throw ResourceError(ExitCode::limit, "memory: {} bytes are not to be had; try a smaller batch", bytes);
}

AlignedMemory::~AlignedMemory() {
  if (bytes_ >= kMapped) {
    // Cutting a mapping in two takes memory of the kernel's; without it the addresses stay taken, but not the pages.
    if (munmap(data_, bytes_) != 0) madvise(data_, bytes_, MADV_DONTNEED);
  } else {
    std::free(data_);
  }
}

}  // namespace resnet
