#include "stages/non_finite.h"

#include "absl/strings/cord.h"

namespace starling {
namespace {

constexpr char kPayload[] = "starling/non-finite-loss";

}  // namespace

absl::Status NonFiniteLossError(MicrobatchId id) {
  absl::Status status = absl::InternalError("non-finite loss at " + ToString(id));
  status.SetPayload(kPayload, absl::Cord());
  return status;
}

bool IsNonFiniteLoss(const absl::Status& status) { return status.GetPayload(kPayload).has_value(); }

}  // namespace starling
