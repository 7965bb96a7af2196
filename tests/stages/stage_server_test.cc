#include "stages/stage_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"

namespace starling {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr Incarnation kTrainer{Epoch{1}, 0};
constexpr Incarnation kUp{Epoch{1}, 1};
constexpr Incarnation kUp2{Epoch{1}, 2};
constexpr Incarnation kDown{Epoch{1}, 3};
constexpr Incarnation kDown2{Epoch{1}, 4};
constexpr AttemptId kMended{kTrainer, 77};  // the name of a spliced attempt

Blob Number(float value) { return Blob::OfFloats({value}); }

// Records operations ("forward 2/0", step/index) and completes the oldest when the test says so.
class FakeCompute : public Compute {
 public:
  int64_t size() const override { return 4; }
  void Forward(ForwardInput input, Done<ForwardOutput> done) override {
    Post(absl::StrCat("forward ", Name(input.work)), [this, done = std::move(done)](bool ok) {
      if (!ok) return done(failure_);
      ForwardOutput output;
      output.output = Number(1);
      output.loss_sum = 3.5;
      output.tokens = 7;
      output.took = absl::Milliseconds(10);
      done(std::move(output));
    });
    forwards.push_back(std::move(input));
  }
  void Backward(BackwardInput input, Done<BackwardOutput> done) override {
    const bool wanted = input.want_input_gradient;
    Post(absl::StrCat("backward ", Name(input.work)), [this, wanted, done](bool ok) {
      if (!ok) return done(failure_);
      BackwardOutput output;
      output.input_gradient = wanted ? Number(2) : Blob();
      output.took = absl::Milliseconds(20);
      done(std::move(output));
    });
    backwards.push_back(std::move(input));
  }
  void Drop(WorkId work) override { dropped.push_back(work.id.index); }
  void Seal(Step step, Done<std::vector<SegmentSummary>> done) override {
    Post(absl::StrCat("seal ", Value(step)), [this, done](bool) {
      std::vector<SegmentSummary> segments;
      for (const BackwardInput& input : backwards) {
        if (!input.segment) continue;
        segments.emplace_back();
        segments.back().id = *input.segment;
      }
      done(std::move(segments));
    });
  }
  void Read(Step, std::vector<SegmentId>, Done<SegmentSum>) override { FAIL(); }
  void FreeThrough(Step step) override { freed = step; }
  void Apply(UpdateScalars, std::vector<Blob>, Done<Hash128>) override { FAIL(); }
  void Snapshot(Done<Blob>) override { FAIL(); }
  void Load(Blob, Done<Hash128>) override { FAIL(); }

  // --- for the test ---
  const std::vector<std::string>& posted() const { return posted_; }
  size_t waiting() const { return waiting_.size(); }
  void Finish(bool ok = true) {
    ASSERT_FALSE(waiting_.empty());
    auto finish = std::move(waiting_.front());
    waiting_.pop_front();
    finish(ok);
  }
  void FinishAll() {
    while (!waiting_.empty()) Finish();
  }
  void FailNext(absl::Status failure) {
    failure_ = std::move(failure);
    Finish(false);
  }

  std::vector<ForwardInput> forwards;
  std::vector<BackwardInput> backwards;
  std::vector<uint32_t> dropped;
  Step freed{0};

 private:
  static std::string Name(const WorkId& work) {
    return absl::StrCat(Value(work.id.step), "/", work.id.index);
  }
  void Post(std::string what, std::function<void(bool)> finish) {
    posted_.push_back(std::move(what));
    waiting_.push_back(std::move(finish));
  }
  std::vector<std::string> posted_;
  std::deque<std::function<void(bool)>> waiting_;
  absl::Status failure_;
};

class FakeLinks : public StageLinks {
 public:
  struct Sent {
    Incarnation to;
    starling::Forward forward;
    std::function<void(absl::StatusCode)> accepted;
  };
  struct Claimed {
    Incarnation to;
    starling::Claim claim;
    Answered answered;
  };
  struct Returned {
    Incarnation to;
    starling::Backward backward;
  };

  std::optional<Incarnation> ChooseNext(std::optional<Incarnation> avoid) override {
    avoided = avoid;
    return next;
  }
  void SendForward(Incarnation to, starling::Forward forward, Answered accepted) override {
    sent.push_back({to, std::move(forward), std::move(accepted)});
  }
  bool SendClaim(Incarnation to, const starling::Claim& claim, Answered answered) override {
    if (!knows_holders) return false;
    claims.push_back({to, claim, std::move(answered)});
    return true;
  }
  void NextFinished(Incarnation replica) override { finished.push_back(replica); }
  void SendBackward(Incarnation to, starling::Backward backward) override {
    returned.push_back({to, std::move(backward)});
  }
  void Notify(Notice notice) override { notices.push_back(notice); }
  void DeviceFailed(const absl::Status& status) override { failures.push_back(status); }

