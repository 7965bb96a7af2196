// SlowWork: which microbatches of a step have shown no sign of life for too long.
//
// A sign is a notice about the microbatch, or that it was sent. How long it may take between two is
// learnt (median plus deviations): first from sending to the first notice, then from notice to
// notice. What was overdue and mended is given twice the time with each try.
//
// Pure: told the time. One per step; Pace outlives it and lasts from step to step.
#ifndef STARLING_RUNTIME_TRAINER_SLOW_WORK_H_
#define STARLING_RUNTIME_TRAINER_SLOW_WORK_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "runtime/base/ids.h"
#include "runtime/base/learned_duration.h"

namespace starling {

// What steps have taught.
struct Pace {
  LearnedDuration first_sign;
  LearnedDuration next_sign;
  LearnedDuration ask;   // until a replica says what it holds
  LearnedDuration seal;  // until it has sealed
};

class SlowWork {
 public:
  struct Late {
    MicrobatchId id;
    uint32_t tries = 0;  // repairs so far
    std::string reason;  // "microbatch 3 gave no sign for 2.1 s (limit 1.0 s: ...)"
  };

  SlowWork(LimitBounds bounds, Pace* pace) : bounds_(bounds), pace_(pace) {}

  void OnSent(const MicrobatchId& id, absl::Time now);
  void OnNotice(const MicrobatchId& id, Incarnation from, absl::Time now);
  // Something was done about it.
  void OnRepaired(const MicrobatchId& id, absl::Time now);
  void OnDone(const MicrobatchId& id) { open_.erase(id); }
  // The loop slept: nobody was heard meanwhile, so everyone has all the time again.
  void Restart(absl::Time now);

  std::vector<Late> Overdue(absl::Time now) const;
  // When the next one will be, as known now; infinite future if nothing is open.
  absl::Time NextDue() const;
  // No notice of it since then for longer than between two notices of one microbatch.
  bool Quiet(Incarnation replica, absl::Time since, absl::Time now) const;

 private:
  struct Open {
    absl::Time since;
    bool noticed = false;
    uint32_t tries = 0;
  };
  LearnedLimit LimitOf(const Open& open) const;

  const LimitBounds bounds_;
  Pace* const pace_;
  std::map<MicrobatchId, Open> open_;
  std::map<Incarnation, absl::Time> heard_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_SLOW_WORK_H_
