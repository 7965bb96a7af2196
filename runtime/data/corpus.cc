#include "runtime/data/corpus.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/hash.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/glob.h"
#include "runtime/data/shard_index.h"
#include "runtime/data/token_shard.h"

namespace starling {
namespace {

constexpr char kShardsKey[] = "data.shards";
constexpr uint64_t kSampleTokens = 1024;

absl::Status InKey(const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(kShardsKey, ": ", status.message()));
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

// Opens shards and holds them against what is said about them.
class ShardLoader {
 public:
  ShardLoader(Disk* disk, const RunConfig& config) : disk_(disk), config_(config) {
    tokenizer_ = config.data.tokenizer;
    tokenizer_from_ = "data.tokenizer";
  }

  absl::StatusOr<TokenStream> Load(const std::vector<std::string>& files) {
    TokenStream stream;
    for (const std::string& file : files) {
      STARLING_ASSIGN_OR_RETURN(TokenShard shard,
                                OpenShard(*disk_, file, config_.data.shard_format));
      STARLING_RETURN_IF_ERROR(CheckAgainstIndex(shard));
      STARLING_RETURN_IF_ERROR(Sample(shard));
      stream.Append(std::move(shard.tokens));
    }
    return stream;
  }

  const std::string& tokenizer() const { return tokenizer_; }

 private:
  // The shards.json of a folder, checked once; none if there is none.
  absl::StatusOr<const ShardIndex*> IndexOf(const std::string& folder) {
    const auto known = indexes_.find(folder);
    if (known != indexes_.end()) return known->second ? &*known->second : nullptr;
    std::optional<ShardIndex>& slot = indexes_[folder];
    const std::string path = folder + kShardIndexName;
    if (!disk_->Exists(path)) return nullptr;
    STARLING_ASSIGN_OR_RETURN(const std::string text, disk_->Read(path));
    absl::StatusOr<ShardIndex> index = ParseShardIndex(text);
    if (!index.ok()) {
      return absl::Status(index.status().code(),
                          absl::StrCat(path, ": ", index.status().message()));
    }
    if (static_cast<int64_t>(index->vocabulary) > config_.model.vocabulary) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": the vocabulary of these shards is ", index->vocabulary,
                       ", more than model.vocabulary = ", config_.model.vocabulary,
                       "; set model.vocabulary = ", index->vocabulary, " or more"));
    }
    if (!tokenizer_.empty() && tokenizer_ != index->tokenizer) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": these shards are of tokenizer \"",
                                                     index->tokenizer, "\", but ", tokenizer_from_,
                                                     " says \"", tokenizer_, "\""));
    }
    tokenizer_ = index->tokenizer;
    tokenizer_from_ = path;
    slot = *std::move(index);
    return &*slot;
  }

  absl::Status CheckAgainstIndex(const TokenShard& shard) {
    const std::string folder = FolderOf(shard.path);
    STARLING_ASSIGN_OR_RETURN(const ShardIndex* index, IndexOf(folder));
    if (index == nullptr) return absl::OkStatus();
    const auto entry = index->shards.find(shard.path.substr(folder.size()));
    if (entry == index->shards.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(shard.path, ": is not in the ", kShardIndexName,
                       " beside it, so its tokens may be another tokenizer's; keep it in another "
                       "folder"));
    }
    return CheckListed(entry->second, shard);
  }

  // Some tokens from begin, middle and end, so that most mistakes show at once; and identity.
  absl::Status Sample(const TokenShard& shard) {
    TokenStream stream;
    stream.Append(shard.tokens);
    const uint64_t count = std::min(stream.size(), kSampleTokens);
    std::vector<int32_t> tokens(count);
    for (const uint64_t begin : {uint64_t{0}, (stream.size() - count) / 2, stream.size() - count}) {
      const absl::Status status =
          stream.Read(begin, config_.model.vocabulary, absl::MakeSpan(tokens));
      if (!status.ok()) {
        return absl::InvalidArgumentError(absl::StrCat(
            status.message(), "; set it to what the shards were made for, or name the right ones"));
      }
    }
    return absl::OkStatus();
  }

  Disk* const disk_;
  const RunConfig& config_;
  std::string tokenizer_;
  std::string tokenizer_from_;
  std::map<std::string, std::optional<ShardIndex>> indexes_;  // by folder
};

