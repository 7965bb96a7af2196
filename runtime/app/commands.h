// The subcommands of `starling`: what the command line gives each, and its function. All are called
// on the main thread and return when they are done; an error is one line for the user.
//
// Two programs are built from this folder: `starling` has no LibTorch, so that it starts at once;
// `starling-torch`, beside it, has it, and `starling` becomes that program (exec) for the commands
// that compute (TorchCommands). Both take the same arguments. A third, `starling-sim` (tests/sim),
// is what `starling sim` becomes, a fourth, `starling-bench` (bench/), what `starling bench` does.
#ifndef STARLING_RUNTIME_APP_COMMANDS_H_
#define STARLING_RUNTIME_APP_COMMANDS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/app/run_plan.h"

namespace starling {

struct TrainArgs {
  std::string program;  // as typed, for suggestions
  std::string run_file;
  std::string run_directory;  // empty: runs/<date>-<time>
  bool single_process = false;
  std::vector<std::string> overrides;  // "section.key=value"
};

struct ResumeArgs {
  std::string program;
  std::string run_directory;
  bool accept_new_text = false;
  std::vector<std::string> overrides;
};

struct StageArgs {
  std::string program;
  std::string join;
  std::string stage = "auto";
  std::string device = "cpu";
  int64_t threads = 0;  // 0: half of the cores
  uint64_t memory = 0;  // bytes; 0: no bound
  std::string listen = "tcp://127.0.0.1:*";
  std::string advertise;
  bool wait = false;
  std::string layers_directory;  // of this peer's own copies of the run's layers
  bool child = false;            // started by a trainer: ignores SIGINT
};

struct StatusArgs {
  std::string target;  // run directory or address
  bool json = false;
};

struct OrderArgs {
  std::string target;  // run directory or address
  std::string replica;
  int64_t stage = -1;  // leave: any one of this stage
  bool off = false;    // pause: go on
};

struct GenerateArgs {
  std::string run_directory;  // or a checkpoint's folder
  std::string prompt;
  bool interactive = false;
  std::vector<std::string> stops;  // none is empty
  std::string tokenizer;           // a path; empty: the run's
  int64_t tokens = 200;
  double temperature = 0.8;
  int64_t top_k = 40;
  double top_p = 1.0;
  uint64_t seed = 1;
  int64_t threads = 0;
};

struct ConfigArgs {
  std::string run_file;
  bool documented = false;
  std::vector<std::string> overrides;
};

struct TokenizeArgs {
  std::string program;
  std::vector<std::string> inputs;  // files and patterns
  std::string out;
  std::string tokenizer = "bytes";  // or a path
  std::string text_key = "text";    // of JSONL
  uint64_t shard_tokens = 100'000'000;
  double validation = 0;  // share of the documents
  bool no_separator = false;
  int64_t threads = 0;  // 0: as many as there are cores
};

struct TokenizerTrainArgs {
  std::string program;
  std::vector<std::string> inputs;  // files and patterns
  std::string out;
  int64_t vocabulary = 0;         // with the separator
  std::string text_key = "text";  // of JSONL
  int64_t threads = 0;            // 0: as many as there are cores
};

struct CheckpointGcArgs {
  std::string run_directory;
  std::optional<int64_t> keep;        // default: as the run's configuration has it
  std::optional<int64_t> keep_every;  // likewise
  bool dry_run = false;
};

struct CheckpointExportArgs {
  std::string path;  // a run's directory, or a checkpoint's
  std::string out;
  std::string format = "hf";
  uint64_t max_shard_bytes = 5'000'000'000;  // of tensors in a file
};

struct CheckpointImportArgs {
  std::string program;  // as typed, for suggestions
  std::string folder;
  std::string out;       // the run's directory
  std::string run_file;  // empty: the defaults
  std::vector<std::string> overrides;
};

// What only the program with LibTorch can do.
struct TorchCommands {
  std::function<absl::Status(const StageArgs&)> stage;
  std::function<absl::Status(const GenerateArgs&)> generate;
  std::function<absl::Status()> doctor;
  std::function<absl::Status(RunPlan plan)> single_process;  // of a run directory just made
  ProbeLayers probe_layers;                                  // of the user's own
};

absl::Status Train(const TrainArgs& args, const TorchCommands* torch);
absl::Status Resume(const ResumeArgs& args, const TorchCommands* torch);
// Whether the run has layers of the user's own, which the program with LibTorch reads. What is
// wrong with the file, Train and Resume say.
bool HasOwnLayers(const TrainArgs& args);
bool HasOwnLayers(const ResumeArgs& args);
absl::Status ShowStatus(const StatusArgs& args);
absl::Status OrderLeave(const OrderArgs& args);
absl::Status OrderPause(const OrderArgs& args);
absl::Status PrintConfig(const ConfigArgs& args);
absl::Status ValidateConfig(const ConfigArgs& args);
absl::Status Tokenize(const TokenizeArgs& args);
absl::Status TrainTokenizer(const TokenizerTrainArgs& args);
absl::Status ShowTokenizer(const std::string& path);
// From the standard input to the standard output.
absl::Status EncodeInput(const std::string& path);
absl::Status DecodeInput(const std::string& path);
absl::Status ListCheckpoints(const std::string& run_directory);
absl::Status VerifyCheckpoints(const std::string& path);
absl::Status ExportCheckpoint(const CheckpointExportArgs& args);
absl::Status ImportCheckpoint(const CheckpointImportArgs& args);
// Becomes the program with the virtual world (exec), which takes `arguments`; comes back only if
// that cannot be. not found: it was not built.
absl::Status BecomeSim(const std::vector<std::string>& arguments);
// Likewise the program that measures.
absl::Status BecomeBench(const std::vector<std::string>& arguments);
absl::Status CollectCheckpoints(const CheckpointGcArgs& args);

// In the program with LibTorch only.
absl::Status ServeStage(const StageArgs& args);
absl::Status Generate(const GenerateArgs& args);
absl::Status Doctor();
absl::Status RunSingleProcess(RunPlan plan);

// Parses and runs; gives the process's exit status: 0, 1 after an error (said on stderr as one line
// that begins "starling: "), 2 where the command line itself is wrong. `torch` is null in the
// program without LibTorch.
int RunCommandLine(int argc, char** argv, const TorchCommands* torch);

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_COMMANDS_H_
