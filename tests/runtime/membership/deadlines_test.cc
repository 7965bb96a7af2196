#include "runtime/membership/deadlines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace starling {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr Incarnation kFast{Epoch{1}, 1};
constexpr Incarnation kSlow{Epoch{1}, 2};
constexpr Incarnation kNew{Epoch{1}, 3};
constexpr StageId kStage{1};
const absl::Time kStart = absl::UnixEpoch();

Task ForwardAt(Incarnation replica, uint64_t index) {
  return {TaskKind::kForward, kStage, replica, index};
}

class DeadlinesTest : public testing::Test {
 protected:
  // `replica` does `count` pieces of work of a kind, each in `took`.
  void Teach(Incarnation replica, int count, absl::Duration took,
             TaskKind kind = TaskKind::kForward) {
    for (int i = 0; i < count; ++i) {
      const Task task{kind, kStage, replica, static_cast<uint64_t>(1000 + i)};
      deadlines_.Begin(task, kStart);
      deadlines_.End(task, kStart + took);
    }
  }

  Deadlines deadlines_{Deadlines::Options{}};
};

TEST_F(DeadlinesTest, WhileNothingIsKnownTheMostIsAllowed) {
  deadlines_.Begin(ForwardAt(kFast, 3), kStart);
  EXPECT_THAT(deadlines_.Overdue(kStart + absl::Seconds(60)), IsEmpty());
  const auto late = deadlines_.Overdue(kStart + absl::Seconds(61));
  ASSERT_THAT(late, SizeIs(1));
  EXPECT_EQ(late[0].reason,
            "microbatch 3 is overdue at stage 1: forward for 61.0 s at replica 1.1 (limit 60.0 s: "
            "too little is known yet)");
}

TEST_F(DeadlinesTest, WorkThatTakesMuchLongerThanUsualIsOverdueWithTheReason) {
  Teach(kFast, 5, absl::Milliseconds(800));
  deadlines_.Begin(ForwardAt(kFast, 3), kStart);
  EXPECT_THAT(deadlines_.Overdue(kStart + absl::Milliseconds(2400)), IsEmpty());
  const auto late = deadlines_.Overdue(kStart + absl::Milliseconds(6200));
  ASSERT_THAT(late, SizeIs(1));
  EXPECT_EQ(late[0].task, ForwardAt(kFast, 3));
  EXPECT_EQ(late[0].limit, absl::Milliseconds(2400));
  EXPECT_EQ(late[0].reason,
            "microbatch 3 is overdue at stage 1: forward for 6.2 s at replica 1.1, which takes "
            "0.8 s; the stage takes 0.8 s (limit 2.4 s: median 0.8 s + 8 deviations)");
}

TEST_F(DeadlinesTest, ASlowReplicaIsMeasuredByItself) {
  Teach(kFast, 20, absl::Seconds(1));
  Teach(kSlow, 5, absl::Seconds(5));
  deadlines_.Begin(ForwardAt(kFast, 1), kStart);
  deadlines_.Begin(ForwardAt(kSlow, 2), kStart);
  const auto late = deadlines_.Overdue(kStart + absl::Seconds(10));
  ASSERT_THAT(late, SizeIs(1));
  EXPECT_EQ(late[0].task.replica, kFast);
}

TEST_F(DeadlinesTest, AnUnknownReplicaGetsTwiceTheStagesLimit) {
  Teach(kFast, 20, absl::Seconds(1));
  Teach(kNew, 4, absl::Seconds(1));
  deadlines_.Begin(ForwardAt(kNew, 1), kStart);
  EXPECT_EQ(deadlines_.Limit(ForwardAt(kNew, 1)), absl::Seconds(6));
  EXPECT_THAT(deadlines_.Overdue(kStart + absl::Seconds(6)), IsEmpty());
  const auto late = deadlines_.Overdue(kStart + absl::Seconds(7));
  ASSERT_THAT(late, SizeIs(1));
  EXPECT_THAT(late[0].reason, HasSubstr("2 times the stage's"));
}

TEST_F(DeadlinesTest, KindsOfWorkAreMeasuredApart) {
  Teach(kFast, 5, absl::Seconds(1), TaskKind::kSeal);
  EXPECT_EQ(deadlines_.Limit({TaskKind::kSeal, kStage, kFast, 1}), absl::Seconds(3));
  EXPECT_EQ(deadlines_.Limit({TaskKind::kLoad, kStage, kFast, 1}), absl::Seconds(60));
  deadlines_.Begin({TaskKind::kSeal, kStage, kFast, 1}, kStart);
  EXPECT_THAT(deadlines_.Overdue(kStart + absl::Seconds(4))[0].reason,
              HasSubstr("seal is overdue at stage 1"));
}

