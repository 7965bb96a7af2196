// How an executor says that a loss is not a number, so that callers can tell it from a broken
// device: the step is then skipped or the run stops, as configured.
#ifndef STARLING_STAGES_NON_FINITE_H_
#define STARLING_STAGES_NON_FINITE_H_

#include "absl/status/status.h"
#include "runtime/base/ids.h"

namespace starling {

// Internal error that names the microbatch.
absl::Status NonFiniteLossError(MicrobatchId id);

// True for the error above, and for no other.
bool IsNonFiniteLoss(const absl::Status& status);

}  // namespace starling

#endif  // STARLING_STAGES_NON_FINITE_H_
