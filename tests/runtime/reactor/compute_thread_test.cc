#include "runtime/reactor/compute_thread.h"

#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace starling {
namespace {

constexpr absl::Duration kLongWait = absl::Seconds(30);

// Writes down what it is asked, and answers so that each answer shows its question.
class FakeExecutor final : public StageExecutor {
 public:
  explicit FakeExecutor(std::vector<std::string>* calls) : calls_(calls) {}

  int64_t size() const override { return 48; }
  absl::StatusOr<ForwardOutput> Forward(const ForwardInput& input) override {
    Note("forward " + ToString(input.work));
    if (input.input.empty()) return absl::InvalidArgumentError("no input");
    ForwardOutput output;
    output.output = input.input;
    return output;
  }
  absl::StatusOr<BackwardOutput> Backward(const BackwardInput& input) override {
    Note("backward " + ToString(input.work));
    BackwardOutput output;
    output.input_gradient = input.gradient;
    return output;
  }
  void Drop(WorkId work) override { Note("drop " + ToString(work)); }
  std::vector<SegmentSummary> Seal(Step step) override {
    Note("seal");
    SegmentSummary summary;
    summary.lane = Value(step);
    return {summary};
  }
  absl::StatusOr<SegmentSum> Read(Step step, const std::vector<SegmentId>& segments) override {
    Note("read");
    SegmentSum sum;
    sum.lane = segments.size();
    return sum;
  }
  void FreeThrough(Step step) override { Note("free"); }
  absl::StatusOr<Hash128> Apply(const UpdateScalars& scalars,
                                const std::vector<Blob>& gradient) override {
    Note("apply");
    return Hash128{gradient.size(), 0};
  }
  absl::StatusOr<Blob> Snapshot() override {
    Note("snapshot");
    return Blob::OfFloats({1, 2, 3});
  }
  absl::StatusOr<Hash128> Load(const Blob& state) override {
    Note("load");
    return Hash128{static_cast<uint64_t>(state.element_count()), 0};
  }

 private:
  void Note(std::string call) {
    if (thread_ == std::thread::id()) thread_ = std::this_thread::get_id();
    EXPECT_EQ(thread_, std::this_thread::get_id());
    calls_->push_back(std::move(call));
  }

  std::thread::id thread_;
  std::vector<std::string>* const calls_;
};

WorkId Work(uint32_t index) { return {{Step{1}, WorkKind::kTrain, index}, {{Epoch{1}, 0}, index}}; }

class ThreadedComputeTest : public ::testing::Test {
 protected:
  ThreadedComputeTest()
      : compute_(
            std::make_unique<ThreadedCompute>(&loop_, std::make_unique<FakeExecutor>(&calls_))) {}

  // Counts the answers, and hands each on for a look at it.
  template <typename T>
  Compute::Done<T> Answer(std::function<void(const absl::StatusOr<T>&)> look) {
    return [this, look](absl::StatusOr<T> result) {
      ++answers_;
      look(result);
    };
  }
  bool RunUntilAnswers(int count) {
    return loop_.RunUntil([this, count] { return answers_ >= count; }, kLongWait);
  }

