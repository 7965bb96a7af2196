#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "interop/huggingface_folder.h"
#include "interop/huggingface_tokenizer.h"
#include "runtime/app/commands.h"
#include "runtime/app/new_folder.h"
#include "runtime/app/run_plan.h"
#include "runtime/app/run_tokenizer.h"
#include "runtime/app/terminal.h"
#include "runtime/base/status_macros.h"
#include "runtime/config/run_file.h"
#include "runtime/config/run_keys.h"
#include "runtime/reactor/posix_disk.h"
#include "runtime/tokenizer/tokenizer_files.h"
#include "stages/model_layout.h"

namespace starling {
namespace {

constexpr int64_t kStages = 3;  // where no run file says it

bool HasTokenizer(Disk& disk, const std::string& folder) {
  for (const char* name : {"tokenizer.json", "vocab.json", "tokenizer.model"}) {
    if (disk.Exists(absl::StrCat(folder, "/", name))) return true;
  }
  return false;
}

// The folder's, if it can be used; what is wrong with it is for the user to know.
std::unique_ptr<Tokenizer> FolderTokenizer(Disk& disk, const std::string& folder,
                                           int64_t vocabulary, std::vector<std::string>* notices) {
  if (!HasTokenizer(disk, folder)) {
    notices->push_back(absl::StrCat(folder, " has no tokenizer: give data.tokenizer"));
    return nullptr;
  }
  auto tokenizer = OpenTokenizer(disk, folder);
  if (!tokenizer.ok()) {
    notices->push_back(absl::StrCat("its tokenizer is left out: ", tokenizer.status().message()));
    return nullptr;
  }
  if ((*tokenizer)->vocabulary() > vocabulary) {
    notices->push_back(absl::StrCat("its tokenizer is left out: it has ",
                                    (*tokenizer)->vocabulary(), " tokens, the model has ",
                                    vocabulary));
    return nullptr;
  }
  return *std::move(tokenizer);
}

class Import {
 public:
  Import(Disk* disk, const CheckpointImportArgs& args)
      : disk_(*disk), args_(args), folder_(WithoutSlashes(args.folder)) {}

  absl::Status Run();

 private:
  absl::StatusOr<RunConfig> Resolve(const ModelConfig& model, const std::string& tokenizer) const;
  absl::Status CheckModelStays(const ModelConfig& model, const RunConfig& config) const;
  absl::Status SetConfig(const ModelConfig& model);

  Disk& disk_;
  const CheckpointImportArgs& args_;
  const std::string folder_;
  std::vector<std::string> notices_;
  RunConfig config_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

// The run file, over it the model, over it what the command line says.
absl::StatusOr<RunConfig> Import::Resolve(const ModelConfig& model,
                                          const std::string& tokenizer) const {
  std::string text = absl::StrCat("[swarm]\nstages = ", std::min(kStages, model.layers), "\n");
  if (!args_.run_file.empty()) {
    STARLING_ASSIGN_OR_RETURN(text, disk_.Read(args_.run_file));
  }
  std::vector<std::string> overrides = ModelOverrides(model);
  overrides.insert(overrides.end(), args_.overrides.begin(), args_.overrides.end());
  if (!tokenizer.empty()) overrides.push_back(absl::StrCat("data.tokenizer=", tokenizer));
  return ParseRunFile(text, args_.run_file.empty() ? "the defaults" : args_.run_file, overrides);
}

absl::Status Import::CheckModelStays(const ModelConfig& model, const RunConfig& config) const {
  RunConfig there;
  there.model = model;
  const bool any_context = model.position == PositionKind::kRope;
  for (const RunKey& key : RunKeys()) {
    if (key.section != "model" || key.print(there) == key.print(config)) continue;
    if (key.name == "dropout" || (key.name == "context" && any_context)) continue;
    if (key.name == "tie_embeddings" && model.tie_embeddings) continue;  // it begins as a copy
    return absl::InvalidArgumentError(
        absl::StrCat("--", key.full_name(), "=", key.print(config), ": the model of ", folder_,
                     " has ", key.print(there), "; only ", any_context ? "model.context and " : "",
                     "model.dropout can be another"));
  }
  return absl::OkStatus();
}

absl::Status Import::SetConfig(const ModelConfig& model) {
  STARLING_ASSIGN_OR_RETURN(config_, Resolve(model, ""));
  STARLING_RETURN_IF_ERROR(CheckModelStays(model, config_));
  if (!config_.data.tokenizer.empty()) {
    STARLING_ASSIGN_OR_RETURN(tokenizer_, OpenGivenTokenizer(disk_, &config_));
    return absl::OkStatus();
  }
  tokenizer_ = FolderTokenizer(disk_, folder_, model.vocabulary, &notices_);
  if (tokenizer_ == nullptr) return absl::OkStatus();
  const bool bytes = MakesBytes(*tokenizer_);
  STARLING_ASSIGN_OR_RETURN(config_, Resolve(model, bytes ? "bytes" : tokenizer_->name()));
  if (bytes) tokenizer_.reset();
  return absl::OkStatus();
}

absl::Status Import::Run() {
  const std::string out = WithoutSlashes(args_.out);
  STARLING_RETURN_IF_ERROR(CheckNewFolder(disk_, out));
  STARLING_ASSIGN_OR_RETURN(const HuggingFaceFolder model, HuggingFaceFolder::Open(disk_, folder_));
  notices_ = model.notices();
  STARLING_RETURN_IF_ERROR(SetConfig(model.config().model));
  STARLING_RETURN_IF_ERROR(MakeNewFolder(disk_, out, [&](const std::string& folder) {
    RunPlan plan = PlanImportedRun(config_, folder);
    plan.tokenizer = std::move(tokenizer_);
    return MakeRunDirectory(
        disk_,
        [&model](const StageLayout& layout, const AppendBytes& append) {
          return model.AppendState(layout, append);
        },
        &plan);
  }));
  PrintLine(absl::StrCat("imported    ", folder_, ", ", ArchitectureOf(model.config().kind), ", ",
                         FormatCount(WholeModelLayout(config_.model).parameter_count()),
                         " parameters"));
  for (const std::string& notice : notices_) PrintLine(absl::StrCat("            ", notice));
  PrintLine(absl::StrCat(
      "wrote       ", out, "/, tokens of ",
      config_.data.tokenizer.empty() ? "a tokenizer not known" : config_.data.tokenizer));
  PrintLine(absl::StrCat(
      "train it:   ", args_.program, " resume ", out,
      config_.data.text.empty() && config_.data.shards.empty()
          ? (config_.data.tokenizer == "bytes" ? " --data.text=FILES" : " --data.shards=FILES")
          : ""));
  return absl::OkStatus();
}

}  // namespace

absl::Status ImportCheckpoint(const CheckpointImportArgs& args) {
  PosixDisk disk;
  return Import(&disk, args).Run();
}

}  // namespace starling
