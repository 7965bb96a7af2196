#include "tests/sim/sim_compute.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/lane.h"
#include "tests/sim/sim_executor.h"
#include "tests/sim/sim_reference.h"

namespace starling::sim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr Step kStep{1};
constexpr SegmentId kMain{0};

SimStage StageNumber(uint32_t number, uint32_t count) {
  SimStage stage;
  stage.stage = static_cast<StageId>(number);
  stage.last = number + 1 == count;
  stage.layout = SimLayout(stage.stage, 2, 20);
  return stage;
}

SimMicrobatch Data(uint32_t index) {
  const std::vector<int32_t> tokens(8, static_cast<int32_t>(index));
  const Blob blob = Blob::CopyOf(tokens.data(), DType::kI32, {1, 8});
  return SimMicrobatch{blob, blob, index};
}

WorkId Work(uint32_t index, Step step = kStep) {
  return WorkId{MicrobatchId{step, WorkKind::kTrain, index}, AttemptId{{Epoch{1}, 0}, index + 1}};
}

// Two stages, one replica each, driven by hand.
class SimExecutorTest : public ::testing::Test {
 protected:
  SimExecutorTest() {
    for (uint32_t s = 0; s < 2; ++s) {
      stages_.push_back(StageNumber(s, 2));
      states_.push_back(SimInitialState(stages_[s].layout, 7));
      executors_.push_back(
          std::make_unique<SimExecutor>(stages_[s], ReplicaName{NodeId{s}, 1, 0, stages_[s].stage},
                                        &clock_, &journal_, &trace_, &faults_));
      EXPECT_TRUE(executors_[s]->Load(states_[s]).ok());
    }
  }

  ForwardOutput Forward(size_t stage, const WorkId& work, const Blob& input) {
    const SimMicrobatch data = Data(work.id.index);
    ForwardInput forward;
    forward.work = work;
    forward.input = input;
    forward.targets = stages_[stage].last ? data.targets : Blob();
    forward.first_sequence = data.first_sequence;
    absl::StatusOr<ForwardOutput> output = executors_[stage]->Forward(forward);
    EXPECT_TRUE(output.ok()) << output.status();
    return output.ok() ? *output : ForwardOutput();
  }
  absl::StatusOr<BackwardOutput> Backward(size_t stage, const WorkId& work, const Blob& gradient,
                                          std::optional<SegmentId> segment = kMain) {
    BackwardInput backward;
    backward.work = work;
    backward.gradient = gradient;
    backward.segment = segment;
    backward.want_input_gradient = stage > 0;
    return executors_[stage]->Backward(backward);
  }
  // Down and up again; the loss.
  double Train(const WorkId& work) {
    const ForwardOutput first = Forward(0, work, Data(work.id.index).tokens);
    const ForwardOutput second = Forward(1, work, first.output);
    absl::StatusOr<BackwardOutput> back = Backward(1, work, Blob());
    EXPECT_TRUE(back.ok()) << back.status();
    EXPECT_TRUE(Backward(0, work, back->input_gradient).ok());
    return second.loss_sum;
  }
  SegmentSum SealAndRead(size_t stage, Step step = kStep) {
    EXPECT_THAT(executors_[stage]->Seal(step), SizeIs(1));
    return *executors_[stage]->Read(step, {kMain});
  }
  std::vector<float> Parameters(size_t stage) {
    const Blob state = *executors_[stage]->Snapshot();
    const auto values = state.As<float>();
    return std::vector<float>(values.begin(), values.begin() + executors_[stage]->size());
  }

  Scheduler clock_;
  Journal journal_;
  Trace trace_{&clock_};
  ComputeFaults faults_;
  std::vector<SimStage> stages_;
  std::vector<Blob> states_;
  std::vector<std::unique_ptr<SimExecutor>> executors_;
};

