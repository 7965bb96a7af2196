#include "tests/sim/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace starling::sim {
namespace {

using ::testing::ElementsAre;

constexpr NodeId kA{0};
constexpr NodeId kB{1};

class SchedulerTest : public ::testing::Test {
 protected:
  Scheduler::EventId Add(int millis, NodeId node, const char* name,
                         EventKind kind = EventKind::kTimer) {
    return scheduler_.After(absl::Milliseconds(millis), node, kind, name,
                            [this, name] { ran_.push_back(name); });
  }
  RunEnd RunAll() { return scheduler_.Run(RunLimits{}); }
  double Millis() const { return absl::ToDoubleMilliseconds(scheduler_.Now() - start_); }

  Scheduler scheduler_;
  const absl::Time start_ = scheduler_.Now();
  std::vector<std::string> ran_;
};

TEST_F(SchedulerTest, EventsRunInOrderOfTimeThenOfScheduling) {
  Add(2, kA, "late");
  Add(1, kB, "first of one time");
  Add(1, kA, "second of one time");
  Add(-5, kA, "in the past is now");
  EXPECT_EQ(RunAll(), RunEnd::kIdle);
  EXPECT_THAT(ran_,
              ElementsAre("in the past is now", "first of one time", "second of one time", "late"));
  EXPECT_EQ(Millis(), 2);
}

TEST_F(SchedulerTest, ACancelledEventDoesNotRun) {
  const Scheduler::EventId id = Add(1, kA, "cancelled");
  Add(2, kA, "kept");
  scheduler_.Cancel(id);
  scheduler_.Cancel(id);
  scheduler_.Cancel(0);
  RunAll();
  EXPECT_THAT(ran_, ElementsAre("kept"));
}

TEST_F(SchedulerTest, DroppingANodeDropsOnlyItsEvents) {
  Add(1, kA, "a");
  Add(1, kB, "b");
  scheduler_.DropNode(kA);
  EXPECT_EQ(scheduler_.pending(), 1u);
  RunAll();
  EXPECT_THAT(ran_, ElementsAre("b"));
}

TEST_F(SchedulerTest, AnEventDroppedByAnotherOfTheSameTimeDoesNotRun) {
  scheduler_.After(absl::Milliseconds(1), kNobody, EventKind::kWorld, "crash",
                   [this] { scheduler_.DropNode(kA); });
  Add(1, kA, "a");
  RunAll();
  EXPECT_TRUE(ran_.empty());
}

TEST_F(SchedulerTest, AStalledNodeReadsWhatArrivedBeforeItsTimersAndShiftsItsDeadlines) {
  Add(5, kA, "deadline");
  Add(6, kA, "packet", EventKind::kDelivery);
  Add(7, kB, "other node");
  scheduler_.Stall(kA, absl::Milliseconds(100));
  EXPECT_TRUE(scheduler_.stalled(kA));
  Add(20, kA, "later packet", EventKind::kDelivery);
  RunAll();
  EXPECT_THAT(ran_, ElementsAre("other node", "packet", "later packet", "deadline"));
  EXPECT_NEAR(Millis(), 105, 0.01);
  EXPECT_FALSE(scheduler_.stalled(kA));
}

TEST_F(SchedulerTest, APostponedEventRunsThatMuchLater) {
  const Scheduler::EventId id = Add(1, kA, "postponed");
  Add(2, kA, "other");
  scheduler_.Postpone(id, absl::Milliseconds(2));
  RunAll();
  EXPECT_THAT(ran_, ElementsAre("other", "postponed"));
  EXPECT_EQ(Millis(), 3);
}

TEST_F(SchedulerTest, RunStopsAtTheConditionTheDeadlineAndTheLimit) {
  for (int i = 1; i <= 10; ++i) Add(i, kA, "x");
  RunLimits limits;
  limits.until = [this] { return ran_.size() == 3; };
  EXPECT_EQ(scheduler_.Run(limits), RunEnd::kConditionHolds);
  EXPECT_EQ(Millis(), 3);
  limits = RunLimits{};
  limits.deadline = start_ + absl::Microseconds(5500);
  EXPECT_EQ(scheduler_.Run(limits), RunEnd::kDeadline);
  EXPECT_EQ(Millis(), 5.5);
  EXPECT_EQ(ran_.size(), 5u);
  limits = RunLimits{};
  limits.max_events = 2;
  EXPECT_EQ(scheduler_.Run(limits), RunEnd::kEventLimit);
  EXPECT_EQ(ran_.size(), 7u);
}

TEST_F(SchedulerTest, AnEventAtInfinityNeverRuns) {
  scheduler_.After(absl::InfiniteDuration(), kA, EventKind::kTimer, "never",
                   [this] { ran_.push_back("never"); });
  EXPECT_EQ(RunAll(), RunEnd::kIdle);
  EXPECT_TRUE(ran_.empty());
}

}  // namespace
}  // namespace starling::sim
