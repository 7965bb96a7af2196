#include "runtime/trainer/state_judge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace starling {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr Hash128 kRight{1, 1};
constexpr Hash128 kWrong{2, 2};
constexpr Incarnation kA{Epoch{1}, 1};
constexpr Incarnation kB{Epoch{1}, 2};
constexpr Incarnation kC{Epoch{1}, 3};

TEST(StateJudge, NothingIsSaidBeforeAllHaveReported) {
  EXPECT_FALSE(JudgeStates(std::nullopt, {{kA, kRight}}, {kA, kB}));
  EXPECT_FALSE(JudgeStates(std::nullopt, {}, {}));
  EXPECT_FALSE(JudgeStates(kRight, {}, {kA}));
}

TEST(StateJudge, MajorityIsRightWhoeverReportedFirst) {
  const auto verdict =
      JudgeStates(std::nullopt, {{kA, kWrong}, {kB, kRight}, {kC, kRight}}, {kA, kB, kC});
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->right, kRight);
  EXPECT_THAT(verdict->wrong, ElementsAre(kA));
}

TEST(StateJudge, KnownHashDecidesAgainstAnyNumber) {
  const auto verdict = JudgeStates(kRight, {{kA, kWrong}, {kB, kWrong}}, {kA, kB, kC});
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->right, kRight);
  EXPECT_THAT(verdict->wrong, ElementsAre(kA, kB));
}

TEST(StateJudge, OfTwoThatDifferNeitherIsRight) {
  const auto verdict = JudgeStates(std::nullopt, {{kA, kRight}, {kB, kWrong}}, {kA, kB});
  ASSERT_TRUE(verdict);
  EXPECT_FALSE(verdict->right);
  EXPECT_THAT(verdict->wrong, ElementsAre(kA, kB));
}

TEST(StateJudge, ReportOfOneThatIsGoneDoesNotCount) {
  const auto verdict = JudgeStates(std::nullopt, {{kA, kWrong}, {kB, kRight}}, {kB});
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->right, kRight);
  EXPECT_THAT(verdict->wrong, IsEmpty());
}

TEST(StateJudge, MajorityNeedsMoreThanAnyOther) {
  EXPECT_EQ(MajorityOf({}), std::nullopt);
  EXPECT_EQ(MajorityOf({kRight, kWrong}), std::nullopt);
  EXPECT_EQ(MajorityOf({kRight, kWrong, {3, 3}, kWrong}), kWrong);
  EXPECT_EQ(MajorityOf({kRight, kRight, kWrong, kWrong}), std::nullopt);
}

}  // namespace
}  // namespace starling
