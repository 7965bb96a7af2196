#include "runtime/peer/metered_compute.h"

#include <deque>
#include <functional>
#include <utility>

#include "gtest/gtest.h"
#include "tests/testing/fake_env.h"

namespace starling {
namespace {

// Answers when the test says so, the oldest first; what is left when it goes, with cancelled, then
// or (as a device in another thread may) later.
class ManualDevice final : public Compute {
 public:
  using Answers = std::deque<std::function<void(const absl::Status&)>>;
  explicit ManualDevice(Answers* answers) : answers_(answers) {}

  int64_t size() const override { return 4; }
  void Forward(ForwardInput, Done<ForwardOutput> done) override {
    ForwardOutput output;
    output.took = absl::Milliseconds(4);
    Post(std::move(done), output);
  }
  void Backward(BackwardInput, Done<BackwardOutput> done) override {
    BackwardOutput output;
    output.took = absl::Milliseconds(10);
    Post(std::move(done), output);
  }
  void Drop(WorkId) override { ++drops; }
  void Decode(Blob, Done<Blob> done) override { Post(std::move(done), Blob()); }
  void Encode(Blob, Coding, Done<Blob> done) override { Post(std::move(done), Blob()); }
  void Seal(Step, Done<std::vector<SegmentSummary>> done) override { Post(std::move(done), {}); }
  void Read(Step, std::vector<SegmentId>, Done<SegmentSum> done) override {
    Post(std::move(done), {});
  }
  void FreeThrough(Step) override {}
  void Apply(UpdateScalars, std::vector<Blob>, Done<Hash128> done) override {
    Post(std::move(done), {});
  }
  void Snapshot(Done<Blob> done) override { Post(std::move(done), {}); }
  void Load(Blob, Done<Hash128> done) override { Post(std::move(done), {}); }

  int drops = 0;

 private:
  template <typename T>
  void Post(Done<T> done, T value) {
    answers_->push_back(
        [done = std::move(done), value = std::move(value)](const absl::Status& status) {
          status.ok() ? done(value) : done(status);
        });
  }
  Answers* const answers_;
};

class MeteredComputeTest : public testing::Test {
 protected:
  void SetUp() override {
    compute_ =
        std::make_unique<MeteredCompute>(std::make_unique<ManualDevice>(&answers_), &env_, &clock_);
    clock_.Start(env_.Now());
    clock_.Seal(env_.Now());
    clock_.OnVersion(env_.Now());
  }
  void AnswerAfter(int64_t ms) {
    env_.Advance(absl::Milliseconds(ms));
    const auto answer = std::move(answers_.front());
    answers_.pop_front();
    answer(absl::OkStatus());
  }
  static ForwardInput Work(WorkKind kind) {
    ForwardInput input;
    input.work.id.kind = kind;
    return input;
  }
  uint64_t Ms(StepPart part) { return clock_.Seal(env_.Now())[part] / 1'000'000; }

  FakeEnv env_;
  StepClock clock_;
  ManualDevice::Answers answers_;
  std::unique_ptr<MeteredCompute> compute_;
  int answered_ = 0;
};

TEST_F(MeteredComputeTest, EachOperationIsThePartItIs) {
  const auto count = [this](const auto&) { ++answered_; };
  compute_->Forward(Work(WorkKind::kTrain), count);
  AnswerAfter(8);
  compute_->Forward(Work(WorkKind::kEvaluate), count);
  AnswerAfter(7);
  compute_->Backward(BackwardInput(), count);
  AnswerAfter(10);
  compute_->Seal(Step{1}, count);
  AnswerAfter(1);
  compute_->Read(Step{1}, {}, count);
  AnswerAfter(2);
  compute_->Apply(UpdateScalars(), {}, count);
  AnswerAfter(3);
  compute_->Snapshot(count);
  AnswerAfter(5);
  compute_->Hash(count);
  AnswerAfter(6);
  compute_->Load(Blob(), count);
  AnswerAfter(9);
  compute_->Decode(Blob(), count);
  AnswerAfter(2);
  compute_->Encode(Blob(), {}, count);
  AnswerAfter(1);
  compute_->Drop(WorkId());
  EXPECT_EQ(answered_, 11);
  EXPECT_EQ(Ms(StepPart::kForward), 4u);
  EXPECT_EQ(Ms(StepPart::kEvaluating), 4u);
  EXPECT_EQ(Ms(StepPart::kDecoding), 2u);
  EXPECT_EQ(Ms(StepPart::kEncoding), 1u);
  EXPECT_EQ(Ms(StepPart::kHandover), 7u);
  EXPECT_EQ(Ms(StepPart::kBackward), 10u);
  EXPECT_EQ(Ms(StepPart::kReducing), 3u);
  EXPECT_EQ(Ms(StepPart::kApplying), 3u);
  EXPECT_EQ(Ms(StepPart::kCopying), 20u);
  EXPECT_EQ(clock_.Seal(env_.Now()).total(), 54'000'000u);
}

TEST_F(MeteredComputeTest, AnswersAreGivenAsTheyAre) {
  absl::StatusOr<ForwardOutput> got = absl::UnknownError("not answered");
  compute_->Forward(Work(WorkKind::kTrain), [&](auto output) { got = std::move(output); });
  answers_.front()(absl::InternalError("the device failed"));
  EXPECT_EQ(got.status().code(), absl::StatusCode::kInternal);
}

TEST_F(MeteredComputeTest, AnswersThatComeWhenItIsGoneArePassedOnAndChargedToNobody) {
  absl::Status got;
  compute_->Apply(UpdateScalars(), {}, [&](auto hash) { got = hash.status(); });
  env_.Advance(absl::Milliseconds(2));
  compute_.reset();
  env_.Advance(absl::Milliseconds(3));
  answers_.front()(absl::CancelledError("shut down"));
  EXPECT_EQ(got.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Ms(StepPart::kApplying), 0u);
  EXPECT_EQ(Ms(StepPart::kIdle), 3u);
}

TEST_F(MeteredComputeTest, CodecsThatAreNotDoneWhenItGoesAreChargedToNobody) {
  compute_->Decode(Blob(), [](const auto&) {});
  compute_->Encode(Blob(), {}, [](const auto&) {});
  compute_->Encode(Blob(), {}, [this](const auto&) { ++answered_; });
  AnswerAfter(1);
  compute_.reset();
  AnswerAfter(2);
  AnswerAfter(3);
  EXPECT_EQ(answered_, 1);
  EXPECT_EQ(Ms(StepPart::kDecoding), 1u);
  EXPECT_EQ(Ms(StepPart::kEncoding), 0u);
  EXPECT_EQ(Ms(StepPart::kIdle), 5u);
}

TEST_F(MeteredComputeTest, AnAnswerMayPostTheNextOperation) {
  compute_->Forward(Work(WorkKind::kTrain), [this](const auto&) {
    compute_->Backward(BackwardInput(), [](const auto&) {});
  });
  AnswerAfter(7);
  AnswerAfter(10);
  EXPECT_EQ(clock_.Seal(env_.Now()).total(), 17'000'000u);
  EXPECT_EQ(clock_.Seal(env_.Now()).microbatches, 1u);
}

}  // namespace
}  // namespace starling
