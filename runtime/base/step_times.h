// StepTimes: where a replica's step went, as named parts of the wall time that add up to all of it.
//
// At each moment the first of these that holds names the part:
//   1. The device has something to do. Then the part is what it does. Of a forward or backward pass
//      that is as long as the device says; the rest, until the answer is there, is `handover`: from
//      thread to thread.
//   2. The device has nothing, and the reactor adds up or encodes pieces of the round: reducing.
//   3. The step is sealed here and the next has not begun: deciding, that is waiting for others.
//   4. A boundary that came is being decoded, or one that goes encoded. (Beside a pass both take no
//      time of the step.)
//   5. An output is ready that no replica of the next stage takes: slot.
//   6. More work of the step came afterwards: input. None did until the seal: idle.
#ifndef STARLING_RUNTIME_BASE_STEP_TIMES_H_
#define STARLING_RUNTIME_BASE_STEP_TIMES_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace starling {

enum class StepPart : uint8_t {
  kForward,
  kBackward,
  kEvaluating,  // forward passes of an evaluation
  kDecoding,    // of boundaries, while the device has nothing to do
  kEncoding,    // likewise
  kHandover,
  kInput,     // waiting for microbatches or gradients
  kSlot,      // waiting for somebody to take an output
  kIdle,      // nothing of the step is left for it
  kReducing,  // freezing, summing and adding up gradients
  kDeciding,  // from its seal on: waiting for others' part of the round, and for the decision
  kApplying,
  kCopying,  // the state is copied (checkpoints, newcomers), hashed or loaded
};
constexpr size_t kStepParts = 13;

// Of a microbatch, as far as the device works on it.
constexpr bool IsPass(StepPart part) {
  return part == StepPart::kForward || part == StepPart::kBackward || part == StepPart::kEvaluating;
}

// "forward", "input", ...: as in metrics.jsonl and `starling status`.
const char* ToString(StepPart part);

struct StepTimes {
  std::array<uint64_t, kStepParts> parts{};  // nanoseconds
  uint32_t microbatches = 0;                 // whose backward pass it has run
  uint32_t sent = 0;                         // outputs that the next stage has accepted
  uint64_t sending_ns = 0;                   // of those, from sending to hearing of it, summed

  uint64_t& operator[](StepPart part) { return parts[static_cast<size_t>(part)]; }
  uint64_t operator[](StepPart part) const { return parts[static_cast<size_t>(part)]; }
  // All parts together, nanoseconds. 0: nothing was measured.
  uint64_t total() const;

  // Of what this counts, without `before`, which was measured on the way.
  StepTimes Since(const StepTimes& before) const;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_BASE_STEP_TIMES_H_
