// StepClock: a replica's account of its wall time, in the parts that runtime/base/step_times.h
// names. They add up to the time that passed, to the nanosecond: each moment is in exactly one.
//
// A step's times are from seal to seal: the round and the update that ended the step before, then
// the step's own work until its (last) seal took effect. So they cover about the time between two
// decisions. The first step after Start is not whole and has none.
//
// It is told what happens, and when. Reactor thread; no allocation; a call is a few additions.
#ifndef STARLING_RUNTIME_PEER_STEP_CLOCK_H_
#define STARLING_RUNTIME_PEER_STEP_CLOCK_H_

#include <cstdint>

#include "absl/time/time.h"
#include "runtime/base/step_times.h"

namespace starling {

class StepClock {
 public:
  // From now on time is accounted for; what was before is forgotten.
  void Start(absl::Time now);
  // Until the next Start nothing is.
  void Stop() { running_ = false; }
  bool running() const { return running_; }

  // The device gets an operation. `work`: a pass of the step, so that what it waited for was input.
  void OpPosted(absl::Time now, bool work);
  // The operation that was posted first among those not done is done; it was `part`. `took`: of a
  // pass, on the device.
  void OpDone(absl::Time now, StepPart part, absl::Duration took = absl::ZeroDuration());
  // A boundary is decoded or encoded beside the device from here on, or is no longer.
  void CodecPosted(absl::Time now, StepPart part);
  void CodecDone(absl::Time now, StepPart part);
  // The answers to operations and codecs that are not done will not be heard of here.
  void Forget(absl::Time now);

  // An output is ready that nobody takes; or they are about to be offered again.
  void SetNoTaker(absl::Time now, bool no_taker);
  // The reactor has added up or encoded for so long, in the callback that began `now`.
  void OnReactorReduced(absl::Time now, absl::Duration spent);
  // The next stage has accepted an output, so long after it was sent.
  void OnAccepted(absl::Duration took);

  // The seal took effect: the step's times until now, all zero if it is not whole. Asked again for
  // a later seal of the step, they cover the time until that one.
  StepTimes Seal(absl::Time now);
  // The step's decision is applied from here on: the next step's times begin at its last seal.
  void OnVersion(absl::Time now);

 private:
  uint32_t& CodecsOf(StepPart part);
  void Advance(absl::Time now);
  void Add(StepPart part, uint64_t ns) { times_[part] += ns; }
  void EndGap(StepPart part);

  bool running_ = false;
  bool whole_ = false;  // times_ begin at a seal
  bool sealed_ = false;
  bool no_taker_ = false;
  uint32_t on_device_ = 0;  // operations posted and not done
  uint32_t decoding_ = 0;   // boundaries
  uint32_t encoding_ = 0;
  absl::Time origin_;
  uint64_t cursor_ns_ = 0;   // since origin_: accounted for up to here
  uint64_t device_ns_ = 0;   // of the operation that runs, what has passed so far
  uint64_t gap_ns_ = 0;      // of waiting for input, or of being idle: what follows will tell
  uint64_t reactor_ns_ = 0;  // spent reducing behind the cursor's place
  StepTimes times_;
  StepTimes at_seal_;  // what of them the newest seal has told
};

}  // namespace starling

#endif  // STARLING_RUNTIME_PEER_STEP_CLOCK_H_
