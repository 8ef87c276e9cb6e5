// Waiting where others use the CPUs too: what is decided from the scheduler's counts, and that it can be taken back.
// What it is worth is bench/crowding.py's.
#include "backends/cpu/crowding.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "data/temp_folder.h"

namespace resnet::cpu {
namespace {

using namespace std::chrono_literals;
using testing_data::TempFolder;

int64_t threads_of_this_process() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
}

/// The same once those of earlier tests that are ending have ended.
int64_t settled_threads() {
  int64_t count = threads_of_this_process();
  for (int same = 0; same < 50; ++same) {
    std::this_thread::sleep_for(1ms);
    if (const int64_t now = threads_of_this_process(); now != count) count = now, same = 0;
  }
  return count;
}

/// A thread that has ended is listed a moment longer.
bool soon_has_threads(int64_t count) {
  for (int i = 0; i < 5000 && threads_of_this_process() != count; ++i) std::this_thread::sleep_for(1ms);
  return threads_of_this_process() == count;
}

class Crowding : public ::testing::Test {
 protected:
  /// The next look, `passed` later, the thread having waited `waited` more for a CPU.
  void look(CrowdWatch& watch, std::chrono::milliseconds passed, std::chrono::nanoseconds waited) {
    now_ += passed;
    waited_ += waited;
    std::ofstream(file_) << "123456789 " << waited_.count() << " 42\n";
    watch.look(now_);
  }

  TempFolder folder_;
  std::string file_ = folder_.path() + "/schedstat";
  CrowdWatch::Clock::time_point now_{1h};
  std::chrono::nanoseconds waited_{5s};
};

TEST_F(Crowding, ATeamThatWaitsForCpusGetsSleepersUntilItNoLongerDoes) {
  if (omp_get_num_procs() > 8) GTEST_SKIP() << "a team of two leaves this machine CPUs to spare";
  if (omp_get_thread_limit() < 2) GTEST_SKIP() << "OMP_THREAD_LIMIT leaves no team of two";
  CrowdWatch watch(omp_get_num_procs() + 1, file_);
  const int64_t before = settled_threads();
  look(watch, 0ms, 0ms);
  look(watch, 100ms, 2ms);
  EXPECT_FALSE(watch.crowded()) << "2 % is what a process alone waits";
  look(watch, 50ms, 40ms);
  EXPECT_FALSE(watch.crowded()) << "too soon to tell";
  look(watch, 50ms, 0ms);
  EXPECT_TRUE(watch.crowded()) << "40 of 100 ms";
  EXPECT_TRUE(soon_has_threads(before + 2));
  look(watch, 200ms, 16ms);
  EXPECT_TRUE(watch.crowded()) << "between the two bounds nothing changes";
  look(watch, 200ms, 8ms);
  EXPECT_FALSE(watch.crowded());
  EXPECT_TRUE(soon_has_threads(before));
  look(watch, 200ms, 16ms);
  EXPECT_FALSE(watch.crowded()) << "nor in the other direction";
}

TEST_F(Crowding, AnotherThreadsCountsAreNotComparedWithThisOnes) {
  CrowdWatch watch(2, file_);
  look(watch, 0ms, 0ms);
  std::thread([&] { look(watch, 100ms, 90ms); }).join();
  EXPECT_FALSE(watch.crowded());
}

TEST_F(Crowding, OneThreadOrAKernelThatCountsNothingNeverSeesACrowd) {
  CrowdWatch one(1, file_), nowhere(2, folder_.path() + "/missing"), strange(2, folder_.path());
  for (CrowdWatch* watch : {&one, &nowhere, &strange}) {
    look(*watch, 100ms, 0ms);
    look(*watch, 100ms, 100ms);
    EXPECT_FALSE(watch->crowded());
  }
  CrowdWatch words(2, file_);
  for (const char* text : {"", "5", "5 x 7", "\n\n"}) {
    std::ofstream(file_) << text;
    words.look(now_ += 1s);
    EXPECT_FALSE(words.crowded()) << text;
  }
}

TEST_F(Crowding, TheSchedulersFileIsUnderstoodHere) {
  std::ifstream file("/proc/thread-self/schedstat");
  if (!file) GTEST_SKIP() << "this kernel does not count";
  int64_t cpu = -1, waited = -1, slices = -1;
  file >> cpu >> waited >> slices;
  EXPECT_GE(cpu, 0);
  EXPECT_GE(waited, 0);
  EXPECT_GE(slices, 0);
}

}  // namespace
}  // namespace resnet::cpu
