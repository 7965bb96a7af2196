#include <algorithm>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/app/checkpoint_path.h"
#include "runtime/app/commands.h"
#include "runtime/app/run_tokenizer.h"
#include "runtime/app/terminal.h"
#include "runtime/base/status_macros.h"
#include "runtime/config/run_file.h"
#include "runtime/reactor/posix_disk.h"
#include "runtime/tokenizer/text_stream.h"
#include "stages/model_layout.h"
#include "stages/torch_generate.h"

namespace starling {
namespace {

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

// A prompt as the model has seen texts begin.
absl::StatusOr<std::vector<int32_t>> PromptTokens(const Tokenizer& tokenizer,
                                                  const std::string& prompt) {
  if (prompt.empty()) {
    return absl::InvalidArgumentError("--prompt is empty: give at least one character");
  }
  std::vector<uint32_t> tokens = tokenizer.prefix();
  const absl::Status status = tokenizer.Encode(prompt.data(), prompt.size(), &tokens);
  if (!status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--prompt: ", status.message()));
  }
  return std::vector<int32_t>(tokens.begin(), tokens.end());
}

void Write(const std::string& bytes) {
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
  std::fflush(stdout);
}

}  // namespace

absl::Status Generate(const GenerateArgs& args) {
  PosixDisk disk;
  STARLING_ASSIGN_OR_RETURN(const LoadedModel model, LoadNewest(disk, args.run_directory));
  STARLING_ASSIGN_OR_RETURN(
      const std::unique_ptr<Tokenizer> tokenizer,
      FindModelTokenizer(disk, args.run_directory, model.config, args.tokenizer));
  STARLING_ASSIGN_OR_RETURN(const std::vector<int32_t> prompt,
                            PromptTokens(*tokenizer, args.prompt));
  const int threads = args.threads > 0
                          ? static_cast<int>(args.threads)
                          : std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / 2);
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<Generator> generator,
                            Generator::Create(model.config.model, model.state, threads));
  Sampling sampling;
  sampling.temperature = args.temperature;
  sampling.top_k = args.top_k;
  sampling.seed = args.seed;
  STARLING_RETURN_IF_ERROR(generator->Begin(prompt, sampling));
  Write(args.prompt);
  TextStream text(tokenizer.get());
  for (int64_t count = 0; count < args.tokens; ++count) {
    STARLING_ASSIGN_OR_RETURN(const int32_t token, generator->Next());
    const auto number = static_cast<uint32_t>(token);
    if (number == tokenizer->separator() || number >= tokenizer->vocabulary()) break;
    Write(text.Push(number));
  }
  Write(text.Finish() + "\n");
  return absl::OkStatus();
}

}  // namespace starling
