#include "base/aligned_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <fstream>

#include "base/align.h"
#include "base/error.h"

namespace resnet {
namespace {

constexpr size_t kMib = size_t{1} << 20;

/// Pages that this process has mapped.
size_t mapped_pages() {
  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages;
}

TEST(AlignedMemory, IsAlignedAndZeroEvenWhereItWasUsedBefore) {
  for (int round = 0; round < 3; ++round) {
    for (const size_t bytes : {size_t{1}, size_t{100}, 300 * kMib / 1024, 2 * kMib - 1, 2 * kMib, 5 * kMib + 1}) {
      AlignedMemory memory(bytes);
      EXPECT_GE(memory.size(), bytes);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.data()) % (memory.size() >= 2 * kMib ? 2 * kMib : kAlignment), 0u)
          << bytes;
      for (size_t i = 0; i < memory.size(); ++i) {
        if (memory.data()[i] != std::byte{0}) {
          ADD_FAILURE() << "byte " << i << " of " << bytes;
          break;
        }
      }
      std::memset(memory.data(), 0xff, memory.size());
    }
  }
}

TEST(AlignedMemory, GivesBackWhatItTookAtEverySizeAroundALargePage) {
  constexpr size_t kRounds = 64;
  for (size_t bytes = 2 * kMib - kAlignment - 1; bytes <= 2 * kMib + 1; ++bytes) {
    const AlignedMemory memory(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.data()) % (memory.size() >= 2 * kMib ? 2 * kMib : kAlignment), 0u)
        << bytes << " bytes are given back as " << memory.size();
  }
  const size_t before = mapped_pages();
  for (size_t round = 0; round < kRounds; ++round) const AlignedMemory memory(2 * kMib - 1);
  EXPECT_LT(mapped_pages(), before + kRounds * 2 * kMib / 4096 / 4) << "memory stays behind";
}

TEST(AlignedMemory, NothingTakesNothing) {
  EXPECT_EQ(AlignedMemory().data(), nullptr);
  EXPECT_EQ(AlignedMemory(0).data(), nullptr);
  EXPECT_EQ(AlignedMemory(0).size(), 0u);
}

TEST(AlignedMemory, MovesAndSwaps) {
  AlignedMemory a(3 * kMib), b(10);
  std::byte* const large = a.data();
  b = std::move(a);
  EXPECT_EQ(b.data(), large);
  AlignedMemory c(std::move(b));
  EXPECT_EQ(c.data(), large);
  EXPECT_EQ(b.data(), nullptr);  // NOLINT: what a moved-from one is, is what is tested
  EXPECT_EQ(c.size(), 3 * kMib) << "no more than asked for: a large page that is touched is there as a whole";
}

TEST(AlignedMemory, WhatIsNotToBeHadIsALimit) {
  for (const size_t bytes : {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX - 3 * kMib, SIZE_MAX / 2}) {
    try {
      AlignedMemory memory(bytes);
      ADD_FAILURE() << bytes;
    } catch (const ResourceError& error) {
      EXPECT_EQ(error.code(), ExitCode::limit);
    }
  }
}

}  // namespace
}  // namespace resnet
