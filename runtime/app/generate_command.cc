#include <algorithm>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/app/checkpoint_path.h"
#include "runtime/app/commands.h"
#include "runtime/app/terminal.h"
#include "runtime/base/status_macros.h"
#include "runtime/config/run_file.h"
#include "runtime/reactor/posix_disk.h"
#include "stages/model_layout.h"
#include "stages/torch_generate.h"

namespace starling {
namespace {

constexpr int64_t kBytes = 256;

struct LoadedModel {
  RunConfig config;
  Blob state;
};

absl::StatusOr<LoadedModel> Load(Disk& disk, const CheckpointInfo& info) {
  LoadedModel model;
  STARLING_ASSIGN_OR_RETURN(const Manifest manifest, LoadManifest(disk, info));
  STARLING_ASSIGN_OR_RETURN(
      model.config, ParseRunFile(manifest.meta.config_toml, info.path + "/manifest.json", {}));
  STARLING_ASSIGN_OR_RETURN(model.state,
                            LoadStage(disk, info, WholeModelLayout(model.config.model)));
  return model;
}

// Of the newest checkpoint that loads. LoadStage checks the hashes of what it reads.
absl::StatusOr<LoadedModel> LoadNewest(Disk& disk, const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> all, FindCheckpoints(disk, path));
  absl::Status first_problem;
  for (auto info = all.rbegin(); info != all.rend(); ++info) {
    absl::StatusOr<LoadedModel> model = Load(disk, *info);
    if (model.ok()) return model;
    if (!first_problem.ok() || all.size() == 1) return model.status();
    first_problem = model.status();
    PrintWarning(absl::StrCat(first_problem.message(), "; taking the one before"));
  }
  return first_problem;
}

// A model of which nothing says what its tokens are is one of bytes if its vocabulary is theirs.
absl::Status CheckTokensAreBytes(const RunConfig& config, const std::string& path) {
  const DataConfig& data = config.data;
  const bool unknown = data.tokenizer.empty() && data.text.empty() &&
                       (!data.shards.empty() || config.model.vocabulary != kBytes);
  if (!unknown && (data.tokenizer.empty() || data.tokenizer == "bytes")) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      path, ": the tokens of this model are not bytes (",
      data.tokenizer.empty() ? "data.tokenizer is not known"
                             : absl::StrCat("data.tokenizer = \"", data.tokenizer, "\""),
      ", model.vocabulary = ", config.model.vocabulary,
      "), so generate cannot turn a prompt into them"));
}

void Write(const std::string& bytes) {
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
  std::fflush(stdout);
}

}  // namespace

absl::Status Generate(const GenerateArgs& args) {
  PosixDisk disk;
  STARLING_ASSIGN_OR_RETURN(const LoadedModel model, LoadNewest(disk, args.run_directory));
  STARLING_RETURN_IF_ERROR(CheckTokensAreBytes(model.config, args.run_directory));
  const int threads = args.threads > 0
                          ? static_cast<int>(args.threads)
                          : std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / 2);
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<Generator> generator,
                            Generator::Create(model.config.model, model.state, threads));
  Sampling sampling;
  sampling.temperature = args.temperature;
  sampling.top_k = args.top_k;
  sampling.seed = args.seed;
  if (args.prompt.empty()) {
    return absl::InvalidArgumentError("--prompt is empty: give at least one character");
  }
  std::vector<int32_t> prompt;
  for (unsigned char byte : args.prompt) prompt.push_back(byte);
  STARLING_RETURN_IF_ERROR(generator->Begin(prompt, sampling));
  Write(args.prompt);
  for (int64_t count = 0; count < args.tokens; ++count) {
    STARLING_ASSIGN_OR_RETURN(const int32_t token, generator->Next());
    if (token >= kBytes) break;  // the end of a document
    Write(std::string(1, static_cast<char>(token)));
  }
  Write("\n");
  return absl::OkStatus();
}

}  // namespace starling