TEST_F(SimExecutorTest, StepsInAnyOrderEqualTheReferenceExactly) {
  SimReference reference(stages_, states_);
  for (uint64_t t = 1; t <= 3; ++t) {
    const Step step{t};
    double loss = 0;
    for (uint32_t i : {2u, 0u, 1u}) loss += Train(Work(i, step));
    const SimStepResult expected = reference.Advance(step, {Data(0), Data(1), Data(2)});
    EXPECT_EQ(loss, expected.loss_sum);
    for (size_t s = 0; s < 2; ++s) {
      const SegmentSum sum = SealAndRead(s, step);
      EXPECT_EQ(sum.lane, LaneTotal(step, stages_[s].stage, 3));
      const int64_t half = executors_[s]->size() / 2;
      ASSERT_TRUE(executors_[s]
                      ->Apply(UpdateScalars(),
                              {sum.gradient.Slice(0, half), sum.gradient.Slice(half, half)})
                      .ok());
      executors_[s]->FreeThrough(step);
      EXPECT_EQ(Parameters(s), reference.parameters(s));
    }
  }
  EXPECT_THAT(trace_.violations(), IsEmpty());
}

TEST_F(SimExecutorTest, TheJournalKnowsWhatWasAddedByWhom) {
  Train(Work(0));
  Train(Work(1));
  const auto added = journal_.InSegment(ReplicaName{NodeId{1}, 1, 0, StageId{1}}, 1, kStep, kMain);
  ASSERT_THAT(added, SizeIs(2));
  EXPECT_EQ(added[1].index, 1u);
  EXPECT_EQ(added[1].attempt, Work(1).attempt);
  EXPECT_EQ(added[1].times, 1);
  EXPECT_THAT(journal_.Of(kStep, StageId{0}), SizeIs(2));
  journal_.ForgetThrough(kStep);
  EXPECT_THAT(journal_.additions(), IsEmpty());
}

TEST_F(SimExecutorTest, AnActivationOfAnotherMicrobatchIsAViolation) {
  const ForwardOutput other = Forward(0, Work(1), Data(1).tokens);
  Forward(1, Work(0), other.output);
  EXPECT_THAT(trace_.violations(), ElementsAre(HasSubstr("wrong forward input")));
}

TEST_F(SimExecutorTest, AGradientOfAnotherMicrobatchIsAViolation) {
  Blob gradients[2];
  for (uint32_t i : {0u, 1u}) {
    Forward(1, Work(i), Forward(0, Work(i), Data(i).tokens).output);
    gradients[i] = Backward(1, Work(i), Blob())->input_gradient;
  }
  EXPECT_THAT(trace_.violations(), IsEmpty());
  EXPECT_TRUE(Backward(0, Work(0), gradients[1]).ok());
  EXPECT_THAT(trace_.violations(), ElementsAre(HasSubstr("wrong gradient")));
}

TEST_F(SimExecutorTest, AnActivationOfAnotherVersionIsAViolation) {
  const Blob zeros = std::move(MutableBlob::Zeros(DType::kF32, {executors_[0]->size()})).Freeze();
  ASSERT_TRUE(executors_[0]->Apply(UpdateScalars(), {zeros}).ok());
  Forward(1, Work(0), Forward(0, Work(0), Data(0).tokens).output);
  EXPECT_THAT(trace_.violations(), ElementsAre(HasSubstr("another version")));
}

TEST_F(SimExecutorTest, PlantedMistakesShowInLaneAndSumButNotInTheList) {
  Train(Work(0));
  Train(Work(1));
  const SegmentSum right = SealAndRead(0);
  for (Mistake mistake :
       {Mistake::kCountTwice, Mistake::kCountNever, Mistake::kCountAgainAfterSeal}) {
    ASSERT_TRUE(executors_[0]->Load(states_[0]).ok());
    ASSERT_TRUE(executors_[1]->Load(states_[1]).ok());
    faults_.mistake = [mistake](StageId stage, const WorkId& work) {
      return stage == StageId{0} && work.id.index == 1 ? mistake : Mistake::kNone;
    };
    Train(Work(0));
    Train(Work(1));
    const SegmentSum wrong = SealAndRead(0);
    EXPECT_NE(wrong.lane, right.lane);
    EXPECT_NE(wrong.gradient.ToStringBytes(), right.gradient.ToStringBytes());
    const auto lists = executors_[0]->Seal(kStep);
    EXPECT_THAT(lists.at(0).entries, SizeIs(2));
    EXPECT_NE(journal_.additions().back().times, 1);
  }
}