  std::optional<Incarnation> next = kDown;
  std::optional<Incarnation> avoided;
  bool knows_holders = true;
  std::vector<Claimed> claims;
  std::vector<Sent> sent;
  std::vector<Incarnation> finished;
  std::vector<Returned> returned;
  std::vector<Notice> notices;
  std::vector<absl::Status> failures;
};

WorkId Work(uint32_t index, uint64_t step = 1, uint32_t attempt = 1) {
  return {{Step{step}, WorkKind::kTrain, index}, {kTrainer, attempt}};
}

Forward Microbatch(WorkId work, std::vector<uint32_t> add_at = {}) {
  Forward forward;
  forward.work = work;
  forward.version = VersionBefore(work.id.step);
  forward.replay = !add_at.empty();
  for (uint32_t stage : add_at) forward.add_at.push_back(StageId{stage});
  forward.input = Number(0);
  forward.targets = Number(9);
  return forward;
}

Forward Evaluation(uint32_t index) {
  Forward forward = Microbatch(Work(index));
  forward.work.id.kind = WorkKind::kEvaluate;
  return forward;
}

Backward Gradient(WorkId work) { return {work, Number(5)}; }

// Stage 1 of 3 unless a test says otherwise, at version 0: it computes step 1.
class StageServerTest : public testing::Test {
 protected:
  StageServerTest() { Serve(1); }
  void Serve(uint32_t stage, uint32_t slots = 8, uint64_t log_budget_bytes = 1000) {
    StageServer::Options options;
    options.stage = StageId{stage};
    options.stage_count = 3;
    options.slots = slots;
    options.log_budget_bytes = log_budget_bytes;
    options.contested = 2;
    server_ = std::make_unique<StageServer>(options, &compute_, &links_);
    server_->Reset(Version{0});
  }
  absl::StatusCode Take(const Forward& forward, Incarnation from = kUp) {
    return server_->OnForward(from, forward);
  }
  // Accepts a microbatch and brings it to where it waits for its gradient.
  void Pass(const Forward& forward) {
    ASSERT_EQ(Take(forward), absl::StatusCode::kOk);
    compute_.FinishAll();
    ASSERT_FALSE(links_.sent.empty());
    links_.sent.back().accepted(absl::StatusCode::kOk);
  }
  void GiveBack(WorkId work) {
    ASSERT_EQ(server_->OnBackward(kDown, Gradient(work)), absl::StatusCode::kOk);
  }
  // The whole way of a microbatch through this replica.
  void Complete(const Forward& forward) {
    Pass(forward);
    GiveBack(forward.work);
    compute_.FinishAll();
  }
  // A path that broke behind `work` goes on as kMended.
  static ResendWork Again(WorkId work, std::optional<Splice> until = std::nullopt) {
    return {work, kMended, {StageId{2}}, until, false};
  }
  absl::StatusCode SendAgain(const ResendWork& work, uint64_t number = 7) {
    return server_->OnResend({number, {work}});
  }
  FenceAck Promise(std::vector<Incarnation> fenced) {
    Fence fence;
    fence.number = 7;
    fence.step = Step{1};
    fence.fenced = std::move(fenced);
    return server_->OnFence(fence);
  }

  FakeCompute compute_;
  FakeLinks links_;
  std::unique_ptr<StageServer> server_;
};

// --- the way of a microbatch -----------------------------------------------------------

TEST_F(StageServerTest, MicrobatchGoesDownAndItsGradientUp) {
  Forward forward = Microbatch(Work(0));
  forward.first_sequence = 12;
  Pass(forward);
  EXPECT_EQ(compute_.forwards[0].first_sequence, 12u);
  EXPECT_TRUE(compute_.forwards[0].targets.empty()) << "the last stage alone needs them";
  ASSERT_THAT(links_.sent, SizeIs(1));
  EXPECT_EQ(links_.sent[0].to, kDown);
  EXPECT_EQ(links_.sent[0].forward.input.As<float>()[0], 1) << "its own output, not its input";
  EXPECT_FALSE(links_.sent[0].forward.targets.empty());
  GiveBack(Work(0));
  compute_.Finish();
  ASSERT_THAT(links_.returned, SizeIs(1));
  EXPECT_EQ(links_.returned[0].to, kUp);
  EXPECT_EQ(links_.returned[0].backward.gradient.As<float>()[0], 2);
  ASSERT_THAT(links_.notices, SizeIs(1));
  EXPECT_EQ(links_.notices[0].progress, Progress::kAdded);
  EXPECT_THAT(links_.finished, ElementsAre(kDown));
  EXPECT_EQ(server_->load().queued, 0u);
  EXPECT_GT(server_->load().service_s, 0);
}

TEST_F(StageServerTest, FirstStageAddsAndSendsNoGradientFurther) {
  Serve(0);
  Pass(Microbatch(Work(0)));
  GiveBack(Work(0));
  EXPECT_FALSE(compute_.backwards[0].want_input_gradient);
  compute_.Finish();
  EXPECT_THAT(links_.returned, IsEmpty());
  EXPECT_THAT(links_.notices, SizeIs(1));
}

TEST_F(StageServerTest, LastStageTurnsRoundByItselfAndReportsTheLoss) {
  Serve(2);
  Take(Microbatch(Work(0)));
  EXPECT_FALSE(compute_.forwards[0].targets.empty());
  compute_.FinishAll();
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/0", "backward 1/0"));
  EXPECT_THAT(links_.sent, IsEmpty());
  ASSERT_THAT(links_.notices, SizeIs(1));
  EXPECT_EQ(links_.notices[0].loss_sum, 3.5);
  EXPECT_EQ(links_.notices[0].tokens, 7);
  EXPECT_THAT(links_.returned, SizeIs(1));
}

TEST_F(StageServerTest, DeviceRunsLowerStepsThenReplaysThenBackwardsThenForwards) {
  Pass(Microbatch(Work(0)));
  Take(Microbatch(Work(1)));  // occupies the device
  Take(Microbatch(Work(0, 2)));
  Take(Microbatch(Work(2)));
  Take(Microbatch(Work(3)));
  GiveBack(Work(0));
  Take(Microbatch(Work(4), {1}));
  server_->OnVersion(Version{0});  // nothing new: step 2 stays held
  compute_.FinishAll();
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/0", "forward 1/1", "forward 1/4",
                                             "backward 1/0", "forward 1/2", "forward 1/3"));
}