// Takes what is for validation off the end of `corpus->train`.
void SplitOff(double share, const std::vector<std::string>& files, Corpus* corpus) {
  const TokenStream all = std::move(corpus->train);
  const uint64_t kept_files = ValidationShare(share, files.size());
  uint64_t kept_tokens = 0;
  if (files.size() == 1) {
    kept_tokens = ValidationShare(share, all.size());
  } else {
    for (size_t i = files.size() - kept_files; i < files.size(); ++i) {
      kept_tokens += all.pieces()[i].tokens();
    }
    corpus->validation_files = kept_files;
  }
  corpus->train_files = files.size() - corpus->validation_files;
  corpus->train = all.Slice(0, all.size() - kept_tokens);
  corpus->validation = all.Slice(all.size() - kept_tokens, kept_tokens);
}

std::string IdentityOf(const Corpus& corpus) {
  std::string text = "token shards\n";
  for (const TokenStream* stream : {&corpus.train, &corpus.validation}) {
    absl::StrAppend(&text, stream->size(), " tokens\n");
    for (const TokenStream::Piece& piece : stream->pieces()) {
      absl::StrAppend(&text, ToHex(FingerprintOf(piece)), "\n");
    }
  }
  return Sha256Hex(text.data(), text.size());
}

}  // namespace

Corpus CorpusOf(const Text& text) {
  Corpus corpus;
  corpus.train.Append({"text", text.train, 1, 0});
  corpus.validation.Append({"text", text.validation, 1, 0});
  corpus.sha256 = text.sha256;
  corpus.train_files = text.train_files;
  corpus.validation_files = text.validation_files;
  corpus.tokenizer = "bytes";
  return corpus;
}

absl::StatusOr<Corpus> LoadShards(Disk& disk, const RunConfig& config,
                                  const std::vector<std::string>& train,
                                  const std::vector<std::string>& validation) {
  const std::set<std::string> judged(validation.begin(), validation.end());
  std::vector<std::string> learned;
  for (const std::string& file : train) {
    if (judged.count(file) == 0) learned.push_back(file);
  }
  if (learned.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kShardsKey,
                     ": all of its files are named by data.validation_shards too; none is left to "
                     "train on"));
  }
  Corpus corpus;
  corpus.from_shards = true;
  ShardLoader loader(&disk, config);
  absl::StatusOr<TokenStream> stream = loader.Load(learned);
  if (!stream.ok()) return InKey(stream.status());
  corpus.train = *std::move(stream);
  if (validation.empty()) {
    SplitOff(config.data.validation, learned, &corpus);
  } else {
    stream = loader.Load(validation);
    if (!stream.ok()) return InKey(stream.status());
    corpus.validation = *std::move(stream);
    corpus.train_files = learned.size();
    corpus.validation_files = validation.size();
  }
  corpus.tokenizer = loader.tokenizer();
  corpus.sha256 = IdentityOf(corpus);
  return corpus;
}

absl::StatusOr<Corpus> LoadCorpus(Disk& disk, const RunConfig& config) {
  const DataConfig& data = config.data;
  if (data.shards.empty()) {
    STARLING_ASSIGN_OR_RETURN(const Text text, LoadText(disk, data));
    return CorpusOf(text);
  }
  STARLING_ASSIGN_OR_RETURN(const std::vector<std::string> train,
                            ExpandGlobs(data.shards, kShardsKey));
  std::vector<std::string> validation;
  if (!data.validation_shards.empty()) {
    STARLING_ASSIGN_OR_RETURN(validation,
                              ExpandGlobs(data.validation_shards, "data.validation_shards"));
  }
  return LoadShards(disk, config, train, validation);
}

}  // namespace starling
