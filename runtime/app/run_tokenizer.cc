#include "runtime/app/run_tokenizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/shard_index.h"
#include "runtime/tokenizer/tokenizer_files.h"
#include "runtime/tokenizer/tokenizer_name.h"

namespace starling {
namespace {

constexpr int64_t kBytes = 256;
constexpr char kFolder[] = "tokenizer";

absl::Status InKey(const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("data.tokenizer: ", status.message()));
}

// A folder with the tokenizer `name`; null if there is no such folder.
absl::StatusOr<std::unique_ptr<Tokenizer>> OpenNamed(Disk& disk, const std::string& folder,
                                                     const std::string& name,
                                                     const std::string& whose) {
  if (!disk.Exists(folder)) return std::unique_ptr<Tokenizer>();
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, OpenTokenizer(disk, folder));
  if (tokenizer->name() == name) return tokenizer;
  return absl::DataLossError(absl::StrCat(folder, ": is ", tokenizer->name(), ", but ", whose,
                                          " tokens are of ", name, ": it was changed"));
}

std::string ParentOf(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

// A model of which nothing says what its tokens are is one of bytes if its vocabulary is theirs.
bool TokensAreBytes(const RunConfig& config) {
  const DataConfig& data = config.data;
  if (!data.tokenizer.empty()) return data.tokenizer == "bytes";
  return !data.text.empty() || (data.shards.empty() && config.model.vocabulary == kBytes);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenGivenTokenizer(Disk& disk, RunConfig* config) {
  std::string& given = config->data.tokenizer;
  if (given.empty() || given == "bytes" || (IsTokenizerName(given) && !disk.Exists(given))) {
    return std::unique_ptr<Tokenizer>();
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = OpenTokenizer(disk, given);
  if (!tokenizer.ok()) return InKey(tokenizer.status());
  if ((*tokenizer)->vocabulary() > config->model.vocabulary) {
    return absl::InvalidArgumentError(
        absl::StrCat("data.tokenizer: ", given, " has ", (*tokenizer)->vocabulary(),
                     " tokens, more than model.vocabulary = ", config->model.vocabulary,
                     "; set model.vocabulary = ", (*tokenizer)->vocabulary(), " or more"));
  }
  given = (*tokenizer)->name();
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> FindShardsTokenizer(Disk& disk, const Corpus& corpus) {
  if (!corpus.from_shards || !IsTokenizerName(corpus.tokenizer)) {
    return std::unique_ptr<Tokenizer>();
  }
  const std::string folder =
      absl::StrCat(ParentOf(corpus.train.pieces().front().name), "/", kShardTokenizerName);
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      OpenNamed(disk, folder, corpus.tokenizer, "the shards'");
  if (!tokenizer.ok()) {
    return absl::Status(tokenizer.status().code(),
                        absl::StrCat("data.shards: ", tokenizer.status().message()));
  }
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> KeepRunTokenizer(Disk& disk,
                                                            const std::string& run_directory,
                                                            const std::string& name,
                                                            std::unique_ptr<Tokenizer> tokenizer) {
  const std::string folder = absl::StrCat(run_directory, "/", kFolder);
  if (!IsTokenizerName(name)) return std::unique_ptr<Tokenizer>();
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> there,
                            OpenNamed(disk, folder, name, "the run's"));
  if (there != nullptr || tokenizer == nullptr) return there;
  STARLING_RETURN_IF_ERROR(WriteTokenizer(disk, *tokenizer, folder));
  STARLING_RETURN_IF_ERROR(disk.SyncDirectory(run_directory));
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> FindModelTokenizer(Disk& disk, const std::string& path,
                                                              const RunConfig& config,
                                                              const std::string& given) {
  const std::string& name = config.data.tokenizer;
  if (!given.empty()) {
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = OpenTokenizer(disk, given);
    if (!tokenizer.ok()) {
      return absl::Status(tokenizer.status().code(),
                          absl::StrCat("--tokenizer: ", tokenizer.status().message()));
    }
    if (name.empty() || name == (*tokenizer)->name()) return tokenizer;
    return absl::FailedPreconditionError(absl::StrCat("--tokenizer: ", given, " is ",
                                                      (*tokenizer)->name(), ", but the tokens of ",
                                                      path, " are of ", name));
  }
  if (TokensAreBytes(config)) return MakeTokenizer("bytes");
  if (IsTokenizerName(name)) {
    for (const std::string& folder : {path, ParentOf(ParentOf(path))}) {
      STARLING_ASSIGN_OR_RETURN(
          std::unique_ptr<Tokenizer> tokenizer,
          OpenNamed(disk, absl::StrCat(folder, "/", kFolder), name, "the run's"));
      if (tokenizer != nullptr) return tokenizer;
    }
  }
  return absl::FailedPreconditionError(absl::StrCat(
      path, ": the tokens of this model are not bytes (",
      name.empty() ? "data.tokenizer is not known"
                   : absl::StrCat("data.tokenizer = \"", name, "\", whose files are not there"),
      ", model.vocabulary = ", config.model.vocabulary,
      "), so generate cannot turn a prompt into them: name the tokenizer with --tokenizer"));
}

}  // namespace starling