TEST_F(StageServerTest, EarlyWorkWaitsForItsVersion) {
  EXPECT_EQ(Take(Microbatch(Work(0, 2))), absl::StatusCode::kOk);
  EXPECT_THAT(compute_.posted(), IsEmpty());
  server_->OnVersion(Version{1});
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 2/0"));
  EXPECT_EQ(compute_.freed, Step{1});
}

TEST_F(StageServerTest, StaleWorkIsRefused) {
  server_->OnVersion(Version{1});
  EXPECT_EQ(Take(Microbatch(Work(0, 1))), absl::StatusCode::kAborted);
  Forward old_version = Microbatch(Work(0, 2));
  old_version.version = Version{0};
  EXPECT_EQ(Take(old_version), absl::StatusCode::kAborted);
  Forward old_step = Microbatch(Work(0, 1));
  old_step.version = Version{1};
  EXPECT_EQ(Take(old_step), absl::StatusCode::kAborted);
  EXPECT_EQ(server_->load().queued, 0u);
}

TEST_F(StageServerTest, SlotBoundAnswersBusyAndDoneWorkFreesTheSlot) {
  Serve(1, 2);
  Pass(Microbatch(Work(0)));
  Take(Microbatch(Work(1)));
  EXPECT_EQ(Take(Microbatch(Work(2))), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Take(Microbatch(Work(1))), absl::StatusCode::kOk) << "it has that one already";
  GiveBack(Work(0));
  compute_.FinishAll();
  EXPECT_EQ(Take(Microbatch(Work(3))), absl::StatusCode::kOk);
}

TEST_F(StageServerTest, RefusedOfferThatComesAgainStaysRefused) {
  Serve(1, 1);
  Pass(Microbatch(Work(0)));
  Forward forward = Microbatch(Work(1));
  EXPECT_EQ(Take(forward), absl::StatusCode::kResourceExhausted);
  GiveBack(Work(0));
  compute_.FinishAll();
  EXPECT_EQ(Take(forward), absl::StatusCode::kResourceExhausted)
      << "its sender has gone elsewhere since";
  forward.offer = 1;
  EXPECT_EQ(Take(forward), absl::StatusCode::kOk);
}

TEST_F(StageServerTest, WorkOfALaterStepRefusesNoneOfAnEarlierOne) {
  Serve(1, 1);
  EXPECT_EQ(Take(Microbatch(Work(0, 2))), absl::StatusCode::kOk);
  EXPECT_EQ(Take(Microbatch(Work(1, 2))), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Take(Microbatch(Work(0))), absl::StatusCode::kOk);
}

// --- repeated and lost messages --------------------------------------------------------

TEST_F(StageServerTest, RepeatedForwardIsComputedOnce) {
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Take(Microbatch(Work(0))), absl::StatusCode::kOk);
  compute_.FinishAll();
  EXPECT_EQ(Take(Microbatch(Work(0))), absl::StatusCode::kOk);
  EXPECT_THAT(compute_.posted(), SizeIs(1));
  EXPECT_THAT(links_.sent, SizeIs(1));
}

TEST_F(StageServerTest, RepeatedGradientIsAddedOnce) {
  Pass(Microbatch(Work(0)));
  GiveBack(Work(0));
  GiveBack(Work(0));
  compute_.FinishAll();
  GiveBack(Work(0));
  EXPECT_THAT(compute_.backwards, SizeIs(1));
  EXPECT_THAT(links_.notices, SizeIs(1));
}

TEST_F(StageServerTest, GradientThatOvertakesTheAcceptanceIsAddedOnce) {
  Take(Microbatch(Work(0)));
  compute_.FinishAll();
  GiveBack(Work(0));
  links_.sent[0].accepted(absl::StatusCode::kOk);
  compute_.FinishAll();
  EXPECT_THAT(compute_.backwards, SizeIs(1));
  EXPECT_THAT(links_.finished, ElementsAre(kDown));
}

TEST_F(StageServerTest, GradientFromSomeoneElseIsRefused) {
  Pass(Microbatch(Work(0)));
  EXPECT_EQ(server_->OnBackward(kDown2, Gradient(Work(0))), absl::StatusCode::kAborted);
  EXPECT_THAT(compute_.backwards, IsEmpty());
}

TEST_F(StageServerTest, GradientOfUnknownWorkIsHarmless) {
  EXPECT_EQ(server_->OnBackward(kDown, Gradient(Work(3))), absl::StatusCode::kOk);
  EXPECT_THAT(compute_.posted(), IsEmpty());
}

TEST_F(StageServerTest, BusyReceiverIsReplacedByAnother) {
  Take(Microbatch(Work(0)));
  compute_.FinishAll();
  links_.next = kDown2;
  links_.sent[0].accepted(absl::StatusCode::kResourceExhausted);
  ASSERT_THAT(links_.sent, SizeIs(2));
  EXPECT_EQ(links_.sent[1].to, kDown2);
  EXPECT_EQ(links_.sent[1].forward.input.As<float>()[0], 1);
  EXPECT_EQ(links_.sent[1].forward.offer, 1u);
  EXPECT_THAT(compute_.forwards, SizeIs(1)) << "not computed again";
  links_.sent[1].accepted(absl::StatusCode::kOk);
  EXPECT_EQ(server_->OnBackward(kDown, Gradient(Work(0))), absl::StatusCode::kAborted);
}

