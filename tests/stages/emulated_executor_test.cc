#include "stages/emulated_executor.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/lane.h"

namespace starling {
namespace {

EmulatedExecutor::Options Stage(uint32_t stage) {
  EmulatedExecutor::Options options;
  options.model.layers = 2;
  options.model.width = 8;
  options.model.heads = 1;
  options.model.context = 4;
  options.layers = {stage, stage + 1};
  options.stage = StageId{stage};
  options.stages = 2;
  options.microbatch = 2;
  return options;
}

WorkId Work(uint32_t index) {
  return {{Step{1}, WorkKind::kTrain, index}, {{Epoch{1}, 0}, index + 1}};
}

class EmulatedExecutorTest : public testing::Test {
 protected:
  EmulatedExecutorTest() : executor_(Stage(1)) { EXPECT_TRUE(executor_.Load(State()).ok()); }
  Blob State() const {
    return MutableBlob::Zeros(DType::kF32, {kStatePlanes * executor_.size()}).Freeze();
  }
  // One microbatch of two sequences at the last stage.
  BackwardOutput Run(uint32_t index) {
    ForwardInput forward;
    forward.work = Work(index);
    forward.input = MutableBlob::Zeros(DType::kF32, {2, 4, 8}).Freeze();
    forward.targets = MutableBlob::Zeros(DType::kI32, {2, 4}).Freeze();
    EXPECT_EQ(executor_.Forward(forward).value().tokens, 8);
    BackwardInput backward;
    backward.work = forward.work;
    backward.segment = SegmentId{0};
    return executor_.Backward(backward).value();
  }

  EmulatedExecutor executor_;
};

TEST_F(EmulatedExecutorTest, AddsEachMicrobatchAndItsLaneToTheSegment) {
  EXPECT_THAT(Run(0).input_gradient.shape(), testing::ElementsAre(2, 4, 8));
  Run(1);
  const auto summaries = executor_.Seal(Step{1});
  ASSERT_EQ(summaries.size(), 1u);
  EXPECT_EQ(summaries[0].entries.size(), 2u);
  EXPECT_EQ(summaries[0].lane, LaneTotal(Step{1}, StageId{1}, 2));
  const SegmentSum sum = executor_.Read(Step{1}, {SegmentId{0}}).value();
  EXPECT_EQ(sum.gradient.element_count(), executor_.size());
  EXPECT_GT(sum.gradient.As<float>()[0], 1.0f);
}

TEST_F(EmulatedExecutorTest, TheSameUpdateGivesTheSameStateElsewhere) {
  Run(0);
  executor_.Seal(Step{1});
  const SegmentSum sum = executor_.Read(Step{1}, {SegmentId{0}}).value();
  UpdateScalars scalars;
  scalars.step_size = 0.1f;
  EmulatedExecutor other(Stage(1));
  ASSERT_TRUE(other.Load(State()).ok());
  EXPECT_EQ(executor_.Apply(scalars, {sum.gradient}).value(),
            other.Apply(scalars, {sum.gradient}).value());
  EXPECT_EQ(executor_.Snapshot().value().ToStringBytes(), other.Snapshot().value().ToStringBytes());
}

TEST_F(EmulatedExecutorTest, BackwardWithoutForwardIsRefused) {
  BackwardInput backward;
  backward.work = Work(7);
  EXPECT_EQ(executor_.Backward(backward).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(EmulatedDeviceTest, NamesTheTimeOfAMicrobatch) {
  absl::Duration time;
  EXPECT_FALSE(IsEmulatedDevice("cpu", &time).value());
  EXPECT_TRUE(IsEmulatedDevice("emulated:40ms", &time).value());
  EXPECT_EQ(time, absl::Milliseconds(40));
  EXPECT_FALSE(IsEmulatedDevice("emulated:soon", &time).ok());
}

}  // namespace
}  // namespace starling
