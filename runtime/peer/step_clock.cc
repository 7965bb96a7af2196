#include "runtime/peer/step_clock.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"

namespace starling {
namespace {

uint64_t Nanoseconds(absl::Duration duration) {
  return static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Nanoseconds(duration)));
}

}  // namespace

void StepClock::Start(absl::Time now) {
  running_ = true;
  whole_ = sealed_ = no_taker_ = false;
  origin_ = now;
  cursor_ns_ = device_ns_ = gap_ns_ = reactor_ns_ = 0;
  times_ = at_seal_ = StepTimes();
}

// What has passed since the cursor goes where the state of things until now says.
void StepClock::Advance(absl::Time now) {
  if (!running_) return;
  const uint64_t now_ns = std::max(cursor_ns_, Nanoseconds(now - origin_));
  uint64_t passed = now_ns - cursor_ns_;
  cursor_ns_ = now_ns;
  const uint64_t reduced = std::min(passed, reactor_ns_);
  reactor_ns_ -= reduced;
  if (on_device_ > 0) {
    device_ns_ += passed;
    return;
  }
  Add(StepPart::kReducing, reduced);
  passed -= reduced;
  if (sealed_) {
    Add(StepPart::kDeciding, passed);
  } else if (decoding_ + encoding_ > 0) {
    Add(decoding_ > 0 ? StepPart::kDecoding : StepPart::kEncoding, passed);
  } else if (no_taker_) {
    Add(StepPart::kSlot, passed);
  } else {
    gap_ns_ += passed;
  }
}

void StepClock::EndGap(StepPart part) { Add(part, std::exchange(gap_ns_, 0)); }

void StepClock::OpPosted(absl::Time now, bool work) {
  Advance(now);
  if (work) EndGap(StepPart::kInput);
  ++on_device_;
}

void StepClock::OpDone(absl::Time now, StepPart part, absl::Duration took) {
  STARLING_CHECK(on_device_ > 0);
  Advance(now);
  --on_device_;
  const uint64_t left = std::exchange(device_ns_, 0);
  if (!IsPass(part)) return Add(part, left);
  const uint64_t computed = std::min(left, Nanoseconds(took));
  Add(part, computed);
  Add(StepPart::kHandover, left - computed);
  if (part == StepPart::kBackward) ++times_.microbatches;
}

void StepClock::Forget(absl::Time now) {
  Advance(now);
  on_device_ = decoding_ = encoding_ = 0;
  Add(StepPart::kHandover, std::exchange(device_ns_, 0));
}

uint32_t& StepClock::CodecsOf(StepPart part) {
  STARLING_CHECK(part == StepPart::kDecoding || part == StepPart::kEncoding);
  return part == StepPart::kDecoding ? decoding_ : encoding_;
}

void StepClock::CodecPosted(absl::Time now, StepPart part) {
  Advance(now);
  ++CodecsOf(part);
}

void StepClock::CodecDone(absl::Time now, StepPart part) {
  Advance(now);
  uint32_t& codecs = CodecsOf(part);
  STARLING_CHECK(codecs > 0);
  --codecs;
}

void StepClock::SetNoTaker(absl::Time now, bool no_taker) {
  Advance(now);
  no_taker_ = no_taker;
}

void StepClock::OnReactorReduced(absl::Time now, absl::Duration spent) {
  Advance(now);
  reactor_ns_ += Nanoseconds(spent);
}

void StepClock::OnAccepted(absl::Duration took) {
  ++times_.sent;
  times_.sending_ns += Nanoseconds(took);
}

StepTimes StepClock::Seal(absl::Time now) {
  if (!running_) return StepTimes();
  Advance(now);
  EndGap(StepPart::kIdle);
  // What runs on the device already is not done with, but its time has passed.
  Add(StepPart::kHandover, std::exchange(device_ns_, 0));
  sealed_ = true;
  at_seal_ = times_;
  return whole_ ? times_ : StepTimes();
}

void StepClock::OnVersion(absl::Time now) {
  if (!running_) return;
  Advance(now);
  if (!sealed_) return;  // what was applied was not sealed here: the step goes on
  times_ = times_.Since(at_seal_);
  at_seal_ = StepTimes();
  whole_ = true;
  sealed_ = false;
}

}  // namespace starling
