// Decision records as lines of JSON, and back: what decision_log.h writes and a restarted trainer
// reads. Pure.
#ifndef STARLING_RUNTIME_TRAINER_DECISION_JSON_H_
#define STARLING_RUNTIME_TRAINER_DECISION_JSON_H_

#include <string>

#include "absl/status/statusor.h"
#include "runtime/wire/messages.h"

namespace starling {

// Without the newline. Numbers are written so that they are read back to the bit; one that is not
// finite becomes null, and is read back as not a number.
std::string ToJsonLine(const Decision& decision);

// data loss: the line is no record, as a torn one; or something in it is missing or malformed.
absl::StatusOr<Decision> ParseDecision(const std::string& line);

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_DECISION_JSON_H_