TEST_F(SimExecutorTest, AFailedBackwardSpoilsItsSegmentAndForgetsTheMicrobatch) {
  faults_.fail = [](const char* operation, StageId, const WorkId&) {
    return std::string(operation) == "backward" ? absl::InternalError("planted") : absl::OkStatus();
  };
  Forward(1, Work(0), Forward(0, Work(0), Data(0).tokens).output);
  EXPECT_EQ(Backward(1, Work(0), Blob()).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(executors_[1]->kept(), 0u);
  EXPECT_TRUE(executors_[1]->Seal(kStep).at(0).spoiled);
  EXPECT_EQ(Backward(1, Work(0), Blob()).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(SimExecutorTest, EvaluationAndDroppedWorkLeaveNothing) {
  WorkId evaluate = Work(0);
  evaluate.id.kind = WorkKind::kEvaluate;
  Forward(0, evaluate, Data(0).tokens);
  EXPECT_EQ(executors_[0]->kept(), 0u);
  Forward(0, Work(1), Data(1).tokens);
  executors_[0]->Drop(Work(1));
  EXPECT_EQ(executors_[0]->kept(), 0u);
}

TEST_F(SimExecutorTest, WrongShapesAreInvalidArguments) {
  ForwardInput forward;
  forward.work = Work(0);
  forward.input = Blob::OfFloats({1, 2, 3});
  EXPECT_EQ(executors_[0]->Forward(forward).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(executors_[1]->Forward(forward).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(executors_[0]->Load(forward.input).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(executors_[0]->Apply(UpdateScalars(), {forward.input}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(SimExecutorTest, AnAdditionToASealedSegmentAborts) {
  Train(Work(0));
  const ForwardOutput first = Forward(0, Work(1), Data(1).tokens);
  Forward(1, Work(1), first.output);
  executors_[1]->Seal(kStep);
  EXPECT_DEATH(Backward(1, Work(1), Blob()).IgnoreError(), "sealed segment");
  EXPECT_TRUE(Backward(1, Work(1), Blob(), SegmentId{1}).ok());
}

TEST_F(SimExecutorTest, ForwardWithoutAStateAborts) {
  SimExecutor empty(stages_[0], ReplicaName(), &clock_, &journal_, &trace_, nullptr);
  ForwardInput forward;
  forward.input = Data(0).tokens;
  EXPECT_DEATH(empty.Forward(forward).IgnoreError(), "without a state");
}

TEST(SimModelTest, AChangedSignalIsNotASignal) {
  Signal signal;
  signal.id.index = 3;
  signal.digest = 0x123456789abcdef0ULL;
  const Blob blob = EncodeSignal(signal, {1, 4, 8});
  ASSERT_TRUE(DecodeSignal(blob).ok());
  EXPECT_EQ(DecodeSignal(blob)->digest, signal.digest);
  for (int64_t i = 0; i < kSignalFloats; ++i) {
    MutableBlob changed = MutableBlob::Zeros(DType::kF32, {1, 4, 8});
    const auto from = blob.As<float>();
    std::copy(from.begin(), from.end(), changed.As<float>().begin());
    changed.As<float>()[static_cast<size_t>(i)] += 1;
    EXPECT_FALSE(DecodeSignal(std::move(changed).Freeze()).ok()) << "float " << i;
  }
}

// The same executor behind virtual time.
class SimComputeTest : public SimExecutorTest {
 protected:
  SimComputeTest() {
    speed_.jitter = 0;
    speed_.answer = absl::ZeroDuration();
    Make();
  }
  void Make() {
    compute_ = std::make_unique<SimCompute>(
        &clock_, kNode,
        std::make_unique<SimExecutor>(stages_[0], ReplicaName{kNode, 1, 0, StageId{0}}, &clock_,
                                      &journal_, &trace_, &faults_),
        speed_, 1);
  }
  void PostForward(uint32_t index) {
    ForwardInput forward;
    forward.work = Work(index);
    forward.input = Data(index).tokens;
    compute_->Forward(forward, [this, index](absl::StatusOr<ForwardOutput> output) {
      log_.push_back("forward " + std::to_string(index) + " " +
                     std::string(absl::StatusCodeToString(output.status().code())));
      if (output.ok()) took_ = output->took;
    });
  }
  void PostLoad() {
    compute_->Load(states_[0], [this](absl::StatusOr<Hash128> hash) {
      log_.push_back("load " + std::string(absl::StatusCodeToString(hash.status().code())));
    });
  }
  double RunMillis() {
    const absl::Time start = clock_.Now();
    clock_.Run(RunLimits{});
    return absl::ToDoubleMilliseconds(clock_.Now() - start);
  }

  static constexpr NodeId kNode{9};
  SimSpeed speed_;
  std::unique_ptr<SimCompute> compute_;
  std::vector<std::string> log_;
  absl::Duration took_;
};

TEST_F(SimComputeTest, OperationsRunInOrderOneAtATimeForTheirCost) {
  PostLoad();
  PostForward(0);
  PostForward(1);
  EXPECT_THAT(log_, IsEmpty());
  EXPECT_DOUBLE_EQ(RunMillis(), 2 + 4 + 4);
  EXPECT_THAT(log_, ElementsAre("load OK", "forward 0 OK", "forward 1 OK"));
  EXPECT_EQ(took_, absl::Milliseconds(4));
}

TEST_F(SimComputeTest, ASlowerDeviceTakesLonger) {
  speed_.slowness = 3;
  Make();
  PostLoad();
  PostForward(0);
  EXPECT_DOUBLE_EQ(RunMillis(), 3 * (2 + 4));
}

TEST_F(SimComputeTest, APauseDelaysWhatRuns) {
  PostLoad();
  PostForward(0);
  compute_->Pause(absl::Milliseconds(100));
  EXPECT_DOUBLE_EQ(RunMillis(), 100 + 2 + 4);
  EXPECT_EQ(log_.size(), 2u);
}

TEST_F(SimComputeTest, AStallKeepsTheOrderOfAnswers) {
  speed_.answer = absl::Milliseconds(3);
  Make();
  PostLoad();
  std::vector<std::string> expected = {"load OK"};
  for (uint32_t i = 0; i < 20; ++i) {
    PostForward(i);
    expected.push_back("forward " + std::to_string(i) + " OK");
  }
  for (int i = 1; i <= 8; ++i) {
    clock_.After(absl::Milliseconds(7 * i), kNobody, EventKind::kWorld, "stall",
                 [this] { clock_.Stall(kNode, absl::Milliseconds(2)); });
  }
  RunMillis();
  EXPECT_EQ(log_, expected);
}

TEST_F(SimComputeTest, ShutDownAnswersEverythingOnceAndWhatIsNotDoneWithCancelled) {
  PostLoad();
  PostForward(0);
  compute_->Encode(Blob::OfFloats({1}), {Encoding::kF16}, [this](const absl::StatusOr<Blob>& got) {
    log_.push_back("encode " + absl::StatusCodeToString(got.status().code()));
  });
  compute_.reset();
  EXPECT_THAT(log_, ElementsAre("encode CANCELLED", "load CANCELLED", "forward 0 CANCELLED"));
  RunMillis();
  EXPECT_THAT(log_, testing::SizeIs(3));
}

}  // namespace
}  // namespace starling::sim
