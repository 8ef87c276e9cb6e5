#include "formats/weights_cache.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "base/build_id.h"
#include "base/content_hash.h"
#include "base/error.h"
#include "formats/file_io.h"
#include "formats/temporary_directory.h"
#include "runtime/on_backend.h"

namespace resnet {
namespace {

using testing::ScopedEnvironment;

constexpr uint64_t kMib = uint64_t{1} << 20;

std::vector<std::byte> bytes_of(size_t count, uint8_t first) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(first + i * 7);
  return bytes;
}

/// Parts of sizes that are no multiples of anything, one of them of several pieces of the hash.
class WeightsCacheTest : public ::testing::Test {
 protected:
  WeightsCacheTest() {
    for (const size_t size : {size_t{100}, size_t{1}, size_t{700001}, size_t{64}}) {
      contents_.push_back(bytes_of(size, static_cast<uint8_t>(size)));
      sizes_.push_back(size);
    }
    for (const auto& content : contents_) parts_.push_back(content);
  }
  bool holds(const WeightsCache& cache, std::string_view description) const {
    const auto found = cache.find(description, sizes_);
    if (!found) return false;
    for (size_t i = 0; i < contents_.size(); ++i) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(found->parts()[i]) % 64, 0u);
      EXPECT_TRUE(std::equal(contents_[i].begin(), contents_[i].end(), found->parts()[i])) << "part " << i;
    }
    return true;
  }

  TemporaryDirectory directory_;
  std::filesystem::path folder_ = std::filesystem::path(directory_.path()) / "caches" / "weights";
  WeightsCache cache_{folder_, 64 * kMib, 2};
  std::vector<std::vector<std::byte>> contents_;
  std::vector<size_t> sizes_;
  std::vector<std::span<const std::byte>> parts_;
};

TEST_F(WeightsCacheTest, WhatWasStoredIsFoundByItsDescriptionAlone) {
  EXPECT_FALSE(holds(cache_, "a"));
  EXPECT_EQ(cache_.store("a", parts_), "");
  EXPECT_TRUE(holds(cache_, "a"));
  EXPECT_TRUE(holds(WeightsCache(folder_, 1, 1), "a")) << "another process, with other limits and threads";
  EXPECT_FALSE(holds(cache_, "b"));
  // Somebody gives the file another's name: what it says of itself counts.
  std::filesystem::copy_file(cache_.path_of("a"), cache_.path_of("b"));
  EXPECT_FALSE(holds(cache_, "b"));
  sizes_[1] = 65;
  EXPECT_EQ(cache_.find("a", sizes_), nullptr);
}

TEST_F(WeightsCacheTest, FilesAreTheirOwnersAlone) {
  cache_.store("a", parts_);
  struct stat status {};
  ASSERT_EQ(stat(cache_.path_of("a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  ASSERT_EQ(stat(folder_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1) << "no temporary file is left";
}

TEST_F(WeightsCacheTest, NothingOfADamagedFileIsUsedAndItIsWrittenAnew) {
  cache_.store("a", parts_);
  const std::filesystem::path path = cache_.path_of("a");
  const std::string whole = read_whole_file(path, kMib);
  const auto damage = [&](const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    EXPECT_FALSE(holds(cache_, "a"));
  };
  // Every byte of the head and the description, and some of what follows (the bytes between head and body mean
  // nothing).
  for (size_t at = 0; at < 33; ++at) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    damage(bytes);
  }
  for (size_t at = 4096; at < whole.size(); at += 60013) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x80);
    damage(bytes);
  }
  for (const size_t length : {size_t{0}, size_t{7}, size_t{32}, size_t{4096}, whole.size() - 1}) {
    damage(whole.substr(0, length));
  }
  damage(whole + '\0');
  damage(std::string(whole.size(), '\0'));  // what a power cut leaves
  EXPECT_EQ(cache_.store("a", parts_), "");
  EXPECT_TRUE(holds(cache_, "a"));
}