TEST_F(StageServerTest, StaleRefusalAndLackOfReceiversWaitForRetrySends) {
  Take(Microbatch(Work(0)));
  compute_.FinishAll();
  links_.sent[0].accepted(absl::StatusCode::kAborted);
  EXPECT_THAT(links_.sent, SizeIs(1));
  links_.next = std::nullopt;
  server_->RetrySends();
  EXPECT_THAT(links_.sent, SizeIs(1));
  links_.next = kDown2;
  server_->RetrySends();
  server_->RetrySends();
  ASSERT_THAT(links_.sent, SizeIs(2)) << "offered once, not with each retry";
  EXPECT_EQ(links_.sent[1].to, kDown2);
}

// --- fences and cancels ----------------------------------------------------------------

TEST_F(StageServerTest, FenceIsAnsweredWithEverythingAcceptedInTheStep) {
  Pass(Microbatch(Work(0)));
  GiveBack(Work(0));  // its gradient is here: it will be added
  Take(Microbatch(Work(1)), kUp2);
  Take(Microbatch(Work(0, 2)));
  const FenceAck ack = Promise({kUp2});
  EXPECT_EQ(ack.number, 7u);
  ASSERT_THAT(ack.held, SizeIs(2)) << "the one of step 2 is not asked for";
  EXPECT_EQ(ack.held[0].work, Work(0));
  EXPECT_EQ(ack.held[0].state, HeldState::kAdded);
  EXPECT_EQ(ack.held[0].upstream, kUp);
  EXPECT_EQ(ack.held[0].downstream, kDown);
  EXPECT_TRUE(ack.held[0].output_kept);
  EXPECT_TRUE(ack.held[0].gradient_kept);
  EXPECT_EQ(ack.held[1].state, HeldState::kOpen);
  EXPECT_EQ(ack.held[1].upstream, kUp2);
  EXPECT_EQ(ack.held[1].downstream, std::nullopt);
  EXPECT_FALSE(ack.held[1].output_kept);
  EXPECT_TRUE(ack.held[1].gradient_kept) << "it will be";
}

TEST_F(StageServerTest, DoneWorkIsReportedUntilTheStepIsOver) {
  Pass(Microbatch(Work(0)));
  GiveBack(Work(0));
  compute_.FinishAll();
  ASSERT_THAT(Promise({kUp2}).held, SizeIs(1));
  EXPECT_EQ(Promise({kUp2}).held[0].state, HeldState::kDone);
  server_->OnVersion(Version{1});
  EXPECT_THAT(Promise({kUp2}).held, IsEmpty());
}

TEST_F(StageServerTest, NothingIsTakenFromTheFenced) {
  Pass(Microbatch(Work(0)));
  Promise({kUp2, kDown});
  EXPECT_EQ(Take(Microbatch(Work(1)), kUp2), absl::StatusCode::kAborted);
  EXPECT_EQ(server_->OnBackward(kDown, Gradient(Work(0))), absl::StatusCode::kAborted);
  EXPECT_THAT(compute_.backwards, IsEmpty());
  EXPECT_EQ(Take(Microbatch(Work(1)), kUp), absl::StatusCode::kOk);
}

TEST_F(StageServerTest, NoGradientGoesToTheFenced) {
  Pass(Microbatch(Work(0)));
  Promise({kUp});
  GiveBack(Work(0));
  compute_.FinishAll();
  EXPECT_THAT(links_.returned, IsEmpty());
  EXPECT_THAT(links_.notices, SizeIs(1)) << "its own gradient counts all the same";
}

TEST_F(StageServerTest, WhatWasReportedAsSentToTheFencedIsNotSentElsewhere) {
  Take(Microbatch(Work(0)));
  compute_.FinishAll();
  EXPECT_EQ(Promise({kDown}).held[0].downstream, kDown);
  links_.next = kDown2;
  links_.sent[0].accepted(absl::StatusCode::kResourceExhausted);  // late
  server_->RetrySends();
  EXPECT_THAT(links_.sent, SizeIs(1));
}

TEST_F(StageServerTest, CancelFreesOnlyWhatHasNoGradient) {
  Pass(Microbatch(Work(0)));
  Pass(Microbatch(Work(1)));
  GiveBack(Work(1));          // on the device
  Take(Microbatch(Work(2)));  // queued
  server_->OnCancel({{Work(0), Work(1), Work(2), Work(9)}});
  EXPECT_THAT(compute_.dropped, ElementsAre(0, 2));
  EXPECT_EQ(server_->load().queued, 1u);
  EXPECT_THAT(links_.finished, ElementsAre(kDown));
  compute_.FinishAll();
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/0", "forward 1/1", "backward 1/1"));
  GiveBack(Work(0));
  EXPECT_THAT(compute_.backwards, SizeIs(1)) << "its gradient, late, is dropped";
}

