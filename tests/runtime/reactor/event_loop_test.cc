#include "runtime/reactor/event_loop.h"

#include <signal.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/env_contract.h"

namespace starling {
namespace {

using testing::ElementsAre;

constexpr absl::Duration kLongWait = absl::Seconds(30);

class LoopHarness {
 public:
  Env& env() { return loop_; }
  void InCallback(std::function<void()> act) { loop_.Schedule(absl::ZeroDuration(), act); }
  bool RunUntil(const std::function<bool()>& done) { return loop_.RunUntil(done, kLongWait); }

 private:
  EventLoop loop_;
};
INSTANTIATE_TYPED_TEST_SUITE_P(EventLoop, EnvContract, LoopHarness);

class EventLoopTest : public ::testing::Test {
 protected:
  EventLoopTest() {
    EXPECT_EQ(pipe(pipe_), 0);
    EventLoop::Options options;
    options.clock = [this] { return clock_; };
    stepped_ = std::make_unique<EventLoop>(std::move(options));
  }
  ~EventLoopTest() override {
    close(pipe_[0]);
    close(pipe_[1]);
  }
  void WriteByte() { ASSERT_EQ(write(pipe_[1], "x", 1), 1); }
  void ReadByte() {
    char byte = 0;
    ASSERT_EQ(read(pipe_[0], &byte, 1), 1);
  }
  std::function<bool()> Seen(size_t count) {
    return [this, count] { return seen_.size() >= count; };
  }

