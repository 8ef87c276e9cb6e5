#include "base/memory.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace resnet {
namespace {

TEST(Memory, TheMachinesIsReadFromMeminfoInKibibytes) {
  EXPECT_EQ(machine_memory("MemTotal:       24684096 kB\nMemFree:        22550520 kB\nMemAvailable:   22900280 kB\n"),
            size_t{22900280} * 1024);
  EXPECT_EQ(machine_memory("MemAvailable: 7 kB"), 7168u);
  for (const char* text : {"", "MemTotal: 5 kB\n", "MemAvailable:", "MemAvailable: many kB\n", "MemAvailable: -1 kB\n",
                           "MemAvailable: 99999999999999999999999 kB\n", "MemAvailable: 18446744073709551615 kB\n"}) {
    EXPECT_EQ(machine_memory(text), std::nullopt) << text;
  }
}

TEST(Memory, AGroupLeavesItsLimitLessWhatItHoldsBesideThePageCache) {
  EXPECT_EQ(group_memory("1000\n", "600\n", ""), 400u);
  EXPECT_EQ(group_memory("1000\n", "600\n", "anon 200\nfile 400\ninactive_file 300\nactive_file 100\n"), 800u);
  EXPECT_EQ(group_memory("1000\n", "600\n", "inactive_file 700\n"), 1000u) << "counters are not read at one instant";
  EXPECT_EQ(group_memory("1000\n", "600\n",
                         "active_file 1\ninactive_file 2\ntotal_active_file 100\ntotal_inactive_file 200\n"),
            700u)
      << "version 1 tells of the group alone, too";
  EXPECT_EQ(group_memory("1000\n", "1200\n", ""), 0u);
  EXPECT_EQ(group_memory("max\n", "600\n", ""), std::nullopt);
  EXPECT_EQ(group_memory("", "", ""), std::nullopt);
  EXPECT_EQ(group_memory("1000\n", "", ""), std::nullopt);
}

TEST(Memory, SomethingIsAvailable) { EXPECT_GT(available_memory(), size_t{1} << 20); }

TEST(Memory, NeedingMoreThanIsAvailableIsALimitThatTellsBoth) {
  EXPECT_NO_THROW(require_memory(1000, 1000));
  EXPECT_NO_THROW(require_memory(1e18, SIZE_MAX));
  try {
    require_memory(3.5 * (1 << 30), size_t{512} << 20);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const ResourceError& error) {
    EXPECT_EQ(error.code(), ExitCode::limit);
    EXPECT_STREQ(error.what(),
                 "memory: the program needs 3.5 GiB, 512.0 MiB is available; try a smaller batch or image size");
  }
}

}  // namespace
}  // namespace resnet