TEST_F(WeightsCacheTest, LinksPipesFoldersAndFilesThatOthersMayWriteAreNotRead) {
  cache_.store("a", parts_);
  const std::filesystem::path path = cache_.path_of("a"), elsewhere = folder_ / "elsewhere";
  std::filesystem::rename(path, elsewhere);
  std::filesystem::create_symlink(elsewhere, path);
  EXPECT_FALSE(holds(cache_, "a"));
  EXPECT_EQ(cache_.store("a", parts_), "");
  EXPECT_FALSE(std::filesystem::is_symlink(path)) << "the link is replaced, not followed";
  EXPECT_TRUE(holds(cache_, "a"));
  for (const mode_t mode : {0620, 0602, 0666}) {
    ASSERT_EQ(chmod(path.c_str(), mode), 0);
    EXPECT_FALSE(holds(cache_, "a")) << mode;
  }
  std::filesystem::remove(path);
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_FALSE(holds(cache_, "a"));
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  EXPECT_FALSE(holds(cache_, "a"));
  EXPECT_NE(cache_.store("a", parts_), "") << "a file cannot take a folder's place";
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 2) << "no temporary file is left";
}

TEST_F(WeightsCacheTest, AnotherUsersFileIsNotRead) {
  cache_.store("a", parts_);
  if (chown(cache_.path_of("a").c_str(), geteuid() + 1, static_cast<gid_t>(-1)) != 0)
    GTEST_SKIP() << "only root gives files away";
  EXPECT_FALSE(holds(cache_, "a"));
  cache_.store("a", parts_);
  EXPECT_TRUE(holds(cache_, "a"));
}

TEST_F(WeightsCacheTest, WhereNothingCanBeWrittenThereIsNoCacheAndNoError) {
  const std::string file = directory_ / "file";
  std::ofstream(file) << "x";
  const WeightsCache inside_a_file(std::filesystem::path(file) / "weights", 64 * kMib);
  EXPECT_EQ(inside_a_file.store("a", parts_), file + "/weights: Not a directory");
  EXPECT_FALSE(holds(inside_a_file, "a"));
  EXPECT_EQ(WeightsCache("", 64 * kMib).store("a", parts_), "off");
  EXPECT_EQ(WeightsCache(folder_, 0).store("a", parts_), "off");
  EXPECT_NE(WeightsCache(folder_, 1000).store("a", parts_), "");
  std::filesystem::create_directories(folder_);
  ASSERT_EQ(chmod(folder_.c_str(), 0770), 0);
  EXPECT_EQ(cache_.store("a", parts_), folder_.string() + ": others may write to it");
  ASSERT_EQ(chmod(folder_.c_str(), 0700), 0);
  // As on a full disk, the file system stops in the middle.
  const rlimit whole = [] {
    rlimit limit{};
    getrlimit(RLIMIT_FSIZE, &limit);
    return limit;
  }();
  const rlimit small{300000, whole.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string why = cache_.store("a", parts_);
  setrlimit(RLIMIT_FSIZE, &whole);
  EXPECT_NE(why, "");
  EXPECT_FALSE(holds(cache_, "a"));
  EXPECT_TRUE(std::filesystem::is_empty(folder_)) << "no temporary file is left";
}

TEST_F(WeightsCacheTest, TheLeastRecentlyUsedGoFirst) {
  const uint64_t one = [&] {
    cache_.store("a", parts_);
    return std::filesystem::file_size(cache_.path_of("a"));
  }();
  const WeightsCache small(folder_, 3 * one + one / 2);
  const auto age = [&](const char* description, int seconds) {
    std::filesystem::last_write_time(small.path_of(description),
                                     std::filesystem::file_time_type::clock::now() - std::chrono::seconds(seconds));
  };
  small.store("b", parts_);
  small.store("c", parts_);
  age("a", 300), age("b", 200), age("c", 100);
  EXPECT_TRUE(holds(small, "a")) << "and is used now";
  const auto mapped = small.find("b", sizes_);
  age("b", 200);
  const std::filesystem::path abandoned = folder_ / ".tmp-1-0", others = folder_ / "others.txt";
  std::ofstream(abandoned) << "x";
  std::ofstream(others) << "x";
  std::filesystem::last_write_time(abandoned, std::filesystem::file_time_type::clock::now() - std::chrono::hours(2));
  EXPECT_EQ(small.store("d", parts_), "");
  EXPECT_TRUE(holds(small, "a"));
  EXPECT_FALSE(holds(small, "b"));
  EXPECT_TRUE(holds(small, "c"));
  EXPECT_TRUE(holds(small, "d"));
  EXPECT_FALSE(std::filesystem::exists(abandoned));
  EXPECT_TRUE(std::filesystem::exists(others)) << "not ours to remove";
  EXPECT_TRUE(std::equal(contents_[2].begin(), contents_[2].end(), mapped->parts()[2])) << "who has it keeps it";
}

TEST_F(WeightsCacheTest, ManyWhoWriteAndReadAtOnceSeeAllOfItOrNothing) {
  std::atomic<int> found{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int round = 0; round < 10; ++round) {
          EXPECT_EQ(cache_.store("a", parts_), "");
          found += holds(cache_, "a");
        }
      });
    }
  }
  EXPECT_EQ(found, 40) << "from the first rename on there is always a whole file";
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST(WeightsCacheEnvironment, SaysWhereAndHowMuch) {
  const TemporaryDirectory directory;
  const ScopedEnvironment home("XDG_CACHE_HOME", directory.path());
  {
    const ScopedEnvironment limit("RESNET_WEIGHTS_CACHE_MIB", "0");
    EXPECT_FALSE(WeightsCache::from_environment(1).enabled());
  }
  for (const char* text : {"", "1", "1048576"}) {
    const ScopedEnvironment limit("RESNET_WEIGHTS_CACHE_MIB", text);
    const WeightsCache cache = WeightsCache::from_environment(1);
    EXPECT_TRUE(cache.enabled());
    EXPECT_EQ(cache.path_of("a").parent_path(), std::filesystem::path(directory.path()) / "resnet" / "weights");
  }
  for (const char* text : {"-1", "1048577", "no", "12 ", "1e3", "99999999999999999999"}) {
    const ScopedEnvironment limit("RESNET_WEIGHTS_CACHE_MIB", text);
    EXPECT_THROW(WeightsCache::from_environment(1), UserError) << text;
  }
}