TEST_F(DeadlinesTest, WhatIsEndedIsNotOverdueAndEndingItAgainTeachesNothing) {
  deadlines_.Begin(ForwardAt(kFast, 1), kStart);
  deadlines_.End(ForwardAt(kFast, 1), kStart + absl::Seconds(1));
  deadlines_.End(ForwardAt(kFast, 1), kStart + absl::Seconds(50));
  EXPECT_EQ(deadlines_.open(), 0u);
  Teach(kFast, 4, absl::Seconds(1));
  EXPECT_EQ(deadlines_.Limit(ForwardAt(kFast, 1)), absl::Seconds(3));
}

TEST_F(DeadlinesTest, BegunAgainItKeepsItsTime) {
  deadlines_.Begin(ForwardAt(kFast, 1), kStart);
  deadlines_.Begin(ForwardAt(kFast, 1), kStart + absl::Seconds(50));
  EXPECT_THAT(deadlines_.Overdue(kStart + absl::Seconds(61)), SizeIs(1));
}

TEST_F(DeadlinesTest, WorkCalledOffAgainAndAgainRaisesTheLimit) {
  Teach(kFast, 5, absl::Seconds(1));
  for (uint64_t i = 0; i < LearnedDuration::kWindow; ++i) {
    deadlines_.Begin(ForwardAt(kFast, i), kStart);
    deadlines_.CallOff(ForwardAt(kFast, i), kStart + absl::Seconds(4));
  }
  EXPECT_GT(deadlines_.Limit(ForwardAt(kFast, 0)), absl::Seconds(11));
  EXPECT_EQ(deadlines_.Limit(ForwardAt(kNew, 0)), absl::Seconds(6)) << "the stage learns no guess";
}

TEST_F(DeadlinesTest, WorkCalledOffEarlyTeachesNothing) {
  Teach(kFast, 5, absl::Seconds(1));
  for (uint64_t i = 0; i < LearnedDuration::kWindow; ++i) {
    deadlines_.Begin(ForwardAt(kFast, i), kStart);
    deadlines_.CallOff(ForwardAt(kFast, i), kStart + absl::Milliseconds(1));
  }
  EXPECT_EQ(deadlines_.Limit(ForwardAt(kFast, 0)), absl::Seconds(3));
}

TEST_F(DeadlinesTest, AForgottenReplicaHasNoWorkAndIsUnknownAgain) {
  Teach(kSlow, 5, absl::Seconds(9));
  deadlines_.Begin(ForwardAt(kSlow, 1), kStart);
  deadlines_.Begin(ForwardAt(kFast, 2), kStart);
  deadlines_.Forget(kSlow);
  EXPECT_EQ(deadlines_.open(), 1u);
  EXPECT_EQ(deadlines_.Limit(ForwardAt(kSlow, 1)), absl::Seconds(54)) << "the stage's, twice";
}

TEST_F(DeadlinesTest, OwnSleepIsNotHeldAgainstOthersNorLearnt) {
  Teach(kFast, 5, absl::Seconds(1));
  deadlines_.Begin(ForwardAt(kFast, 1), kStart);
  deadlines_.Extend(absl::Seconds(30));
  EXPECT_THAT(deadlines_.Overdue(kStart + absl::Seconds(32)), IsEmpty());
  for (int i = 0; i < 3; ++i) deadlines_.End(ForwardAt(kFast, 1), kStart + absl::Seconds(31));
  EXPECT_EQ(deadlines_.Limit(ForwardAt(kFast, 1)), absl::Seconds(3));
}

TEST_F(DeadlinesTest, NextDueIsTheEarliestLimitOfOpenWork) {
  EXPECT_EQ(deadlines_.NextDue(), absl::InfiniteFuture());
  Teach(kFast, 5, absl::Seconds(1));
  deadlines_.Begin({TaskKind::kLoad, kStage, kSlow, 1}, kStart);
  EXPECT_EQ(deadlines_.NextDue(), kStart + absl::Seconds(60));
  deadlines_.Begin(ForwardAt(kFast, 1), kStart + absl::Seconds(10));
  EXPECT_EQ(deadlines_.NextDue(), kStart + absl::Seconds(13));
  EXPECT_THAT(deadlines_.Overdue(deadlines_.NextDue()), IsEmpty());
  EXPECT_THAT(deadlines_.Overdue(deadlines_.NextDue() + absl::Nanoseconds(1)), SizeIs(1));
  deadlines_.Clear();
  EXPECT_EQ(deadlines_.NextDue(), absl::InfiniteFuture());
}

}  // namespace
}  // namespace starling
