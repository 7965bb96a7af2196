// The decision log: RUN/decisions.jsonl, one line per record, synced before anything acts on it.
//
// The first line names the run. A torn line (the machine died while writing) was never acted on and
// is ignored. Epochs and eras are read from here when a trainer starts again, so they only grow.
#ifndef STARLING_RUNTIME_TRAINER_DECISION_LOG_H_
#define STARLING_RUNTIME_TRAINER_DECISION_LOG_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/env/file_system.h"
#include "runtime/wire/messages.h"

namespace starling {

struct DecisionLogState {
  RunId run{0};
  uint64_t last_number = 0;
  Epoch epoch{0};
  Era era{0};
  Step step{0};  // of the newest step record
};

// Makes a new log. already exists: there is one.
absl::Status CreateDecisionLog(Disk& disk, const std::string& path, RunId run);

// data loss: the first line is not a head.
absl::StatusOr<DecisionLogState> ReadDecisionLog(Disk& disk, const std::string& path);

std::string ToJsonLine(const Decision& decision);  // without the newline

class DecisionLog {
 public:
  // Outlived by `files`. Appends behind what is there; ends a torn line first.
  DecisionLog(Files* files, std::string path) : files_(files), path_(std::move(path)) {}

  // `done` once the record is on disk, or could not be put there.
  void Append(const Decision& decision, std::function<void(absl::Status)> done);

 private:
  Files* const files_;
  const std::string path_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_DECISION_LOG_H_