TEST_F(StageServerTest, WorkCancelledOnTheDeviceGoesNowhere) {
  Take(Microbatch(Work(0)));
  server_->OnCancel({{Work(0)}});
  compute_.FinishAll();
  EXPECT_THAT(links_.sent, IsEmpty());
  EXPECT_THAT(compute_.dropped, testing::Contains(0));
  Take(Microbatch(Work(1)));
  EXPECT_EQ(compute_.waiting(), 1u) << "the device goes on";
}

TEST_F(StageServerTest, CancelledWorkThatArrivesLaterIsNotTakenUp) {
  server_->OnCancel({{Work(0)}});
  EXPECT_EQ(Take(Microbatch(Work(0))), absl::StatusCode::kOk);
  EXPECT_THAT(compute_.posted(), IsEmpty());
  EXPECT_THAT(Promise({kUp2}).held, IsEmpty());
}

TEST_F(StageServerTest, CancelOlderThanAFenceThatWasAnsweredIsIgnored) {
  Pass(Microbatch(Work(0)));
  Promise({});
  server_->OnCancel({{Work(0)}, 6});
  EXPECT_EQ(server_->load().queued, 1u);
  server_->OnCancel({{Work(0)}, 7});
  EXPECT_EQ(server_->load().queued, 0u);
}

// --- the boundary log ------------------------------------------------------------------

TEST_F(StageServerTest, OutputIsSentAgainAndTheGradientAwaitedAfresh) {
  Pass(Microbatch(Work(0)));
  Promise({kDown});
  links_.next = kDown2;
  EXPECT_EQ(SendAgain(Again(Work(0))), absl::StatusCode::kOk);
  EXPECT_EQ(SendAgain(Again(Work(0))), absl::StatusCode::kOk) << "asked twice";
  ASSERT_THAT(links_.sent, SizeIs(2));
  const Forward& again = links_.sent[1].forward;
  EXPECT_EQ(links_.sent[1].to, kDown2);
  EXPECT_EQ(again.work, (WorkId{Work(0).id, kMended}));
  EXPECT_EQ(again.input.As<float>()[0], 1) << "its output, from the log";
  EXPECT_FALSE(again.targets.empty());
  EXPECT_THAT(again.add_at, ElementsAre(StageId{2}));
  EXPECT_TRUE(again.gradient_wanted);
  EXPECT_FALSE(again.contested);
  const FenceAck ack = Promise({kDown});
  EXPECT_EQ(ack.held[0].downstream, kDown2);
  EXPECT_EQ(ack.held[0].downstream_attempt, kMended);
  links_.sent[1].accepted(absl::StatusCode::kOk);
  EXPECT_EQ(server_->OnBackward(kDown2, Gradient({Work(0).id, kMended})), absl::StatusCode::kOk);
  compute_.FinishAll();
  EXPECT_THAT(compute_.forwards, SizeIs(1)) << "computed once";
  ASSERT_THAT(links_.returned, SizeIs(1));
  EXPECT_EQ(links_.returned[0].backward.work, Work(0)) << "upstream knows it by its old name";
}

TEST_F(StageServerTest, DoneWorkIsSentAgainWithoutAskingForAGradient) {
  Complete(Microbatch(Work(0)));
  EXPECT_EQ(SendAgain(Again(Work(0))), absl::StatusCode::kOk);
  ASSERT_THAT(links_.sent, SizeIs(2));
  EXPECT_FALSE(links_.sent[1].forward.gradient_wanted);
  links_.sent[1].accepted(absl::StatusCode::kOk);
  EXPECT_THAT(links_.finished, ElementsAre(kDown, kDown));
  EXPECT_EQ(compute_.backwards.size(), 1u);
}

TEST_F(StageServerTest, ResendOlderThanAFenceThatWasAnsweredIsRefused) {
  Pass(Microbatch(Work(0)));
  Promise({kDown});
  EXPECT_EQ(SendAgain(Again(Work(0)), 6), absl::StatusCode::kAborted);
  EXPECT_THAT(links_.sent, SizeIs(1));
}

TEST_F(StageServerTest, ResendOfWhatIsNotHereIsRefused) {
  Take(Microbatch(Work(1)));  // not computed yet
  EXPECT_EQ(SendAgain(Again(Work(0))), absl::StatusCode::kAborted);
  EXPECT_EQ(SendAgain(Again(Work(1))), absl::StatusCode::kAborted);
}

TEST_F(StageServerTest, WithoutABudgetNothingIsKeptAndEverythingCounted) {
  Serve(1, 8, 0);
  Complete(Microbatch(Work(0)));
  EXPECT_EQ(server_->counters().not_logged, 2u);
  EXPECT_EQ(server_->log_bytes(), 0u);
  const FenceAck ack = Promise({kDown});
  EXPECT_FALSE(ack.held[0].output_kept);
  EXPECT_FALSE(ack.held[0].gradient_kept);
  EXPECT_EQ(SendAgain(Again(Work(0))), absl::StatusCode::kAborted);
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kAborted);
}

TEST_F(StageServerTest, WhatIsKeptStaysWhenTheLogIsFullAndIsFreedByTheDecision) {
  Serve(1, 8, 12);  // output and targets of one microbatch, and a gradient
  Complete(Microbatch(Work(0)));
  EXPECT_EQ(server_->log_bytes(), 12u);
  Complete(Microbatch(Work(1)));
  const FenceAck ack = Promise({});
  EXPECT_TRUE(ack.held[0].output_kept && ack.held[0].gradient_kept);
  EXPECT_FALSE(ack.held[1].output_kept || ack.held[1].gradient_kept);
  server_->OnVersion(Version{1});
  EXPECT_EQ(server_->log_bytes(), 0u);
}

