#include "runtime/tokenizer/tokenizer_files.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"
#include "runtime/tokenizer/byte_bpe.h"
#include "runtime/tokenizer/sentencepiece.h"
#include "runtime/tokenizer/tokenizer_json.h"
#include "runtime/tokenizer/tokenizer_name.h"

namespace starling {
namespace {

constexpr char kJson[] = "tokenizer.json";
constexpr char kVocab[] = "vocab.json";
constexpr char kMerges[] = "merges.txt";
constexpr char kModel[] = "tokenizer.model";
constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;

absl::Status InFile(const absl::Status& status, const std::string& path) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

absl::StatusOr<std::string> ReadBounded(Disk& disk, const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const uint64_t bytes, disk.FileSize(path));
  if (bytes > kMaxFileBytes) {
    return absl::DataLossError(
        absl::StrCat(path, ": ", bytes, " bytes are too many for a tokenizer"));
  }
  return disk.Read(path);
}

class Opener {
 public:
  Opener(Disk* disk, std::string folder) : disk_(disk), folder_(std::move(folder)) {}

  absl::StatusOr<std::unique_ptr<Tokenizer>> OpenJson(const std::string& name) {
    STARLING_RETURN_IF_ERROR(ReadConfig());
    STARLING_ASSIGN_OR_RETURN(const std::string text, Take(name, kJson));
    absl::StatusOr<ByteBpeParts> parts = ParseTokenizerJson(text, config_);
    if (!parts.ok() && disk_->Exists(folder_ + kModel)) {
      return InFile(
          absl::Status(parts.status().code(), absl::StrCat(parts.status().message(), "; name ",
                                                           folder_, kModel, " to use that one")),
          folder_ + name);
    }
    return Finish(std::move(parts), name);
  }

  absl::StatusOr<std::unique_ptr<Tokenizer>> OpenPair() {
    STARLING_RETURN_IF_ERROR(ReadConfig());
    STARLING_ASSIGN_OR_RETURN(const std::string vocab, Take(kVocab, kVocab));
    STARLING_ASSIGN_OR_RETURN(const std::string merges, Take(kMerges, kMerges));
    return Finish(ParseVocabAndMerges(vocab, merges, config_), kMerges);
  }

  absl::StatusOr<std::unique_ptr<Tokenizer>> OpenModel(const std::string& name) {
    STARLING_RETURN_IF_ERROR(ReadConfig());
    STARLING_ASSIGN_OR_RETURN(const std::string bytes, Take(name, kModel));
    absl::StatusOr<SentencePieceModel> model = ParseSentencePieceModel(bytes);
    if (!model.ok()) return InFile(model.status(), folder_ + name);
    auto tokenizer =
        MakeSentencePiece(*std::move(model), config_.bos_first.value_or(false), std::move(files_));
    if (!tokenizer.ok()) return InFile(tokenizer.status(), folder_ + name);
    return tokenizer;
  }

 private:
  // Reads a file of the folder; it is kept under the name that a folder has for it.
  absl::StatusOr<std::string> Take(const std::string& name, const char* kept_as) {
    STARLING_ASSIGN_OR_RETURN(std::string bytes, ReadBounded(*disk_, folder_ + name));
    files_.push_back({kept_as, bytes});
    return bytes;
  }

  absl::Status ReadConfig() {
    if (!disk_->Exists(folder_ + kTokenizerConfigName)) return absl::OkStatus();
    STARLING_ASSIGN_OR_RETURN(const std::string text,
                              Take(kTokenizerConfigName, kTokenizerConfigName));
    absl::StatusOr<TokenizerConfig> config = ParseTokenizerConfig(text);
    if (!config.ok()) return InFile(config.status(), folder_ + kTokenizerConfigName);
    config_ = *std::move(config);
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<Tokenizer>> Finish(absl::StatusOr<ByteBpeParts> parts,
                                                    const std::string& name) {
    if (!parts.ok()) return InFile(parts.status(), folder_ + name);
    parts->files = std::move(files_);
    auto tokenizer = MakeByteBpe(*std::move(parts));
    if (!tokenizer.ok()) return InFile(tokenizer.status(), folder_ + name);
    return tokenizer;
  }

  Disk* const disk_;
  const std::string folder_;  // ends in a slash, or empty
  TokenizerConfig config_;
  std::vector<TokenizerFile> files_;
};

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenFile(Disk& disk, const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  const std::string name = path.substr(folder.size());
  Opener opener(&disk, folder);
  if (name == kVocab || name == kMerges) return opener.OpenPair();
  if (absl::EndsWith(name, ".json")) return opener.OpenJson(name);
  if (absl::EndsWith(name, ".model")) return opener.OpenModel(name);
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": a tokenizer is a folder, or a .json, merges.txt or .model file"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(Disk& disk, const std::string& given) {
  if (given == "bytes") return MakeTokenizer(given);
  std::string path = given;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  if (path.empty() || !disk.Exists(path)) {
    return absl::NotFoundError(absl::StrCat("there is no tokenizer \"", path,
                                            "\": there is \"bytes\", or give a folder or file"));
  }
  if (!disk.List(path).ok()) return OpenFile(disk, path);
  const std::string folder = path == "/" ? path : path + "/";
  Opener opener(&disk, folder);
  if (disk.Exists(folder + kJson)) return opener.OpenJson(kJson);
  if (disk.Exists(folder + kVocab) || disk.Exists(folder + kMerges)) return opener.OpenPair();
  if (disk.Exists(folder + kModel)) return opener.OpenModel(kModel);
  return absl::NotFoundError(absl::StrCat(path, ": has no ", kJson, ", no ", kVocab, " with ",
                                          kMerges, ", and no ", kModel));
}

absl::Status WriteTokenizer(Disk& disk, const Tokenizer& tokenizer, const std::string& folder) {
  if (disk.Exists(folder)) {
    return absl::AlreadyExistsError(absl::StrCat(folder, " exists: nothing is overwritten"));
  }
  const std::string temporary = folder + ".tmp";
  STARLING_RETURN_IF_ERROR(disk.RemoveTree(temporary));
  STARLING_RETURN_IF_ERROR(disk.MakeDirectories(temporary));
  for (const TokenizerFile& file : tokenizer.files()) {
    STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> out,
                              disk.Create(absl::StrCat(temporary, "/", file.name)));
    STARLING_RETURN_IF_ERROR(out->Append(file.bytes.data(), file.bytes.size()));
    STARLING_RETURN_IF_ERROR(out->Sync());
  }
  STARLING_RETURN_IF_ERROR(disk.SyncDirectory(temporary));
  return disk.Rename(temporary, folder);
}

}  // namespace starling
