#include "runtime/reactor/worker.h"

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

using testing::ElementsAre;

constexpr absl::Duration kLongWait = absl::Seconds(30);

class WorkerTest : public ::testing::Test {
 protected:
  // A worker whose first piece of work waits until Open() is called.
  std::unique_ptr<Worker> BusyWorker(size_t bound) {
    auto worker = std::make_unique<Worker>(&loop_, Worker::Options{"test", bound, nullptr});
    worker->Run<int>(
        [this]() -> absl::StatusOr<int> {
          started_.set_value();
          gate_.get_future().wait();
          return 0;
        },
        Note("gate"));
    started_.get_future().wait();
    return worker;
  }
  void Open() { gate_.set_value(); }
  std::function<void(absl::StatusOr<int>)> Note(const std::string& name) {
    return [this, name](absl::StatusOr<int> result) {
      EXPECT_EQ(std::this_thread::get_id(), reactor_);
      seen_.push_back(name + " " +
                      (result.ok() ? std::to_string(*result)
                                   : absl::StatusCodeToString(result.status().code())));
    };
  }
  bool RunUntil(size_t count) {
    return loop_.RunUntil([this, count] { return seen_.size() >= count; }, kLongWait);
  }

  const std::thread::id reactor_ = std::this_thread::get_id();
  EventLoop loop_;
  std::promise<void> started_;
  std::promise<void> gate_;
  std::vector<std::string> seen_;
};

TEST_F(WorkerTest, WorkRunsOnOneOtherThreadInOrderAndIsAnsweredOnTheReactor) {
  bool started = false;
  Worker worker(&loop_, {"test", 100, [&] { started = true; }});
  std::vector<std::thread::id> threads;
  for (int i = 0; i < 50; ++i) {
    worker.Run<int>(
        [&, i]() -> absl::StatusOr<int> {
          EXPECT_TRUE(started);
          threads.push_back(std::this_thread::get_id());
          return i;
        },
        Note("work"));
  }
  ASSERT_TRUE(RunUntil(50));
  for (int i = 0; i < 50; ++i) EXPECT_EQ(seen_[i], "work " + std::to_string(i));
  EXPECT_NE(threads[0], reactor_);
  EXPECT_THAT(threads, testing::Each(threads[0]));
}

TEST_F(WorkerTest, FailureOfTheWorkIsItsAnswer) {
  Worker worker(&loop_, {});
  worker.Run<int>([]() -> absl::StatusOr<int> { return absl::DataLossError("torn"); },
                  Note("work"));
  ASSERT_TRUE(RunUntil(1));
  EXPECT_THAT(seen_, ElementsAre("work DATA_LOSS"));
}

TEST_F(WorkerTest, WorkBeyondTheBoundIsRefusedWithoutRunningAndNotInline) {
  std::unique_ptr<Worker> worker = BusyWorker(2);
  worker->Run<int>([] { return 1; }, Note("second"));
  worker->Run<int>(
      []() -> absl::StatusOr<int> {
        ADD_FAILURE() << "ran";
        return 2;
      },
      Note("third"));
  EXPECT_TRUE(seen_.empty());
  ASSERT_TRUE(RunUntil(1));
  EXPECT_THAT(seen_, ElementsAre("third RESOURCE_EXHAUSTED"));
  Open();
  ASSERT_TRUE(RunUntil(3));
  worker->Run<int>([] { return 4; }, Note("room again"));
  ASSERT_TRUE(RunUntil(4));
  EXPECT_EQ(seen_.back(), "room again 4");
}

TEST_F(WorkerTest, ReleasesAreNotRefusedWhenTheQueueIsFull) {
  std::unique_ptr<Worker> worker = BusyWorker(1);
  std::promise<void> released;
  worker->Release([&] { released.set_value(); });
  Open();
  released.get_future().wait();
}

TEST_F(WorkerTest, DestructionAnswersWhatRunsWithItsResultAndTheRestWithCancelledEachOnce) {
  auto worker = std::make_unique<Worker>(&loop_, Worker::Options{"test", 3, nullptr});
  Worker* const raw = worker.get();
  raw->Run<int>(
      [&, raw]() -> absl::StatusOr<int> {
        started_.set_value();
        while (!raw->stopping()) std::this_thread::yield();
        return 1;
      },
      Note("running"));
  started_.get_future().wait();
  auto held = std::make_shared<int>(0);
  for (int i = 1; i <= 3; ++i) {
    raw->Run<int>(
        [held]() -> absl::StatusOr<int> {
          ADD_FAILURE() << "ran";
          return 0;
        },
        Note("work" + std::to_string(i)));
  }
  raw->Release([held] { ADD_FAILURE() << "released"; });
  worker.reset();
  EXPECT_THAT(seen_, ElementsAre("running 1", "work1 CANCELLED", "work2 CANCELLED",
                                 "work3 RESOURCE_EXHAUSTED"));
  EXPECT_EQ(held.use_count(), 1);
  loop_.RunUntil([] { return false; }, absl::Milliseconds(1));
  EXPECT_EQ(seen_.size(), 4u) << "nothing is left in the loop";
}

TEST_F(WorkerTest, WorkAskedForWhileItIsDestroyedIsCancelled) {
  auto worker = std::make_unique<Worker>(&loop_, Worker::Options());
  Worker* const raw = worker.get();
  raw->Run<int>([] { return 1; },
                [&, raw](absl::StatusOr<int> result) {
                  Note("first")(result);
                  raw->Run<int>([] { return 2; }, Note("again"));
                });
  worker.reset();
  ASSERT_EQ(seen_.size(), 2u);
  EXPECT_EQ(seen_[1], "again CANCELLED");
}

}  // namespace
}  // namespace starling