TEST(ContentHash, DoesNotDependOnWhoReadsOrHowManyHash) {
  const std::vector<std::byte> bytes = bytes_of(3 * 262144 + 77, 3);
  const ContentHash hash = content_hash(bytes);
  EXPECT_EQ(content_hash(bytes, 5), hash);
  EXPECT_EQ(content_hash(bytes.size(), 3,
                         [&](uint64_t offset, std::span<std::byte> target) {
                           std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), target.size(),
                                       target.begin());
                         }),
            hash);
  for (const size_t at : {size_t{0}, size_t{262143}, size_t{262144}, bytes.size() - 1}) {
    std::vector<std::byte> other = bytes;
    other[at] ^= std::byte{1};
    EXPECT_NE(content_hash(other), hash) << at;
  }
  EXPECT_NE(content_hash(std::span(bytes).first(bytes.size() - 1)), hash);
  EXPECT_EQ(content_hash(std::span<const std::byte>()).hex().size(), 32u);
  EXPECT_THROW(content_hash(1 << 20, 2, [](uint64_t, std::span<std::byte>) { throw UserError("no"); }), UserError);
}

TEST(BuildId, IsThisPrograms) {
  const std::string id = build_id();
  EXPECT_EQ(id.size(), 40u) << "SHA-1 in hex";
  EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), std::string::npos);
  std::string raw;
  for (size_t i = 0; i < id.size(); i += 2) raw += static_cast<char>(std::stoi(id.substr(i, 2), nullptr, 16));
  EXPECT_NE(read_whole_file("/proc/self/exe", uint64_t{1} << 30).find(raw), std::string::npos);
}

}  // namespace
}  // namespace resnet
