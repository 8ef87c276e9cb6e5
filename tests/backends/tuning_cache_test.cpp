#include "backends/cpu/tuning_cache.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "runtime/on_backend.h"

namespace resnet::cpu {
namespace {

using resnet::testing::ScopedEnvironment;

class TuningCacheTest : public ::testing::Test {
 protected:
  /// The only file, once there is one.
  std::string file() const {
    const std::vector<std::string> names = names_in(directory_ / "resnet");
    return names.size() == 1 ? directory_ / ("resnet/" + names[0]) : "";
  }

  TemporaryDirectory directory_;
  ScopedEnvironment environment_{"XDG_CACHE_HOME", directory_.path()};
};

TEST_F(TuningCacheTest, TellsALaterProcessOfTheSameMachine) {
  TuningCache("one").remember("p", "direct");
  EXPECT_EQ(TuningCache("one").find("p"), "direct");
  EXPECT_EQ(TuningCache("one").find("q"), std::nullopt);
  EXPECT_EQ(TuningCache("two").find("p"), std::nullopt);
}

TEST_F(TuningCacheTest, WhatIsNoFileIsNotReadAndSaysSoWhenItIsInTheWay) {
  TuningCache("m").remember("p", "direct");
  const std::string path = file();
  std::filesystem::remove(path);
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);  // which nobody writes to: reading it would never end
  EXPECT_EQ(TuningCache("m").find("p"), std::nullopt);
  std::filesystem::remove(path);
  std::filesystem::create_directories(path + "/x");
  TuningCache cache("m");
  EXPECT_EQ(cache.find("p"), std::nullopt);
  cache.remember("p", "direct");
  EXPECT_EQ(cache.find("p"), "direct");
  const std::vector<std::string> warnings = cache.take_warnings();
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find(path + ": cannot write"), std::string::npos) << warnings[0];
}

TEST_F(TuningCacheTest, ADamagedFileOnlyMeansMeasuringAgain) {
  TuningCache("m").remember("p", "direct");
  for (const std::string& content : {std::string(), std::string("{\"p\": \"dir"), std::string("[1, 2]"),
                                     std::string("{\"p\": 7}"), std::string("\0\xff", 2)}) {
    put(file(), content);
    TuningCache cache("m");
    EXPECT_EQ(cache.find("p"), std::nullopt) << content;
    cache.remember("p", "winograd f2");
    EXPECT_TRUE(cache.take_warnings().empty());
    EXPECT_EQ(TuningCache("m").find("p"), "winograd f2");
  }
}

TEST_F(TuningCacheTest, AnEntryThatCouldNotBeFollowedIsReplacedInTheFile) {
  TuningCache("m").remember("p", "an algorithm of a later version");
  TuningCache cache("m");
  EXPECT_EQ(cache.find("p"), "an algorithm of a later version");
  cache.remember("p", "direct");
  EXPECT_EQ(cache.find("p"), "direct");
  EXPECT_EQ(TuningCache("m").find("p"), "direct");
}

TEST_F(TuningCacheTest, WhatIsAdoptedComesFirstUntilItCouldNotBeFollowed) {
  TuningCache cache("m");
  cache.remember("p", "direct");
  cache.adopt({{"p", "winograd f2"}});
  EXPECT_EQ(cache.find("p"), "winograd f2");
  EXPECT_EQ(TuningCache("m").find("p"), "direct") << "another run's choice is not this machine's";
  cache.remember("p", "winograd f3");
  EXPECT_EQ(cache.find("p"), "winograd f3");
  EXPECT_EQ(cache.used(), (std::map<std::string, std::string>{{"p", "winograd f3"}}));
}

TEST_F(TuningCacheTest, TwoWritersKeepEachOthersAnswers) {
  TuningCache a("m"), b("m");
  a.remember("p", "by a");
  b.remember("q", "by b");
  a.remember("r", "by a");
  b.remember("r", "by b");
  EXPECT_EQ(a.find("r"), "by a") << "a run keeps to what it decided";
  const TuningCache later("m");
  EXPECT_EQ(later.find("p"), "by a");
  EXPECT_EQ(later.find("q"), "by b");
  EXPECT_EQ(later.find("r"), "by b");
  EXPECT_EQ(names_in(directory_ / "resnet").size(), 1u) << "no temporary file is left";
}

TEST_F(TuningCacheTest, ADirectoryThatCannotBeWrittenIsToldOnceAndTheChoiceIsStillKnown) {
  put(directory_ / "file", "");
  ScopedEnvironment environment("XDG_CACHE_HOME", directory_ / "file");
  TuningCache cache("m");
  EXPECT_TRUE(cache.take_warnings().empty());
  cache.remember("p", "direct");
  cache.remember("q", "direct");
  const std::vector<std::string> warnings = cache.take_warnings();
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0].find(directory_ / "file/resnet/algorithms-"), 0u) << warnings[0];
  EXPECT_NE(warnings[0].find("cannot write: Not a directory"), std::string::npos) << warnings[0];
  cache.remember("r", "direct");
  EXPECT_TRUE(cache.take_warnings().empty());
  EXPECT_EQ(cache.find("p"), "direct");
}

}  // namespace
}  // namespace resnet::cpu
