#include "ops/all.h"

#include <gtest/gtest.h>

#include <set>
#include <string_view>

#include "ops/batch_norm.h"
#include "ops/sgd_update.h"

namespace resnet {
namespace {

TEST(AllOps, NamesAreUniqueAndSorted) {
  std::set<std::string_view> names;
  std::string_view previous;
  for (const OpDef* op : all_ops()) {
    EXPECT_TRUE(names.insert(op->name).second) << op->name;
    EXPECT_LT(previous, op->name);
    previous = op->name;
  }
  EXPECT_EQ(names.size(), 42u);
  EXPECT_TRUE(names.contains(kBatchNormGrad.name));
  EXPECT_TRUE(names.contains(kSgdUpdate.name));
}

}  // namespace
}  // namespace resnet
