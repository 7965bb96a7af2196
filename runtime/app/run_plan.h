// RunPlan: a run that is about to be taken up: its configuration, text, directory, and the
// checkpoint to begin from. Made by PlanNewRun + MakeRunDirectory (train) or ReopenRun (resume).
//
// A run directory:
//   run.toml          the configuration as resolved
//   address           the trainer's control endpoint, one line
//   epoch             the newest epoch that a trainer took (epoch_store.h)
//   lock              held by the trainer (file_lock.h)
//   local.json        the local replicas that were started (local_swarm.h)
//   decisions.jsonl   the decision log
//   layers/           the files of layers of the user's own (run_layers.h)
//   tokenizer/        its files, where the tokens are of one that has files (run_tokenizer.h)
//   metrics.jsonl, events.jsonl, logs/, checkpoints/
#ifndef STARLING_RUNTIME_APP_RUN_PLAN_H_
#define STARLING_RUNTIME_APP_RUN_PLAN_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/checkpoint_store.h"
#include "interop/tensor_pieces.h"
#include "runtime/app/local_swarm.h"
#include "runtime/app/run_layers.h"
#include "runtime/base/layout.h"
#include "runtime/config/run_config.h"
#include "runtime/data/data_feed.h"
#include "runtime/env/file_system.h"
#include "runtime/reactor/file_lock.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/trainer/return_plan.h"

namespace starling {

struct RunPlan {
  std::string program;  // as typed, for suggestions
  std::string directory;
  RunConfig config;
  std::string config_toml;
  std::vector<StageLayout> layouts;  // per stage
  std::unique_ptr<RunFeed> feed;
  RunLayers own;                         // where config.model.own()
  std::unique_ptr<Tokenizer> tokenizer;  // null: bytes, or its files are not known
  std::unique_ptr<FileLock> lock;

  RunId run{0};
  Epoch epoch{1};
  Era era{1};
  uint64_t last_record = 0;
  CheckpointInfo start;           // to begin from, or to fall back on
  std::optional<LiveState> live;  // go on from the replicas that hold the newest decision
  CheckpointMeta start_meta;
  std::vector<LocalReplica> adopt;      // local replicas that another trainer left behind
  std::vector<CheckpointInfo> damaged;  // newer than `start`
  std::vector<std::string> notices;     // for the user, before the run begins
};

// Reads and checks the run file, its data and its layers. Makes nothing. `directory` empty:
// runs/<date>-<time>. `probe` is asked where the layers are the user's own.
//   already exists: the directory is there.
absl::StatusOr<RunPlan> PlanNewRun(Disk& disk, const std::string& run_file,
                                   const std::vector<std::string>& overrides, std::string directory,
                                   const ProbeLayers& probe = nullptr);

// A run that begins from a model that came from elsewhere and has seen no data yet: `feed` is null,
// and resume takes whatever text it finds. Makes nothing.
RunPlan PlanImportedRun(RunConfig config, std::string directory);

// Appends the state of a stage, f32 [kStatePlanes * layout.size], in pieces.
using StateSource =
    std::function<absl::Status(const StageLayout& layout, const AppendBytes& append)>;

// Makes the directory with version 0 in it, as initialized or as `state` has it. On failure nothing
// is left.
absl::Status MakeRunDirectory(Disk& disk, RunPlan* plan);
absl::Status MakeRunDirectory(Disk& disk, const StateSource& state, RunPlan* plan);

// Locks a run directory, finds the newest checkpoint in it that is whole and what was decided
// since, and takes the next epoch. `live` is set if the model is cut as before and a step was
// decided in the newest era; who of its members lives is for the caller to find out.
//   not found: no run is there; unavailable: another trainer holds it;
//   failed precondition: there is nothing left to do, or the text is another than before and
//   `accept_new_text` is not set; data loss: no checkpoint is whole;
//   invalid argument: the configuration is wrong or another model's.
absl::StatusOr<RunPlan> ReopenRun(Disk& disk, const std::string& directory,
                                  const std::vector<std::string>& overrides, bool accept_new_text,
                                  const ProbeLayers& probe = nullptr);

// Replaces a file as a whole.
absl::Status WriteWholeFile(Disk& disk, const std::string& path, const std::string& text);

// The configuration of a run directory, as it was last resolved.
absl::StatusOr<RunConfig> ReadRunConfig(Disk& disk, const std::string& directory,
                                        const std::vector<std::string>& overrides);

// Where the trainer of a run directory is reached.
absl::StatusOr<std::string> ReadAddress(Disk& disk, const std::string& directory);

// Finds the newest checkpoint in `folder` that has nothing wrong with it, as `start`; newer ones go
// to `damaged`, what is wrong with them to `notices`.
//   not found: there is none; data loss: none is whole.
absl::Status FindStart(Disk& disk, const std::string& folder, RunPlan* plan);

// "resumed at step 40 from RUN/checkpoints/step-00000040, data position 640".
std::string ResumedFromCheckpoint(const RunPlan& plan);

// Renames the damaged checkpoints, so that they are not counted among those to keep.
absl::Status SetDamagedAside(Disk& disk, const RunPlan& plan);

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_RUN_PLAN_H_
