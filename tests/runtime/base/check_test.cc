#include "runtime/base/check.h"

#include <gtest/gtest.h>

#include <string>

namespace starling {
namespace {

TEST(CheckDeathTest, FailurePrintsPlaceConditionAndValues) {
  const int held = 3;
  EXPECT_DEATH(STARLING_CHECK(held == 4), "check_test.cc:[0-9]+: check failed: held == 4");
  EXPECT_DEATH(STARLING_CHECK_EQ(held, 4), "held == 4 \\(3 vs 4\\)");
  EXPECT_DEATH(STARLING_CHECK_MSG(held > 9, "slot " + std::to_string(held)), "held > 9: slot 3");
}

TEST(CheckDeathTest, EachComparisonFailsOnTheOtherSide) {
  EXPECT_DEATH(STARLING_CHECK_NE(1, 1), "1 vs 1");
  EXPECT_DEATH(STARLING_CHECK_LT(1, 1), "1 vs 1");
  EXPECT_DEATH(STARLING_CHECK_LE(2, 1), "2 vs 1");
  EXPECT_DEATH(STARLING_CHECK_GT(1, 1), "1 vs 1");
  EXPECT_DEATH(STARLING_CHECK_GE(1, 2), "1 vs 2");
}

TEST(Check, SuccessEvaluatesEachOperandOnce) {
  int calls = 0;
  const auto count = [&calls] { return ++calls; };
  STARLING_CHECK(count() == 1);
  STARLING_CHECK_EQ(count(), 2);
  STARLING_CHECK_NE(count(), 2);
  STARLING_CHECK_LE(count(), 4);
  STARLING_CHECK_LT(count(), 6);
  STARLING_CHECK_GE(count(), 6);
  STARLING_CHECK_GT(count(), 6);
  STARLING_CHECK_MSG(count() == 8, "eighth");
  EXPECT_EQ(calls, 8);
}

TEST(Check, IsOneStatementInAnIfWithoutBraces) {
  bool otherwise = false;
  if (otherwise)
    STARLING_CHECK(false);
  else
    otherwise = true;
  EXPECT_TRUE(otherwise);
}

}  // namespace
}  // namespace starling
