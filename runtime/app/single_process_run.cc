#include <signal.h>

#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/app/commands.h"
#include "runtime/app/linked_layers.h"
#include "runtime/app/run_layers.h"
#include "runtime/app/run_records.h"
#include "runtime/app/terminal.h"
#include "runtime/app/threads.h"
#include "runtime/base/status_macros.h"
#include "runtime/reactor/posix_disk.h"
#include "runtime/reactor/signal_pipe.h"
#include "stages/initial_state.h"
#include "stages/model_layout.h"
#include "stages/single_process.h"
#include "stages/torch_executor.h"

namespace starling {
namespace {

class SingleRun {
 public:
  SingleRun(RunPlan plan, std::unique_ptr<RunRecords> records)
      : plan_(std::move(plan)),
        records_(std::move(records)),
        store_(plan_.directory + "/checkpoints") {}

  absl::Status Run();

 private:
  absl::Status Begin();
  absl::Status TakeStep(Step step);
  absl::Status EvaluateIfDue(int64_t version, bool last);
  void Save(int64_t version);
  bool Interrupted();

  RunPlan plan_;
  PosixDisk disk_;
  const std::unique_ptr<RunRecords> records_;
  CheckpointStore store_;
  std::unique_ptr<SignalPipe> signals_ = std::make_unique<SignalPipe>();
  std::unique_ptr<TorchExecutor> executor_;
  std::unique_ptr<SingleProcess> process_;
  uint64_t skipped_ = 0;
  absl::Time last_decision_;
};

absl::Status SingleRun::Begin() {
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) STARLING_RETURN_IF_ERROR(signals_->Add(signal));
  const RunConfig& config = plan_.config;
  TorchExecutor::Options options;
  options.model = config.model;
  options.layers = LayerRange{0, config.model.layers};
  options.seed = config.train.seed;
  options.keep_older = config.train.delayed_commit;
  options.threads = ThreadsOfOneProcess(config.local);
  options.memory = config.local.memory;
  options.precision = config.train.precision;
  if (config.model.own()) {
    options.linked = LinkedLayers();
    STARLING_ASSIGN_OR_RETURN(options.own, ReadLayerSources(disk_, LayersFolder(plan_.directory),
                                                            config.model, options.layers));
  }
  STARLING_ASSIGN_OR_RETURN(executor_, TorchExecutor::Create(options));
  Blob state;  // version 0
  if (config.model.own()) {
    STARLING_ASSIGN_OR_RETURN(state, LoadStage(disk_, plan_.start, executor_->layout()));
  } else {
    state = InitialState(executor_->layout(), config.train.seed);
  }
  STARLING_RETURN_IF_ERROR(executor_->Load(state).status());
  process_ = std::make_unique<SingleProcess>(
      config, executor_.get(), [this](MicrobatchId id) -> absl::StatusOr<SingleProcess::Batch> {
        MicrobatchData data = id.kind == WorkKind::kTrain ? plan_.feed->Train(id.step, id.index)
                                                          : plan_.feed->Evaluate(id.index);
        STARLING_RETURN_IF_ERROR(data.status);
        return SingleProcess::Batch{std::move(data.tokens), std::move(data.targets),
                                    data.first_sequence};
      });
  PrintRunHeader(plan_);
  PrintLine(absl::StrCat("in one process, ", options.threads,
                         options.threads == 1 ? " thread" : " threads"));
  return absl::OkStatus();
}

absl::Status SingleRun::TakeStep(Step step) {
  STARLING_ASSIGN_OR_RETURN(const SingleProcess::StepResult result, process_->RunStep(step));
  StepReport report;
  report.step = step;
  report.loss = result.loss;
  report.gradient_norm = result.gradient_norm;
  report.learning_rate = result.learning_rate;
  report.tokens = result.tokens;
  report.step_s = absl::ToDoubleSeconds(absl::Now() - last_decision_);
  report.tokens_per_s = report.step_s > 0 ? static_cast<double>(result.tokens) / report.step_s : 0;
  report.replicas = {1};
  report.lane_ok = result.lane_ok;
  report.skipped = result.skipped;
  last_decision_ = absl::Now();
  records_->OnStep(report);
  if (result.skipped) {
    ++skipped_;
    records_->OnEvent(Event("step_skipped")
                          .With("step", Value(step))
                          .With("reason", "loss or gradient not finite"));
    return absl::OkStatus();
  }
  const int64_t every = plan_.config.train.hash_every;
  if (every > 0 && Value(step) % static_cast<uint64_t>(every) == 0) {
    records_->OnEvent(Event("state_hash")
                          .With("era", Value(plan_.era))
                          .With("stage", 0)
                          .With("peer", "single")
                          .With("version", Value(step))
                          .With("hash", ToHex(result.state_hash)));
  }
  return absl::OkStatus();
}

// As the trainer does: on the version just made, before the next step.
absl::Status SingleRun::EvaluateIfDue(int64_t version, bool last) {
  const int64_t every = plan_.config.train.eval_every;
  const uint32_t count = plan_.feed->evaluate_microbatches();
  if (every <= 0 || count == 0 || (!last && version % every != 0)) return absl::OkStatus();
  STARLING_ASSIGN_OR_RETURN(const double loss,
                            process_->Evaluate(Step{static_cast<uint64_t>(version) + 1}, count));
  records_->OnEvaluation(Version{static_cast<uint64_t>(version)}, loss);
  return absl::OkStatus();
}

void SingleRun::Save(int64_t version) {
  CheckpointMeta meta = plan_.start_meta;
  meta.era = plan_.era;
  meta.version = Version{static_cast<uint64_t>(version)};
  meta.updates = static_cast<uint64_t>(version) - skipped_;
  meta.sequences = plan_.feed->PositionAfter(Step{static_cast<uint64_t>(version)}).sequences;
  absl::StatusOr<Blob> state = executor_->Snapshot();
  absl::Status status = state.status();
  if (status.ok()) status = store_.Save(disk_, meta, {{executor_->layout(), *std::move(state)}});
  if (!status.ok()) {
    return records_->OnEvent(Event("checkpoint_failed")
                                 .With("step", version)
                                 .With("reason", std::string(status.message())));
  }
  const CheckpointConfig& checkpoint = plan_.config.checkpoint;
  store_
      .Prune(disk_, static_cast<uint64_t>(checkpoint.keep),
             static_cast<uint64_t>(checkpoint.keep_every))
      .IgnoreError();
  records_->OnEvent(
      Event("checkpoint_saved")
          .With("step", version)
          .With("path", plan_.directory + "/checkpoints/" + CheckpointName(meta.version)));
}

bool SingleRun::Interrupted() {
  if (signals_->Take().empty()) return false;
  signals_.reset();  // the next one ends the process
  records_->Say("interrupted: saving a checkpoint; again aborts at once");
  return true;
}

absl::Status SingleRun::Run() {
  STARLING_RETURN_IF_ERROR(Begin());
  last_decision_ = absl::Now();
  const int64_t steps = plan_.config.train.steps;
  const int64_t every = plan_.config.checkpoint.every;
  int64_t version = 0;
  bool interrupted = false;
  while (version < steps && !interrupted) {
    STARLING_RETURN_IF_ERROR(TakeStep(Step{static_cast<uint64_t>(version) + 1}));
    ++version;
    interrupted = Interrupted();
    const bool last = version == steps || interrupted;
    if (!interrupted) STARLING_RETURN_IF_ERROR(EvaluateIfDue(version, last));
    if (last || (every > 0 && version % every == 0)) Save(version);
  }
  signals_.reset();
  PrintLine(absl::StrCat(interrupted ? "interrupted after step " : "all steps done: ", version));
  PrintRunEnd(plan_, *records_, version == steps);
  return absl::OkStatus();
}

}  // namespace

absl::Status RunSingleProcess(RunPlan plan) {
  PosixDisk disk;
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<RunRecords> records, RunRecords::Open(disk, plan));
  return SingleRun(std::move(plan), std::move(records)).Run();
}

}  // namespace starling
