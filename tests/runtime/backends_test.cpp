#include "runtime/backends.h"

#include <gtest/gtest.h>

namespace resnet {
namespace {

TEST(AvailableThreads, AGroupsQuotaIsRoundedUpToWholeCpus) {
  EXPECT_EQ(group_threads("200000 100000\n"), 2);
  EXPECT_EQ(group_threads("150000 100000\n"), 2);
  EXPECT_EQ(group_threads("1000 100000\n"), 1);
  EXPECT_EQ(group_threads("9223372036854775807 1\n"), 2147483647);
  for (const char* text : {"max 100000\n", "", "100000", "100000 \n", "100000 0\n", "-1 100000\n", "0 100000\n",
                           "99999999999999999999 100000\n"}) {
    EXPECT_EQ(group_threads(text), std::nullopt) << text;
  }
  EXPECT_GE(available_threads(), 1);
}

}  // namespace
}  // namespace resnet
