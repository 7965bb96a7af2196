#include "stages/coded_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/stages/stage_server_harness.h"

namespace starling {
namespace {

using namespace stage_server_testing;  // NOLINT: its own harness
using testing::SizeIs;

// Doubles what it is given, and remembers it.
class Doubling : public StageExecutor {
 public:
  int64_t size() const override { return 4; }
  absl::StatusOr<ForwardOutput> Forward(const ForwardInput& input) override {
    seen = input.input;
    ForwardOutput output;
    if (!last) output.output = Doubled(input.input);
    return output;
  }
  absl::StatusOr<BackwardOutput> Backward(const BackwardInput& input) override {
    seen = input.gradient;
    BackwardOutput output;
    if (input.want_input_gradient) output.input_gradient = Doubled(input.gradient);
    return output;
  }
  void Drop(WorkId) override {}
  std::vector<SegmentSummary> Seal(Step) override { return {}; }
  absl::StatusOr<SegmentSum> Read(Step, const std::vector<SegmentId>&) override {
    return SegmentSum();
  }
  void FreeThrough(Step) override {}
  absl::StatusOr<Hash128> Apply(const UpdateScalars&, const std::vector<Blob>&) override {
    return Hash128();
  }
  absl::StatusOr<Blob> Snapshot() override { return Blob(); }
  absl::StatusOr<Hash128> Load(const Blob&) override { return Hash128(); }

  Blob seen;
  bool last = false;

 private:
  static Blob Doubled(const Blob& blob) {
    std::vector<float> values;
    for (const float value : blob.As<float>()) values.push_back(2 * value);
    return Blob::OfFloats(values).Reshaped(blob.shape());
  }
};

Blob Boundary() {
  std::vector<float> values;
  for (int i = 0; i < 600; ++i) values.push_back(static_cast<float>(i % 100) / 100);
  return Blob::OfFloats(values).Reshaped({2, 3, 100});
}

TEST(CodedExecutor, CodecsTakeTheTimeOfTheClockAndRawBoundariesNone) {
  Doubling executor;
  int reads = 0;
  const auto clock = [&reads] { return absl::Milliseconds(++reads); };
  Coding coding;
  coding.encoding = Encoding::kInt8;
  ForwardInput input;
  input.input = EncodeBlob(Boundary(), coding);
  input.coding = coding;
  const auto forward = CodedForward(&executor, input, clock);
  ASSERT_TRUE(forward.ok()) << forward.status();
  EXPECT_EQ(forward->decoding, absl::Milliseconds(1));
  EXPECT_EQ(forward->encoding, absl::Milliseconds(1));
  EXPECT_EQ(reads, 4);
  BackwardInput back;
  back.gradient = Boundary();
  const auto backward = CodedBackward(&executor, back, clock);
  ASSERT_TRUE(backward.ok()) << backward.status();
  EXPECT_EQ(backward->decoding, absl::ZeroDuration());
  EXPECT_EQ(backward->encoding, absl::ZeroDuration());
  EXPECT_EQ(reads, 4);
}

TEST(CodedExecutor, BoundariesAreDecodedOnTheWayInAndEncodedOnTheWayOut) {
  Doubling executor;
  ForwardInput forward;
  forward.input = EncodeBlob(Boundary(), {Encoding::kInt8});
  forward.coding = {Encoding::kF16};
  const auto output = CodedForward(&executor, forward);
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_FALSE(executor.seen.encoded());
  EXPECT_NEAR(executor.seen.As<float>()[99], 0.99f, 0.005f);
  EXPECT_EQ(output->output.encoding(), Encoding::kF16);
  EXPECT_THAT(output->output.shape(), testing::ElementsAre(2, 3, 100));

  BackwardInput backward;
  backward.gradient = output->output;
  backward.coding = {Encoding::kInt4, Rounding::kStochastic, 1};
  const auto gradient = CodedBackward(&executor, backward);
  ASSERT_TRUE(gradient.ok()) << gradient.status();
  EXPECT_NEAR(executor.seen.As<float>()[99], 1.98f, 0.01f);
  EXPECT_EQ(gradient->input_gradient.encoding(), Encoding::kInt4);
}

TEST(CodedExecutor, RawBoundariesAreNotCopied) {
  Doubling executor;
  ForwardInput forward;
  forward.input = Boundary();
  const auto output = CodedForward(&executor, forward);
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(executor.seen.data(), forward.input.data());
  EXPECT_FALSE(output->output.encoded());
}

TEST(CodedExecutor, WhatIsNotMadeIsNotEncoded) {
  Doubling executor;
  executor.last = true;
  ForwardInput forward;
  forward.input = Boundary();
  forward.coding = {Encoding::kInt8};
  EXPECT_FALSE(CodedForward(&executor, forward)->output.encoded());
  BackwardInput backward;
  backward.gradient = Boundary();
  backward.want_input_gradient = false;
  backward.coding = {Encoding::kInt8};
  EXPECT_TRUE(CodedBackward(&executor, backward)->input_gradient.empty());
}

// --- what StageServer asks for ---------------------------------------------------------

// The same key whoever computes it and under whatever name; another one for all else.
TEST_F(StageServerTest, KeyOfTheRoundingNamesTheMicrobatchAndNotTheAttempt) {
  Complete(Microbatch(Work(0)));
  Complete(Microbatch(Work(1)));
  Complete(Microbatch(Work(0, 1, 2), {1}));
  ASSERT_THAT(compute_.forwards, SizeIs(3));
  ASSERT_THAT(compute_.backwards, SizeIs(3));
  const Coding forward = compute_.forwards[0].coding;
  const Coding backward = compute_.backwards[0].coding;
  EXPECT_EQ(forward.encoding, Encoding::kInt8);
  EXPECT_EQ(forward.rounding, Rounding::kStochastic);
  EXPECT_EQ(backward.encoding, Encoding::kF16);
  EXPECT_EQ(compute_.forwards[2].coding.key, forward.key);
  EXPECT_EQ(compute_.backwards[2].coding.key, backward.key);
  std::set<uint64_t> keys = {forward.key, backward.key, compute_.forwards[1].coding.key,
                             compute_.backwards[1].coding.key};
  server_->OnVersion(Version{1});
  Complete(Microbatch(Work(0, 2)));
  keys.insert(compute_.forwards[3].coding.key);
  Serve(0);
  Complete(Microbatch(Work(0)));
  keys.insert(compute_.forwards[4].coding.key);
  EXPECT_THAT(keys, SizeIs(6));
}

TEST_F(StageServerTest, BytesOfBoundariesSentAreCountedByStep) {
  Complete(Microbatch(Work(0)));
  EXPECT_EQ(server_->sent(Step{1}).forward, 4u);
  EXPECT_EQ(server_->sent(Step{1}).backward, 4u);
  Complete(Microbatch(Work(1)));
  EXPECT_EQ(server_->sent(Step{1}).forward, 8u);
  Take(Evaluation(5));
  compute_.FinishAll();
  EXPECT_EQ(server_->sent(Step{1}).forward, 8u) << "evaluations do not count";
  server_->OnVersion(Version{1});
  EXPECT_EQ(server_->sent(Step{1}).forward, 0u);
  EXPECT_EQ(server_->sent(Step{1}).backward, 0u);
}

}  // namespace
}  // namespace starling
