// RunRecords: everything a run writes down and says while it goes on: metrics.jsonl, events.jsonl,
// progress on stdout. One thread. Reads the wall clock, for the times of events.
#ifndef STARLING_RUNTIME_APP_RUN_RECORDS_H_
#define STARLING_RUNTIME_APP_RUN_RECORDS_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/app/run_plan.h"
#include "runtime/observe/events_writer.h"
#include "runtime/observe/metrics_writer.h"
#include "runtime/observe/progress_printer.h"

namespace starling {

class RunRecords {
 public:
  // Opens the files of the plan's directory, behind what is in them.
  static absl::StatusOr<std::unique_ptr<RunRecords>> Open(Disk& disk, const RunPlan& plan);

  void OnStep(const StepReport& report);
  void OnEvent(const Event& event);
  void OnEvaluation(Version version, double loss);
  void Say(const std::string& sentence) { progress_.Say(sentence); }

  const std::optional<double>& validation_loss() const { return validation_loss_; }
  const std::string& checkpoint() const { return checkpoint_; }  // the newest saved, or the first

 private:
  RunRecords(const RunPlan& plan, std::unique_ptr<LineFile> metrics,
             std::unique_ptr<LineFile> events);

  MetricsWriter metrics_;
  EventsWriter events_;
  ProgressPrinter progress_;
  const std::string loss_unit_;  // a loss is per "byte", "token" or "target"
  std::optional<double> validation_loss_;
  std::string checkpoint_;
};

// Before the first step: the model, what a replica of each stage holds, the text, the directory.
void PrintRunHeader(const RunPlan& plan);

// After the last one: validation loss, checkpoint, what to try next, and a sample from the model
// where every step was taken (`complete`).
void PrintRunEnd(const RunPlan& plan, const RunRecords& records, bool complete);

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_RUN_RECORDS_H_