  std::vector<std::string> seen_;
  int pipe_[2];
  EventLoop loop_;
  // A loop whose clock stands still until it is moved.
  absl::Time clock_ = absl::UnixEpoch() + absl::Hours(1);
  std::unique_ptr<EventLoop> stepped_;
};

TEST_F(EventLoopTest, ReadableDescriptorCallsBackUntilItIsReadEmpty) {
  const auto watch = loop_.AddReadable(pipe_[0], [this] {
    ReadByte();
    seen_.push_back("read");
  });
  WriteByte();
  WriteByte();
  ASSERT_TRUE(loop_.RunUntil(Seen(2), kLongWait));
  loop_.Remove(watch);
  WriteByte();
  loop_.Schedule(absl::Milliseconds(1), [this] { seen_.push_back("timer"); });
  ASSERT_TRUE(loop_.RunUntil(Seen(3), kLongWait));
  EXPECT_THAT(seen_, ElementsAre("read", "read", "timer"));
}

TEST_F(EventLoopTest, CallbackMayRemoveItselfAndOthers) {
  const int same = dup(pipe_[0]);
  EventLoop::WatchId first{};
  EventLoop::WatchId second{};
  auto remove_both = [&](const char* name) {
    seen_.push_back(name);
    loop_.Remove(first);
    loop_.Remove(second);
  };
  first = loop_.AddReadable(pipe_[0], [&] { remove_both("first"); });
  second = loop_.AddReadable(same, [&] { remove_both("second"); });
  WriteByte();
  ASSERT_TRUE(loop_.RunUntil(Seen(1), kLongWait));
  loop_.Schedule(absl::Milliseconds(1), [this] { seen_.push_back("timer"); });
  ASSERT_TRUE(loop_.RunUntil(Seen(2), kLongWait));
  close(same);
  EXPECT_THAT(seen_, ElementsAre("first", "timer"));
}

TEST_F(EventLoopTest, PostsOfOneThreadRunInOrderOnTheLoopsThread) {
  std::thread other([this] {
    for (int i = 0; i < 100; ++i) {
      EXPECT_TRUE(loop_.Post([this, i] { seen_.push_back(std::to_string(i)); }));
    }
  });
  ASSERT_TRUE(loop_.RunUntil(Seen(100), kLongWait));
  other.join();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(seen_[i], std::to_string(i));
}

TEST_F(EventLoopTest, FullMailboxRefusesThePost) {
  EventLoop::Options options;
  options.mailbox_bound = 2;
  EventLoop loop(std::move(options));
  EXPECT_TRUE(loop.Post([] {}));
  EXPECT_TRUE(loop.Post([this] { seen_.push_back("last"); }));
  EXPECT_FALSE(loop.Post([this] { seen_.push_back("refused"); }));
  ASSERT_TRUE(loop.RunUntil(Seen(1), kLongWait));
  EXPECT_TRUE(loop.Post([this] { seen_.push_back("room again"); }));
  ASSERT_TRUE(loop.RunUntil(Seen(2), kLongWait));
  EXPECT_THAT(seen_, ElementsAre("last", "room again"));
}

TEST_F(EventLoopTest, WhatHasNotRunIsDestroyedWithTheLoop) {
  auto held = std::make_shared<int>(0);
  {
    EventLoop loop;
    EXPECT_TRUE(loop.Post([held, &loop] { loop.Stop(); }));
    EXPECT_TRUE(loop.Post([held] { FAIL() << "ran after the stop"; }));
    loop.Schedule(absl::Hours(1), [held] {});
    loop.AddReadable(pipe_[0], [held] {});
    loop.Run();
    EXPECT_TRUE(loop.Post([held] {}));
    EXPECT_EQ(held.use_count(), 5);
  }
  EXPECT_EQ(held.use_count(), 1);
}

TEST_F(EventLoopTest, CallbackThatOwnsAUserOfTheLoopIsDestroyedWithIt) {
  struct Owner {
    EventLoop* loop;
    TimerId timer;
    ~Owner() { loop->Cancel(timer); }
  };
  auto loop = std::make_unique<EventLoop>();
  const TimerId timer = loop->Schedule(absl::Hours(1), [] {});
  std::shared_ptr<Owner> owner(new Owner{loop.get(), timer});
  loop->Schedule(absl::Hours(2), [owner] {});
  EXPECT_TRUE(loop->Post([owner] {}));
  owner.reset();
  loop.reset();
}

TEST_F(EventLoopTest, StopFromAnotherThreadEndsTheRun) {
  std::thread other([this] { loop_.Stop(); });
  loop_.Run();
  other.join();
}

TEST_F(EventLoopTest, StopBeforeTheRunEndsItAtOnceAndTheNextOneRuns) {
  loop_.Stop();
  loop_.Run();
  loop_.Schedule(absl::ZeroDuration(), [this] { seen_.push_back("ran"); });
  EXPECT_TRUE(loop_.RunUntil(Seen(1), kLongWait));
}

TEST_F(EventLoopTest, RunUntilGivesUpAtItsLimit) {
  EXPECT_FALSE(loop_.RunUntil([] { return false; }, absl::Milliseconds(5)));
}

TEST_F(EventLoopTest, SignalCallsBackAndItsFormerDispositionReturns) {
  static int former_calls = 0;
  former_calls = 0;
  signal(SIGUSR1, [](int) { ++former_calls; });
  {
    EventLoop loop;
    ASSERT_TRUE(loop.AddSignal(SIGUSR1, [this] { seen_.push_back("signal"); }).ok());
    EXPECT_EQ(loop.AddSignal(SIGUSR1, [] {}).code(), absl::StatusCode::kInvalidArgument);
    raise(SIGUSR1);
    EXPECT_TRUE(seen_.empty()) << "not inline";
    ASSERT_TRUE(loop.RunUntil(Seen(1), kLongWait));
    EXPECT_EQ(former_calls, 0);
  }
  raise(SIGUSR1);
  EXPECT_EQ(former_calls, 1);
  signal(SIGUSR1, SIG_DFL);
}

TEST_F(EventLoopTest, SignalThatCannotBeCaughtIsRefused) {
  EXPECT_EQ(loop_.AddSignal(SIGKILL, [] {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(loop_.AddSignal(0, [] {}).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(EventLoopTest, LoopThatSleptReadsBeforeItRunsOverdueTimersAndTellsHowLong) {
  absl::Duration slept;
  stepped_->SetSleptHandler([&](absl::Duration duration) {
    slept = duration;
    seen_.push_back("slept");
  });
  stepped_->AddReadable(pipe_[0], [this] {
    ReadByte();
    seen_.push_back("read");
  });
  stepped_->Schedule(absl::Milliseconds(100), [this] { seen_.push_back("timer"); });
  // The process is stopped within this callback; meanwhile something arrives.
  EXPECT_TRUE(stepped_->Post([this] {
    clock_ += absl::Seconds(10);
    WriteByte();
    WriteByte();
  }));
  ASSERT_TRUE(stepped_->RunUntil(Seen(4), absl::Hours(1)));
  EXPECT_THAT(seen_, ElementsAre("read", "read", "slept", "timer"));
  EXPECT_EQ(slept, absl::Seconds(10) - absl::Milliseconds(100));
}

TEST_F(EventLoopTest, SleptHandlerMayMoveTheDeadline) {
  const TimerId deadline =
      stepped_->Schedule(absl::Seconds(5), [this] { seen_.push_back("dead"); });
  stepped_->SetSleptHandler([&](absl::Duration /*slept*/) {
    stepped_->Cancel(deadline);
    stepped_->Schedule(absl::Seconds(5), [this] { seen_.push_back("moved"); });
  });
  stepped_->Schedule(absl::Seconds(61), [this] { seen_.push_back("a second later"); });
  // Time goes on in small steps after the sleep.
  std::function<void()> step = [&] {
    clock_ += absl::Milliseconds(100);
    EXPECT_TRUE(stepped_->Post(step));
  };
  EXPECT_TRUE(stepped_->Post([&] {
    clock_ += absl::Seconds(60);
    EXPECT_TRUE(stepped_->Post(step));
  }));
  ASSERT_TRUE(stepped_->RunUntil(Seen(2), absl::Hours(1)));
  EXPECT_THAT(seen_, ElementsAre("a second later", "moved"));
}

TEST_F(EventLoopTest, LoopThatIsALittleLateHasNotSlept) {
  stepped_->SetSleptHandler([this](absl::Duration) { seen_.push_back("slept"); });
  stepped_->Schedule(absl::Milliseconds(100), [this] { seen_.push_back("timer"); });
  EXPECT_TRUE(stepped_->Post([this] { clock_ += absl::Milliseconds(400); }));
  ASSERT_TRUE(stepped_->RunUntil(Seen(1), absl::Hours(1)));
  EXPECT_THAT(seen_, ElementsAre("timer"));
}

TEST_F(EventLoopTest, SameSeedGivesTheSameNumbers) {
  EventLoop::Options options;
  options.seed = 7;
  EventLoop first(options);
  EventLoop second(options);
  EXPECT_EQ(first.Random(), second.Random());
  EXPECT_NE(EventLoop().Random(), EventLoop().Random());
}

using EventLoopDeathTest = EventLoopTest;

TEST_F(EventLoopDeathTest, UseFromAnotherThreadIsAProgrammersError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(std::thread([this] { loop_.Schedule(absl::ZeroDuration(), [] {}); }).join(),
               "reactor thread");
}

}  // namespace
}  // namespace starling