  EventLoop loop_;
  std::vector<std::string> calls_;  // read after an answer, or after the compute has gone
  int answers_ = 0;
  std::unique_ptr<ThreadedCompute> compute_;
};

TEST_F(ThreadedComputeTest, EveryOperationReachesTheExecutorInOrderAndIsAnsweredWithItsResult) {
  EXPECT_EQ(compute_->size(), 48);
  const Blob input = Blob::OfFloats({5});
  compute_->Load(input, Answer<Hash128>([](const auto& hash) { EXPECT_EQ(hash->high, 1u); }));
  compute_->Forward({Work(1), input, Blob(), 0, false},
                    Answer<ForwardOutput>([&](const auto& result) {
                      EXPECT_EQ(result->output.data(), input.data());
                    }));
  compute_->Backward({Work(1), input, SegmentId{0}, true},
                     Answer<BackwardOutput>([&](const auto& result) {
                       EXPECT_EQ(result->input_gradient.data(), input.data());
                     }));
  compute_->Drop(Work(2));
  compute_->Seal(Step{7}, Answer<std::vector<SegmentSummary>>(
                              [](const auto& result) { EXPECT_EQ(result->at(0).lane, 7u); }));
  compute_->Read(Step{7}, {SegmentId{0}, SegmentId{1}},
                 Answer<SegmentSum>([](const auto& result) { EXPECT_EQ(result->lane, 2u); }));
  compute_->Apply({}, {input, input, input},
                  Answer<Hash128>([](const auto& hash) { EXPECT_EQ(hash->high, 3u); }));
  compute_->FreeThrough(Step{7});
  compute_->Snapshot(Answer<Blob>([](const auto& b) { EXPECT_EQ(b->element_count(), 3); }));
  EXPECT_EQ(answers_, 0) << "no answer is given inline";
  ASSERT_TRUE(RunUntilAnswers(7));
  EXPECT_THAT(calls_,
              testing::ElementsAre("load", "forward " + ToString(Work(1)),
                                   "backward " + ToString(Work(1)), "drop " + ToString(Work(2)),
                                   "seal", "read", "apply", "free", "snapshot"));
}

TEST_F(ThreadedComputeTest, FailureOfTheExecutorIsTheAnswer) {
  compute_->Forward({Work(1), Blob(), Blob(), 0, false},
                    Answer<ForwardOutput>([](const absl::StatusOr<ForwardOutput>& result) {
                      EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
                    }));
  EXPECT_TRUE(RunUntilAnswers(1));
}

TEST_F(ThreadedComputeTest, CodecsRunBesideAnOperation) {
  std::promise<void> go;
  compute_ = std::make_unique<ThreadedCompute>(
      &loop_, std::make_unique<FakeExecutor>(&calls_),
      ThreadedCompute::Options{"compute", 8, [may = go.get_future().share()] { may.wait(); }});
  const Blob values = Blob::OfFloats({1, -1, 0.5f});
  compute_->Forward({Work(1), values, Blob(), 0, false}, Answer<ForwardOutput>([](const auto&) {}));
  Blob encoded;
  compute_->Encode(values, {Encoding::kF16}, Answer<Blob>([&](const auto& got) {
                     ASSERT_TRUE(got.ok());
                     encoded = *got;
                   }));
  ASSERT_TRUE(RunUntilAnswers(1)) << "while the device has not begun";
  EXPECT_EQ(encoded.encoding(), Encoding::kF16);
  compute_->Decode(encoded, Answer<Blob>([](const auto& got) {
                     ASSERT_TRUE(got.ok());
                     EXPECT_THAT(got->template As<float>(), testing::ElementsAre(1, -1, 0.5f));
                   }));
  ASSERT_TRUE(RunUntilAnswers(2));
  go.set_value();
  EXPECT_TRUE(RunUntilAnswers(3));
}

TEST_F(ThreadedComputeTest, WhatAnAnswerAsksForDuringShutdownIsCancelled) {
  std::vector<std::string> given;
  const auto give = [&given](std::string what, const absl::Status& status) {
    given.push_back(std::move(what) + " " + absl::StatusCodeToString(status.code()));
  };
  const Blob values = Blob::OfFloats({1});
  ThreadedCompute* const compute = compute_.get();
  const auto encode = [&](const char* what) {
    compute->Encode(values, {Encoding::kF16}, [&, what](auto got) { give(what, got.status()); });
  };
  const auto hash = [&](const char* what) {
    compute->Hash([&, what](auto got) { give(what, got.status()); });
  };
  compute_->Snapshot([&](auto got) {
    give("snapshot", got.status());
    compute->Drop(Work(1));
    encode("its encoding");
    hash("its hash");
  });
  compute_->Encode(values, {Encoding::kF16}, [&](auto got) {
    give("encoding", got.status());
    compute->FreeThrough(Step{1});
    hash("its hash");
    encode("its encoding");
  });
  compute_.reset();
  ASSERT_EQ(given.size(), 6u);
  EXPECT_THAT(given, testing::Contains("its encoding CANCELLED").Times(2));
  EXPECT_THAT(given, testing::Contains("its hash CANCELLED").Times(2));
}

TEST_F(ThreadedComputeTest, ShutdownAnswersEveryOperationOnce) {
  constexpr int kOperations = 200;
  int finished = 0;
  int cancelled = 0;
  for (int i = 0; i < kOperations; ++i) {
    compute_->Snapshot(Answer<Blob>([&](const absl::StatusOr<Blob>& result) {
      if (result.ok()) ++finished;
      if (result.status().code() == absl::StatusCode::kCancelled) ++cancelled;
    }));
  }
  compute_.reset();
  EXPECT_EQ(answers_, kOperations);
  EXPECT_EQ(finished + cancelled, kOperations);
  EXPECT_EQ(calls_.size(), static_cast<size_t>(finished)) << "a cancelled operation has not run";
}

}  // namespace
}  // namespace starling
