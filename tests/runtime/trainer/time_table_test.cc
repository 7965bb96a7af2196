#include "runtime/trainer/time_table.h"

#include <gtest/gtest.h>

namespace starling {
namespace {

constexpr Incarnation kFirst{Epoch{1}, 1};
constexpr Incarnation kSecond{Epoch{1}, 2};

ReplicaTimes Times(Incarnation replica, uint32_t stage, uint64_t forward_ms) {
  ReplicaTimes times;
  times.replica = replica;
  times.stage = StageId{stage};
  times.times[StepPart::kForward] = forward_ms * 1'000'000;
  times.times.microbatches = 4;
  times.times.sent = 2;
  times.times.sending_ns = 10'000'000;
  return times;
}

TEST(TimeTableTest, WholeIsTheMeanOfAllStepsAndRecentForgets) {
  TimeTable table;
  for (int i = 0; i < 10; ++i) table.OnStep({Times(kFirst, 0, 100)}, {});
  for (int i = 0; i < 30; ++i) table.OnStep({Times(kFirst, 0, 200)}, {});
  const TimePicture whole = table.Picture(TimeSpan::kWhole);
  ASSERT_EQ(whole.replicas.size(), 1u);
  EXPECT_NEAR(whole.replicas[0][StepPart::kForward], 0.175, 1e-9);
  EXPECT_NEAR(whole.replicas[0].microbatches, 4, 1e-9);
  EXPECT_NEAR(whole.replicas[0].sending_s, 0.005, 1e-9);
  EXPECT_NEAR(table.Picture(TimeSpan::kRecent).replicas[0][StepPart::kForward], 0.2, 0.003);
}

TEST(TimeTableTest, WhoHasNotTakenAWholeStepHasNoTimesAndWhoLeftIsForgotten) {
  TimeTable table;
  ReplicaTimes fresh = Times(kSecond, 1, 0);
  table.OnStep({Times(kFirst, 0, 100), fresh}, {});
  TimePicture picture = table.Picture(TimeSpan::kRecent);
  ASSERT_EQ(picture.replicas.size(), 2u);
  EXPECT_EQ(picture.replicas[1].total_s(), 0);
  table.OnStep({Times(kSecond, 1, 50)}, {});
  picture = table.Picture(TimeSpan::kRecent);
  ASSERT_EQ(picture.replicas.size(), 1u);
  EXPECT_EQ(picture.replicas[0].replica, kSecond);
  EXPECT_NEAR(picture.replicas[0][StepPart::kForward], 0.05, 1e-9);
}

TEST(TimeTableTest, BytesAreOfOneOutput) {
  TimeTable table;
  TimeTable::StepFacts facts;
  facts.feeding_s = 0.25;
  facts.bytes_forward = 1600;
  facts.outputs = 16;
  table.OnStep({}, facts);
  EXPECT_NEAR(table.Picture(TimeSpan::kWhole).boundary_bytes, 100, 1e-9);
  EXPECT_NEAR(table.Picture(TimeSpan::kRecent).feeding_s, 0.25, 1e-9);
}

}  // namespace
}  // namespace starling
