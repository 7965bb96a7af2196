// What StageServer's tests share: a device and links that the test plays, and a server between
// them.
#ifndef STARLING_TESTS_STAGES_STAGE_SERVER_HARNESS_H_
#define STARLING_TESTS_STAGES_STAGE_SERVER_HARNESS_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "codec/codec.h"
#include "stages/stage_server.h"

namespace starling::stage_server_testing {

constexpr Incarnation kTrainer{Epoch{1}, 0};
constexpr Incarnation kUp{Epoch{1}, 1};
constexpr Incarnation kUp2{Epoch{1}, 2};
constexpr Incarnation kDown{Epoch{1}, 3};
constexpr Incarnation kDown2{Epoch{1}, 4};
constexpr AttemptId kMended{kTrainer, 77};  // the name of a spliced attempt

inline Blob Number(float value) { return Blob::OfFloats({value}); }

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
  void Decode(Blob encoded, Done<Blob> done) override {
    ++decodes;
    codecs_.push_back([this, encoded, done] {
      codec_failure.ok() ? done(DecodeBlob(encoded)) : done(codec_failure);
    });
  }
  void Encode(Blob values, Coding coding, Done<Blob> done) override {
    codings.push_back(coding);
    codecs_.push_back([this, values, coding, done] {
      codec_failure.ok() ? done(EncodeBlob(values, coding)) : done(codec_failure);
    });
  }
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
    if (!hold_codecs) FinishCodecs();
  }
  void FinishAll() {
    while (!waiting_.empty()) Finish();
  }
  void FinishCodec() {
    ASSERT_FALSE(codecs_.empty());
    const auto finish = std::move(codecs_.front());
    codecs_.pop_front();
    finish();
  }
  void FinishCodecs() {
    while (!codecs_.empty()) FinishCodec();
  }
  void FailNext(absl::Status failure) {
    failure_ = std::move(failure);
    Finish(false);
  }

  bool hold_codecs = false;  // they finish when the test says so, else with the next operation
  absl::Status codec_failure;
  std::vector<Coding> codings;  // asked for
  int decodes = 0;              // likewise
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
  std::deque<std::function<void()>> codecs_;
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

inline WorkId Work(uint32_t index, uint64_t step = 1, uint32_t attempt = 1) {
  return {{Step{step}, WorkKind::kTrain, index}, {kTrainer, attempt}};
}

inline Forward Microbatch(WorkId work, std::vector<uint32_t> add_at = {}) {
  Forward forward;
  forward.work = work;
  forward.version = VersionBefore(work.id.step);
  forward.replay = !add_at.empty();
  for (uint32_t stage : add_at) forward.add_at.push_back(StageId{stage});
  forward.input = Number(0);
  forward.targets = Number(9);
  return forward;
}

inline Forward Evaluation(uint32_t index) {
  Forward forward = Microbatch(Work(index));
  forward.work.id.kind = WorkKind::kEvaluate;
  return forward;
}

inline Backward Gradient(WorkId work) { return {work, Number(5)}; }

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
    options.forward = forward_;
    options.backward = backward_;
    options.seed = 3;
    options.keeps_older = keeps_older_;
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

  bool keeps_older_ = false;  // with delayed commit
  Coding forward_;            // how boundaries travel: raw
  Coding backward_;
  FakeCompute compute_;
  FakeLinks links_;
  std::unique_ptr<StageServer> server_;
};

}  // namespace starling::stage_server_testing

#endif  // STARLING_TESTS_STAGES_STAGE_SERVER_HARNESS_H_