TEST_F(StageServerTest, EvaluationIsNotLogged) {
  Pass(Evaluation(0));
  EXPECT_EQ(server_->log_bytes(), 0u);
  EXPECT_EQ(server_->counters().not_logged, 0u);
}

// --- claims ----------------------------------------------------------------------------

TEST_F(StageServerTest, ClaimOfDoneWorkIsAnsweredFromTheLog) {
  Complete(Microbatch(Work(0)));
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kOk);
  ASSERT_THAT(links_.returned, SizeIs(2));
  EXPECT_EQ(links_.returned[1].to, kUp2);
  EXPECT_EQ(links_.returned[1].backward.work, (WorkId{Work(0).id, kMended}));
  EXPECT_EQ(links_.returned[1].backward.gradient.As<float>()[0], 2);
  EXPECT_EQ(compute_.backwards.size(), 1u);
}

TEST_F(StageServerTest, ClaimOfOpenWorkGetsTheGradientBesideTheFirstToAsk) {
  Pass(Microbatch(Work(0)));
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kOk);
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kOk);
  EXPECT_THAT(links_.returned, IsEmpty());
  GiveBack(Work(0));
  compute_.FinishAll();
  ASSERT_THAT(links_.returned, SizeIs(2));
  EXPECT_EQ(links_.returned[0].to, kUp);
  EXPECT_EQ(links_.returned[1].to, kUp2);
}

TEST_F(StageServerTest, ClaimMakesAGradientThatNobodyWanted) {
  Forward forward = Microbatch(Work(0));
  forward.gradient_wanted = false;
  Pass(forward);
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kOk);
  GiveBack(Work(0));
  EXPECT_TRUE(compute_.backwards[0].want_input_gradient);
}

TEST_F(StageServerTest, ClaimThatComesTooLateOrOfTheUnknownIsRefused) {
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kAborted);
  Forward forward = Microbatch(Work(0));
  forward.gradient_wanted = false;
  Pass(forward);
  GiveBack(Work(0));  // on the device, without a gradient of its input
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kAborted);
  compute_.FinishAll();
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kAborted);
}

TEST_F(StageServerTest, ClaimOfTheFencedIsRefused) {
  Complete(Microbatch(Work(0)));
  Promise({kUp2});
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kAborted);
}

Splice Until(Incarnation holder) { return {StageId{2}, holder, Work(0).attempt}; }

TEST_F(StageServerTest, StageBeforeASpliceClaimsInsteadOfSending) {
  Forward forward = Microbatch({Work(0).id, kMended}, {1});
  forward.until = Until(kDown);
  EXPECT_EQ(Take(forward), absl::StatusCode::kOk);
  compute_.FinishAll();
  EXPECT_THAT(links_.sent, IsEmpty());
  ASSERT_THAT(links_.claims, SizeIs(1));
  EXPECT_EQ(links_.claims[0].to, kDown);
  EXPECT_EQ(links_.claims[0].claim.work, Work(0));
  EXPECT_EQ(links_.claims[0].claim.as, kMended);
  const HeldWork held = Promise({}).held[0];
  EXPECT_TRUE(held.claims);
  EXPECT_EQ(held.downstream, kDown);
  EXPECT_EQ(held.downstream_attempt, Work(0).attempt);
  links_.claims[0].answered(absl::StatusCode::kOk);
  EXPECT_EQ(server_->OnBackward(kDown, Gradient(forward.work)), absl::StatusCode::kOk);
  compute_.FinishAll();
  EXPECT_THAT(links_.notices, SizeIs(1));
}

TEST_F(StageServerTest, RefusedClaimIsReportedAndCanBeMended) {
  Forward forward = Microbatch({Work(0).id, kMended}, {1});
  forward.until = Until(kDown);
  Take(forward);
  compute_.FinishAll();
  links_.claims[0].answered(absl::StatusCode::kAborted);
  ASSERT_THAT(links_.notices, SizeIs(1));
  EXPECT_EQ(links_.notices[0].progress, Progress::kUnclaimed);
  EXPECT_EQ(Promise({}).held[0].state, HeldState::kUnclaimed);
  ResendWork again{forward.work, {kTrainer, 78}, {}, Until(kDown2), false};
  EXPECT_EQ(SendAgain(again), absl::StatusCode::kOk);
  ASSERT_THAT(links_.claims, SizeIs(2));
  EXPECT_EQ(links_.claims[1].to, kDown2);
  EXPECT_EQ(Promise({}).held[0].state, HeldState::kOpen);
}

TEST_F(StageServerTest, ClaimOfOneThatIsFencedMeanwhileIsReportedAtOnce) {
  Forward forward = Microbatch({Work(0).id, kMended}, {1});
  forward.until = Until(kDown);
  Take(forward);
  Promise({kDown});
  compute_.FinishAll();
  EXPECT_THAT(links_.claims, IsEmpty());
  ASSERT_THAT(links_.notices, SizeIs(1));
  EXPECT_EQ(links_.notices[0].progress, Progress::kUnclaimed);
}

TEST_F(StageServerTest, ClaimOfAHolderThatNoViewNamesYetWaitsForRetrySends) {
  links_.knows_holders = false;
  Forward forward = Microbatch({Work(0).id, kMended}, {1});
  forward.until = Until(kDown);
  Take(forward);
  compute_.FinishAll();
  links_.knows_holders = true;
  server_->RetrySends();
  EXPECT_THAT(links_.claims, SizeIs(1));
}

