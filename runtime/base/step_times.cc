#include "runtime/base/step_times.h"

#include <numeric>

namespace starling {

const char* ToString(StepPart part) {
  switch (part) {
    case StepPart::kForward:
      return "forward";
    case StepPart::kBackward:
      return "backward";
    case StepPart::kEvaluating:
      return "evaluating";
    case StepPart::kDecoding:
      return "decoding";
    case StepPart::kEncoding:
      return "encoding";
    case StepPart::kHandover:
      return "handover";
    case StepPart::kInput:
      return "input";
    case StepPart::kSlot:
      return "slot";
    case StepPart::kIdle:
      return "idle";
    case StepPart::kReducing:
      return "reducing";
    case StepPart::kDeciding:
      return "deciding";
    case StepPart::kApplying:
      return "applying";
    case StepPart::kCopying:
      return "copying";
  }
  return "?";
}

uint64_t StepTimes::total() const {
  return std::accumulate(parts.begin(), parts.end(), uint64_t{0});
}

StepTimes StepTimes::Since(const StepTimes& before) const {
  StepTimes since = *this;
  for (size_t i = 0; i < kStepParts; ++i) since.parts[i] -= before.parts[i];
  since.microbatches -= before.microbatches;
  since.sent -= before.sent;
  since.sending_ns -= before.sending_ns;
  return since;
}

}  // namespace starling
