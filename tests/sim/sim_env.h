// SimEnv: time, timers and randomness of one life of one node, out of the virtual world.
//
// A restarted process gets a new SimEnv with other random numbers. Once stopped (its process was
// killed) it schedules nothing any more; the world drops what was pending.
#ifndef STARLING_TESTS_SIM_SIM_ENV_H_
#define STARLING_TESTS_SIM_SIM_ENV_H_

#include <cstdint>
#include <functional>

#include "runtime/base/rng.h"
#include "runtime/env/env.h"
#include "tests/sim/scheduler.h"

namespace starling::sim {

class SimEnv : public Env {
 public:
  // The scheduler outlives the SimEnv.
  SimEnv(Scheduler* scheduler, NodeId node, uint64_t seed)
      : scheduler_(scheduler), node_(node), rng_(seed) {}

  absl::Time Now() const override { return scheduler_->Now(); }

  TimerId Schedule(absl::Duration delay, std::function<void()> callback) override {
    if (stopped_) return kNoTimer;
    return static_cast<TimerId>(
        scheduler_->After(delay, node_, EventKind::kTimer, "timer", std::move(callback)));
  }

  void Cancel(TimerId timer) override { scheduler_->Cancel(static_cast<uint64_t>(timer)); }

  uint64_t Random() override { return rng_.Next(); }

  void Stop() { stopped_ = true; }

 private:
  Scheduler* const scheduler_;
  const NodeId node_;
  Rng rng_;
  bool stopped_ = false;
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_SIM_ENV_H_
