// The decision log: RUN/decisions.jsonl, one line per record, synced before anything acts on it.
//
// The first line names the run. A torn line (the machine died while writing) was never acted on and
// is ignored. Epochs and eras are read from here when a trainer starts again, so they only grow;
// and so are the newest decision and who was a member then, for going on from live replicas.
#ifndef STARLING_RUNTIME_TRAINER_DECISION_LOG_H_
#define STARLING_RUNTIME_TRAINER_DECISION_LOG_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/env/file_system.h"
#include "runtime/trainer/decision_json.h"
#include "runtime/wire/messages.h"

namespace starling {

struct DecisionLogState {
  RunId run{0};
  uint64_t last_number = 0;
  Epoch epoch{0};
  Era era{0};
  Step step{0};                           // of the newest step record
  std::optional<Decision> newest;         // of the newest era; none: it has decided no step
  std::map<Incarnation, Member> members;  // after the newest record
  std::set<Step> skipped;                 // steps whose newest record says skip
};

// Makes a new log. already exists: there is one.
absl::Status CreateDecisionLog(Disk& disk, const std::string& path, RunId run);

// data loss: the first line is not a head.
absl::StatusOr<DecisionLogState> ReadDecisionLog(Disk& disk, const std::string& path);

class DecisionLog {
 public:
  // Outlived by `files`. Appends behind what is there; ends a torn line first.
  DecisionLog(Files* files, std::string path) : files_(files), path_(std::move(path)) {}

  // `done` once the record is on disk, or could not be put there.
  void Append(const Decision& decision, std::function<void(absl::Status)> done);

 private:
  Files* const files_;
  const std::string path_;
  // The last line is known to be whole. Looked at by the jobs only, which run one after another.
  std::shared_ptr<bool> whole_ = std::make_shared<bool>(false);
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_DECISION_LOG_H_