// --- contested work --------------------------------------------------------------------

TEST_F(StageServerTest, GradientOfTheSlowOneAndOfItsCopyIsAddedOnce) {
  Pass(Microbatch(Work(0)));
  links_.next = kDown2;
  ResendWork again = Again(Work(0));
  again.contested = true;
  EXPECT_EQ(SendAgain(again), absl::StatusCode::kOk);
  EXPECT_TRUE(links_.sent[1].forward.contested);
  EXPECT_EQ(links_.avoided, kDown);
  GiveBack(Work(0));  // the slow one after all
  EXPECT_EQ(server_->OnBackward(kDown2, Gradient({Work(0).id, kMended})), absl::StatusCode::kOk);
  compute_.FinishAll();
  EXPECT_THAT(compute_.backwards, SizeIs(1));
  EXPECT_EQ(server_->counters().second_gradients, 1u);
}

TEST_F(StageServerTest, EachContestedMicrobatchHasASegmentOfItsOwn) {
  for (uint32_t index : {0u, 1u, 2u, 3u}) {
    Forward forward = Microbatch(
        Work(index), index % 2 == 1 ? std::vector<uint32_t>{1, 2} : std::vector<uint32_t>{});
    forward.contested = index % 2 == 1;
    Pass(forward);
    GiveBack(Work(index));
    compute_.FinishAll();
  }
  std::vector<SegmentSummary> sealed;
  server_->OnSeal(Step{1}, [&](absl::StatusOr<std::vector<SegmentSummary>> s) { sealed = *s; });
  compute_.FinishAll();
  ASSERT_THAT(sealed, SizeIs(4));
  EXPECT_EQ(sealed[0].id, sealed[2].id);
  EXPECT_NE(sealed[1].id, sealed[3].id);
  EXPECT_NE(sealed[0].id, sealed[1].id);
  EXPECT_THAT((std::vector<bool>{sealed[0].contested, sealed[1].contested, sealed[3].contested}),
              ElementsAre(false, true, true));
}

TEST_F(StageServerTest, AtTheBoundContestedWorkIsRefusedAsBusyAndOtherWorkIsNot) {
  for (uint32_t index : {0u, 1u, 2u}) {
    Forward forward = Microbatch(Work(index), {1});
    forward.contested = true;
    EXPECT_EQ(Take(forward),
              index < 2 ? absl::StatusCode::kOk : absl::StatusCode::kResourceExhausted);
  }
  EXPECT_EQ(Take(Microbatch(Work(3))), absl::StatusCode::kOk);
}

// --- segments --------------------------------------------------------------------------

TEST_F(StageServerTest, SealTakesEffectBetweenTwoBackwards) {
  for (uint32_t index : {0u, 1u, 2u}) Pass(Microbatch(Work(index)));
  GiveBack(Work(0));
  GiveBack(Work(1));
  bool sealed = false;
  server_->OnSeal(Step{1}, [&](absl::StatusOr<std::vector<SegmentSummary>>) { sealed = true; });
  EXPECT_FALSE(sealed);
  compute_.FinishAll();
  EXPECT_TRUE(sealed);
  GiveBack(Work(2));
  ASSERT_THAT(compute_.backwards, SizeIs(3));
  EXPECT_EQ(compute_.backwards[0].segment, SegmentId{0});
  EXPECT_EQ(compute_.backwards[1].segment, SegmentId{1}) << "late work, a new segment";
  EXPECT_EQ(compute_.backwards[2].segment, SegmentId{1});
  EXPECT_THAT(std::vector<std::string>(compute_.posted().begin() + 3, compute_.posted().end()),
              ElementsAre("backward 1/0", "seal 1", "backward 1/1", "backward 1/2"));
}

TEST_F(StageServerTest, NextStepBeginsWithTheFirstSegment) {
  server_->OnSeal(Step{1}, [](absl::StatusOr<std::vector<SegmentSummary>>) {});
  compute_.FinishAll();
  server_->OnVersion(Version{1});
  Pass(Microbatch(Work(0, 2)));
  GiveBack(Work(0, 2));
  EXPECT_EQ(compute_.backwards[0].segment, SegmentId{0});
}

// --- evaluation ------------------------------------------------------------------------

TEST_F(StageServerTest, EvaluationPassesWithoutBeingHeld) {
  Pass(Evaluation(0));
  EXPECT_EQ(server_->load().queued, 0u);
  EXPECT_THAT(links_.finished, ElementsAre(kDown));
  EXPECT_THAT(Promise({kUp2}).held, IsEmpty());
}

TEST_F(StageServerTest, LastStageReportsAnEvaluationAndRunsNoBackward) {
  Serve(2);
  Take(Evaluation(0));
  compute_.FinishAll();
  EXPECT_THAT(compute_.backwards, IsEmpty());
  ASSERT_THAT(links_.notices, SizeIs(1));
  EXPECT_EQ(links_.notices[0].progress, Progress::kEvaluated);
  EXPECT_EQ(links_.notices[0].loss_sum, 3.5);
  EXPECT_EQ(server_->load().queued, 0u);
}

TEST_F(StageServerTest, EvaluationOnItsWayToTheFencedIsForgotten) {
  Take(Evaluation(0));
  compute_.FinishAll();
  Promise({kDown});
  EXPECT_EQ(server_->load().queued, 0u);
}

