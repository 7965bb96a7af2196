// FakeEnv: an Env whose clock moves only when the test says so.
//
//   FakeEnv env;
//   env.Schedule(absl::Seconds(2), [&] { fired = true; });
//   env.Advance(absl::Seconds(3));   // runs the timers due on the way, in order
//
// Not thread-safe.
#ifndef STARLING_TESTS_TESTING_FAKE_ENV_H_
#define STARLING_TESTS_TESTING_FAKE_ENV_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "absl/time/time.h"
#include "runtime/base/rng.h"
#include "runtime/env/env.h"

namespace starling {

class FakeEnv : public Env {
 public:
  explicit FakeEnv(uint64_t seed = 1) : rng_(seed) {}

  absl::Time Now() const override { return now_; }
  TimerId Schedule(absl::Duration delay, std::function<void()> callback) override;
  void Cancel(TimerId timer) override;
  uint64_t Random() override { return rng_.Next(); }

  // Moves the clock by `duration`, stopping at every timer due on the way to run it (those set by
  // timers too). Timers see the time they were due at.
  void Advance(absl::Duration duration);
  // Moves the clock without running timers, as if the process had been stopped. The next Advance
  // runs those that are overdue, at the time it finds.
  void Sleep(absl::Duration duration) { now_ += duration; }
  // Moves the clock to the earliest timer and runs it. False if none is set.
  bool RunNext();

  size_t timers() const { return timers_.size(); }
  absl::Time next_timer() const;  // infinite future if none

 private:
  using Key = std::pair<absl::Time, uint64_t>;  // due, order of scheduling

  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  uint64_t next_id_ = 1;
  std::map<Key, std::function<void()>> timers_;
  std::map<uint64_t, Key> keys_;
  Rng rng_;
};

}  // namespace starling

#endif  // STARLING_TESTS_TESTING_FAKE_ENV_H_
