#include "runtime/backends.h"

#include <gtest/gtest.h>

#include "runtime/on_backend.h"

namespace resnet {
namespace {

TEST(AvailableThreads, AGroupsQuotaIsRoundedUpToWholeCpus) {
  EXPECT_EQ(group_threads("200000 100000\n"), 2);
  EXPECT_EQ(group_threads("150000 100000\n"), 2);
  EXPECT_EQ(group_threads("150000\n 100000\n"), 2) << "two files of version 1";
  EXPECT_EQ(group_threads("1000 100000\n"), 1);
  EXPECT_EQ(group_threads("9223372036854775807 1\n"), 2147483647);
  for (const char* text : {"max 100000\n", "", "100000", "100000 \n", "100000 0\n", "-1 100000\n", "-1\n 100000\n", " ",
                           "0 100000\n", "99999999999999999999 100000\n"}) {
    EXPECT_EQ(group_threads(text), std::nullopt) << text;
  }
  EXPECT_GE(available_threads(), 1);
}

TEST(AvailableThreads, OpenMpsVariablesLowerThemButDoNotRaiseThem) {
  EXPECT_EQ(openmp_threads("4"), 4);
  EXPECT_EQ(openmp_threads(" 3 , 2"), 3);
  for (const char* text : {"", "0", "-2", "two", "2 2", "4x", ",4", "99999999999"})
    EXPECT_EQ(openmp_threads(text), std::nullopt) << text;
  const testing::ScopedEnvironment none("OMP_NUM_THREADS", "nonsense"), no_limit("OMP_THREAD_LIMIT", "nonsense");
  const int cpus = available_threads();
  for (const char* name : {"OMP_NUM_THREADS", "OMP_THREAD_LIMIT"}) {
    const testing::ScopedEnvironment one(name, "1");
    EXPECT_EQ(available_threads(), 1) << name;
  }
  const testing::ScopedEnvironment many("OMP_NUM_THREADS", "100000");
  EXPECT_EQ(available_threads(), cpus) << "a container's two CPUs are not more for a variable meant for its host";
}

TEST(MakeBackend, RefusesThreadsThatCouldOnlyWaitForOneAnother) {
  EXPECT_NO_THROW(make_backend("cpu", 8));
  const int absurd = 1024 * available_threads();
  try {
    make_backend("cpu", absurd);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_EQ(std::string(error.what()).find(fmt::format("--threads: {}; expected 0 (all ", absurd)), 0u)
        << error.what();
  }
}

TEST(PrecisionOf, AModelInEightBitsHasNoOtherAndNoOtherModelHasIt) {
  EXPECT_EQ(precision_of({}, false), Precision::f32);
  EXPECT_EQ(precision_of({}, true), Precision::int8);
  EXPECT_EQ(precision_of(Precision::f16, false), Precision::f16);
  EXPECT_EQ(precision_of(Precision::int8, true), Precision::int8);
  EXPECT_THROW(precision_of(Precision::int8, false), UserError);
  EXPECT_THROW(precision_of(Precision::f32, true), UserError);
  EXPECT_THROW(precision_of(Precision::f16, true), UserError);
  EXPECT_EQ(parse_precision({}), std::nullopt);
  EXPECT_EQ(parse_precision("int8"), Precision::int8);
  EXPECT_THROW(parse_precision("f64"), UserError);
  EXPECT_THROW(parse_precision(""), UserError);
}

}  // namespace
}  // namespace resnet
