// TrainerObserver: what a trainer tells the outside as the run goes on. The app turns it into
// metrics.jsonl, events.jsonl and progress lines; the virtual world into checks and a trace.
#ifndef STARLING_RUNTIME_TRAINER_OBSERVER_H_
#define STARLING_RUNTIME_TRAINER_OBSERVER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/base/event.h"
#include "runtime/wire/messages.h"

namespace starling {

// Where a replica's time went from the last seal of the step before to that of the step.
struct ReplicaTimes {
  Incarnation replica;
  StageId stage{0};
  StepTimes times;
};

// One decided step, as a line of metrics.jsonl.
struct StepReport {
  Step step{0};
  double loss = 0;           // mean over tokens, at version step - 1
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  int64_t tokens = 0;
  double tokens_per_s = 0;  // from the previous decision to this one, waits included
  double step_s = 0;
  std::vector<uint32_t> replicas;  // per stage
  uint32_t retries = 0;
  uint32_t replayed = 0;
  uint64_t bytes_forward = 0;  // of boundaries that replicas sent, as encoded
  uint64_t bytes_backward = 0;
  bool lane_ok = true;
  bool skipped = false;
  std::vector<ReplicaTimes> times;  // of those that have taken part in the whole step
};

// Called on the reactor thread. Implementations must not call back into the trainer.
class TrainerObserver {
 public:
  virtual ~TrainerObserver() = default;
  virtual void OnEvent(const Event& event) = 0;
  // A record has been persisted; apply has not left yet.
  virtual void OnDecision(const Decision& decision) = 0;
  virtual void OnStep(const StepReport& report) = 0;
  virtual void OnEvaluation(Version version, double loss) = 0;
  // Called once. ok: every step was taken, or the run was stopped as asked; `summary` says which.
  virtual void OnFinished(const absl::Status& status, const std::string& summary) = 0;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_OBSERVER_H_