// --- stage masks -----------------------------------------------------------------------

TEST_F(StageServerTest, StageOutsideTheMaskPassesTheGradientOnAndAddsNothing) {
  Pass(Microbatch(Work(0), {0, 2}));
  GiveBack(Work(0));
  EXPECT_EQ(compute_.backwards[0].segment, std::nullopt);
  EXPECT_TRUE(compute_.backwards[0].want_input_gradient);
  compute_.FinishAll();
  EXPECT_THAT(links_.returned, SizeIs(1));
  EXPECT_THAT(links_.notices, IsEmpty());
}

TEST_F(StageServerTest, GradientGoesUpOnlyWhereItIsWanted) {
  Forward forward = Microbatch(Work(0), {1});
  forward.gradient_wanted = false;
  Pass(forward);
  EXPECT_TRUE(links_.sent[0].forward.gradient_wanted) << "here it is needed";
  GiveBack(Work(0));
  EXPECT_EQ(compute_.backwards[0].segment, SegmentId{0});
  EXPECT_FALSE(compute_.backwards[0].want_input_gradient);
  compute_.FinishAll();
  EXPECT_THAT(links_.returned, IsEmpty());
  EXPECT_THAT(links_.notices, SizeIs(1));
}

TEST_F(StageServerTest, StageThatNeedsNoGradientIsDoneWhenTheNextHasAccepted) {
  Forward forward = Microbatch(Work(0), {2});
  forward.gradient_wanted = false;
  Pass(forward);
  EXPECT_FALSE(links_.sent[0].forward.gradient_wanted);
  EXPECT_THAT(compute_.dropped, ElementsAre(0));
  EXPECT_THAT(compute_.backwards, IsEmpty());
  EXPECT_EQ(server_->load().queued, 0u);
  EXPECT_THAT(links_.finished, ElementsAre(kDown));
  EXPECT_FALSE(Promise({}).held[0].gradient_kept);
}

TEST_F(StageServerTest, LastStageOutsideTheMaskStillMakesTheGradient) {
  Serve(2);
  Take(Microbatch(Work(0), {1}));
  compute_.FinishAll();
  ASSERT_THAT(compute_.backwards, SizeIs(1));
  EXPECT_EQ(compute_.backwards[0].segment, std::nullopt);
  EXPECT_THAT(links_.returned, SizeIs(1));
  EXPECT_THAT(links_.notices, IsEmpty());
}

// --- the device, and new beginnings ----------------------------------------------------

TEST_F(StageServerTest, DeviceFailureIsReportedOnceAndNothingMoreIsRun) {
  Take(Microbatch(Work(0)));
  Take(Microbatch(Work(1)));
  compute_.FailNext(absl::InternalError("out of memory"));
  Take(Microbatch(Work(2)));
  ASSERT_THAT(links_.failures, SizeIs(1));
  EXPECT_EQ(links_.failures[0].code(), absl::StatusCode::kInternal);
  EXPECT_EQ(compute_.waiting(), 0u);
}

TEST_F(StageServerTest, FailureInBackwardAddsAndReportsNothing) {
  Pass(Microbatch(Work(0)));
  GiveBack(Work(0));
  compute_.FailNext(absl::InternalError("device lost"));
  EXPECT_THAT(links_.failures, SizeIs(1));
  EXPECT_THAT(links_.notices, IsEmpty());
  EXPECT_THAT(links_.returned, IsEmpty());
}

TEST_F(StageServerTest, ShuttingDownIsNoFailure) {
  Take(Microbatch(Work(0)));
  compute_.FailNext(absl::CancelledError("shutting down"));
  EXPECT_THAT(links_.failures, IsEmpty());
}

TEST_F(StageServerTest, ResetForgetsEverythingAndIgnoresEarlierCompletions) {
  Pass(Microbatch(Work(0)));
  Promise({kUp2});
  Take(Microbatch(Work(1)));
  server_->Reset(Version{4});
  EXPECT_EQ(server_->version(), Version{4});
  EXPECT_EQ(server_->load().queued, 0u);
  EXPECT_EQ(Take(Microbatch(Work(0, 5)), kUp2), absl::StatusCode::kOk);
  compute_.Finish();  // microbatch 1 of before
  links_.sent[0].accepted(absl::StatusCode::kOk);
  EXPECT_THAT(links_.sent, SizeIs(1)) << "what was before the reset goes nowhere";
  compute_.Finish();
  ASSERT_THAT(links_.sent, SizeIs(2));
  EXPECT_EQ(links_.sent[1].forward.work, Work(0, 5));
}

TEST_F(StageServerTest, CompletionsAfterItIsGoneAreHarmless) {
  Take(Microbatch(Work(0)));
  server_.reset();
  compute_.FinishAll();
  EXPECT_THAT(links_.sent, IsEmpty());
}

TEST_F(StageServerTest, DecisionForgetsTheStepWhateverIsStillUnderWay) {
  Pass(Microbatch(Work(0)));
  Take(Microbatch(Work(1)));
  Take(Microbatch(Work(2)));
  server_->OnVersion(Version{1});
  EXPECT_EQ(server_->load().queued, 0u);
  compute_.FinishAll();
  EXPECT_THAT(links_.sent, SizeIs(1));
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/0", "forward 1/1"));
  Pass(Microbatch(Work(0, 2)));
}

}  // namespace
}  // namespace starling
