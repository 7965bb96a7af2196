// What every Env must do, as a suite that any implementation can be run through:
//
//   class LoopHarness {                       // default-constructible
//    public:
//     Env& env();
//     void InCallback(std::function<void()> act);          // runs `act` as a callback of the Env
//     bool RunUntil(const std::function<bool()>& done);    // lets time pass; false after a long
//     wait
//   };
//   INSTANTIATE_TYPED_TEST_SUITE_P(EventLoop, EnvContract, LoopHarness);
#ifndef STARLING_TESTS_TESTING_ENV_CONTRACT_H_
#define STARLING_TESTS_TESTING_ENV_CONTRACT_H_

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/env/env.h"

namespace starling {

template <typename Harness>
class EnvContract : public ::testing::Test {
 protected:
  Env& env() { return harness_.env(); }
  bool RunUntil(const std::function<bool()>& done) { return harness_.RunUntil(done); }
  void InCallback(std::function<void()> act) { harness_.InCallback(std::move(act)); }
  std::function<void()> Note(std::string name) {
    return [this, name] { seen_.push_back(name); };
  }

  Harness harness_;
  std::vector<std::string> seen_;
};

TYPED_TEST_SUITE_P(EnvContract);

TYPED_TEST_P(EnvContract, TimersRunInTheOrderOfTheirTimes) {
  this->InCallback([this] {
    this->env().Schedule(absl::Milliseconds(30), this->Note("third"));
    this->env().Schedule(absl::Milliseconds(10), this->Note("first"));
    this->env().Schedule(absl::Milliseconds(20), this->Note("second"));
  });
  ASSERT_TRUE(this->RunUntil([this] { return this->seen_.size() == 3; }));
  EXPECT_THAT(this->seen_, testing::ElementsAre("first", "second", "third"));
}

TYPED_TEST_P(EnvContract, TimersOfOneTimeRunInTheOrderTheyWereScheduled) {
  std::vector<std::string> names;
  for (int i = 0; i < 20; ++i) names.push_back(std::to_string(i));
  this->InCallback([&] {
    for (const std::string& name : names) {
      this->env().Schedule(absl::Milliseconds(5), this->Note(name));
    }
  });
  ASSERT_TRUE(this->RunUntil([&] { return this->seen_.size() == names.size(); }));
  EXPECT_EQ(this->seen_, names);
}

TYPED_TEST_P(EnvContract, TimerOfNoDelayIsNotRunInline) {
  bool inline_call = false;
  this->InCallback([&] {
    this->env().Schedule(absl::ZeroDuration(), this->Note("timer"));
    inline_call = !this->seen_.empty();
  });
  ASSERT_TRUE(this->RunUntil([this] { return !this->seen_.empty(); }));
  EXPECT_FALSE(inline_call);
}

TYPED_TEST_P(EnvContract, NegativeDelayCountsAsNone) {
  this->InCallback([this] { this->env().Schedule(-absl::Hours(1), this->Note("timer")); });
  EXPECT_TRUE(this->RunUntil([this] { return !this->seen_.empty(); }));
}

TYPED_TEST_P(EnvContract, TimersAreNotEarlyAndTimeDoesNotStepBack) {
  absl::Time scheduled;
  std::vector<absl::Time> ran;
  this->InCallback([&] {
    scheduled = this->env().Now();
    for (int ms : {1, 7, 20}) {
      this->env().Schedule(absl::Milliseconds(ms), [&] { ran.push_back(this->env().Now()); });
    }
  });
  ASSERT_TRUE(this->RunUntil([&] { return ran.size() == 3; }));
  EXPECT_GE(ran[0] - scheduled, absl::Milliseconds(1));
  EXPECT_GE(ran[1] - scheduled, absl::Milliseconds(7));
  EXPECT_GE(ran[2] - scheduled, absl::Milliseconds(20));
  EXPECT_TRUE(std::is_sorted(ran.begin(), ran.end()));
}

TYPED_TEST_P(EnvContract, TimeIsConstantWithinACallback) {
  bool constant = true;
  this->InCallback([&] {
    const absl::Time before = this->env().Now();
    for (int i = 0; i < 10000; ++i) constant = constant && this->env().Now() == before;
    this->seen_.push_back("ran");
  });
  ASSERT_TRUE(this->RunUntil([this] { return !this->seen_.empty(); }));
  EXPECT_TRUE(constant);
}

TYPED_TEST_P(EnvContract, CancelledTimerDoesNotRun) {
  this->InCallback([this] {
    const TimerId cancelled = this->env().Schedule(absl::Milliseconds(1), this->Note("cancelled"));
    this->env().Schedule(absl::Milliseconds(10), this->Note("other"));
    this->env().Cancel(cancelled);
  });
  ASSERT_TRUE(this->RunUntil([this] { return !this->seen_.empty(); }));
  EXPECT_THAT(this->seen_, testing::ElementsAre("other"));
}

TYPED_TEST_P(EnvContract, TimerCancelledByAnotherOfTheSameTimeDoesNotRun) {
  this->InCallback([this] {
    auto second = std::make_shared<TimerId>(kNoTimer);
    this->env().Schedule(absl::Milliseconds(2), [this, second] {
      this->seen_.push_back("first");
      this->env().Cancel(*second);
    });
    *second = this->env().Schedule(absl::Milliseconds(2), this->Note("second"));
    this->env().Schedule(absl::Milliseconds(20), this->Note("last"));
  });
  ASSERT_TRUE(
      this->RunUntil([this] { return !this->seen_.empty() && this->seen_.back() == "last"; }));
  EXPECT_THAT(this->seen_, testing::ElementsAre("first", "last"));
}

TYPED_TEST_P(EnvContract, CancellingNothingAndWhatHasRunIsHarmless) {
  TimerId ran = kNoTimer;
  this->InCallback([&] { ran = this->env().Schedule(absl::ZeroDuration(), this->Note("once")); });
  ASSERT_TRUE(this->RunUntil([this] { return !this->seen_.empty(); }));
  this->InCallback([&] {
    this->env().Cancel(kNoTimer);
    this->env().Cancel(ran);
    this->env().Schedule(absl::Milliseconds(1), this->Note("after"));
  });
  ASSERT_TRUE(this->RunUntil([this] { return this->seen_.size() == 2; }));
  EXPECT_THAT(this->seen_, testing::ElementsAre("once", "after"));
}

TYPED_TEST_P(EnvContract, TimerMayScheduleItselfAgain) {
  std::function<void()> again = [&] {
    this->seen_.push_back("tick");
    if (this->seen_.size() < 5) this->env().Schedule(absl::ZeroDuration(), again);
  };
  this->InCallback([&] { this->env().Schedule(absl::ZeroDuration(), again); });
  EXPECT_TRUE(this->RunUntil([this] { return this->seen_.size() == 5; }));
}

TYPED_TEST_P(EnvContract, RandomNumbersDiffer) {
  std::vector<uint64_t> drawn;
  this->InCallback([&] {
    for (int i = 0; i < 100; ++i) drawn.push_back(this->env().Random());
  });
  ASSERT_TRUE(this->RunUntil([&] { return drawn.size() == 100; }));
  std::sort(drawn.begin(), drawn.end());
  EXPECT_EQ(std::adjacent_find(drawn.begin(), drawn.end()), drawn.end());
}

REGISTER_TYPED_TEST_SUITE_P(EnvContract, TimersRunInTheOrderOfTheirTimes,
                            TimersOfOneTimeRunInTheOrderTheyWereScheduled,
                            TimerOfNoDelayIsNotRunInline, NegativeDelayCountsAsNone,
                            TimersAreNotEarlyAndTimeDoesNotStepBack, TimeIsConstantWithinACallback,
                            CancelledTimerDoesNotRun,
                            TimerCancelledByAnotherOfTheSameTimeDoesNotRun,
                            CancellingNothingAndWhatHasRunIsHarmless, TimerMayScheduleItselfAgain,
                            RandomNumbersDiffer);

}  // namespace starling

#endif  // STARLING_TESTS_TESTING_ENV_CONTRACT_H_
