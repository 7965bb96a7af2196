// Env: time, timers and randomness as the protocol code sees them. Real peers get them from the
// reactor, simulated ones from the virtual world.
//
// Threads: every call and every timer callback happens on the peer's reactor thread.
#ifndef STARLING_RUNTIME_ENV_ENV_H_
#define STARLING_RUNTIME_ENV_ENV_H_

#include <cstdint>
#include <functional>

#include "absl/time/time.h"

namespace starling {

enum class TimerId : uint64_t {};
constexpr TimerId kNoTimer{0};

class Env {
 public:
  virtual ~Env() = default;

  // Monotonic: never steps back, and is constant within one callback. Its origin is arbitrary, so
  // two peers' times must not be compared.
  virtual absl::Time Now() const = 0;

  // How long the callback that is running has taken so far. Zero where callbacks take no time: in
  // the virtual world, and in tests. For accounts of where time goes, never to decide anything.
  virtual absl::Duration InThisCallback() const { return absl::ZeroDuration(); }

  // Calls `callback` once, `delay` from now or a little later, never inline. Callbacks that are due
  // at the same time run in the order they were scheduled.
  virtual TimerId Schedule(absl::Duration delay, std::function<void()> callback) = 0;

  // After this the callback does not run. Ignores kNoTimer and timers that have run.
  virtual void Cancel(TimerId timer) = 0;

  // 64 random bits. Deterministic in the virtual world.
  virtual uint64_t Random() = 0;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_ENV_ENV_H_
