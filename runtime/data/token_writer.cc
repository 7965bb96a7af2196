#include "runtime/data/token_writer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/token_shard.h"

namespace starling {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;
constexpr char kTemporarySuffix[] = ".tmp";
constexpr uint32_t kMax16 = 65536;  // different 16-bit tokens

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string WithoutSlashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

uint32_t VocabularyOf(const Tokenizer& tokenizer, bool separate) {
  return separate ? std::max(tokenizer.vocabulary(), tokenizer.separator() + 1)
                  : tokenizer.vocabulary();
}

absl::Status WriteFile(Disk& disk, const std::string& path, const std::string& bytes) {
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, disk.Create(path));
  STARLING_RETURN_IF_ERROR(file->Append(bytes.data(), bytes.size()));
  return file->Sync();
}

}  // namespace

bool IsForValidation(double share, uint64_t number) {
  const auto count = static_cast<double>(number);
  return std::ceil((count + 1) * share) > std::ceil(count * share);
}

// One kind's shards, one after the other. A shard's header is written for a full one; only the last
// is shorter and copied under its right header.
class TokenWriter::Series {
 public:
  Series(Disk* disk, std::string prefix, uint64_t shard_tokens, ShardIndex* index)
      : disk_(disk),
        prefix_(std::move(prefix)),
        shard_tokens_(shard_tokens),
        token_bytes_(index->vocabulary <= kMax16 ? 2 : 4),
        index_(index) {}

  absl::Status Add(const uint32_t* tokens, size_t count) {
    while (count > 0) {
      if (file_ == nullptr) STARLING_RETURN_IF_ERROR(Open());
      const size_t room = static_cast<size_t>(std::min<uint64_t>(count, shard_tokens_ - tokens_));
      Encode(tokens, room);
      tokens += room;
      count -= room;
      tokens_ += room;
      if (buffer_.size() >= kBufferBytes) STARLING_RETURN_IF_ERROR(Flush());
      if (tokens_ == shard_tokens_) STARLING_RETURN_IF_ERROR(Close());
    }
    return absl::OkStatus();
  }

  absl::Status Finish() { return file_ == nullptr ? absl::OkStatus() : Close(); }

  uint64_t shards() const { return shards_; }

 private:
  std::string Path() const { return prefix_ + absl::StrFormat("_%06d.bin", shards_); }
  std::string PartPath() const { return Path() + ".part"; }

  absl::Status Open() {
    tokens_ = 0;
    maximum_ = 0;
    buffer_ = ShardHeader(shard_tokens_, token_bytes_);
    STARLING_ASSIGN_OR_RETURN(file_, disk_->Create(PartPath()));
    return absl::OkStatus();
  }

  void Encode(const uint32_t* tokens, size_t count) {
    const size_t at = buffer_.size();
    buffer_.resize(at + count * token_bytes_);
    char* to = buffer_.data() + at;
    for (size_t i = 0; i < count; ++i) {
      maximum_ = std::max(maximum_, tokens[i]);
      for (uint32_t byte = 0; byte < token_bytes_; ++byte) {
        *to++ = static_cast<char>(tokens[i] >> (8 * byte));
      }
    }
  }

  absl::Status Flush() {
    const absl::Status status = file_->Append(buffer_.data(), buffer_.size());
    buffer_.clear();
    return status;
  }

  absl::Status Close() {
    STARLING_CHECK_LT(maximum_, index_->vocabulary);
    STARLING_RETURN_IF_ERROR(Flush());
    if (tokens_ == shard_tokens_) {
      STARLING_RETURN_IF_ERROR(file_->Sync());
      file_.reset();
      STARLING_RETURN_IF_ERROR(disk_->Rename(PartPath(), Path()));
    } else {
      file_.reset();
      STARLING_RETURN_IF_ERROR(CopyUnderItsHeader());
    }
    STARLING_ASSIGN_OR_RETURN(const TokenShard shard,
                              OpenShard(*disk_, Path(), ShardFormat::kLlmC));
    index_->shards[Path().substr(Path().rfind('/') + 1)] = {tokens_, maximum_,
                                                            FingerprintOf(shard.tokens)};
    ++shards_;
    return absl::OkStatus();
  }

  absl::Status CopyUnderItsHeader() {
    {
      STARLING_ASSIGN_OR_RETURN(const Blob part, disk_->Map(PartPath()));
      STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, disk_->Create(Path()));
      const std::string header = ShardHeader(tokens_, token_bytes_);
      STARLING_RETURN_IF_ERROR(file->Append(header.data(), header.size()));
      for (size_t at = kShardHeaderBytes; at < part.size_bytes(); at += kBufferBytes) {
        STARLING_RETURN_IF_ERROR(
            file->Append(part.data() + at, std::min(kBufferBytes, part.size_bytes() - at)));
      }
      STARLING_RETURN_IF_ERROR(file->Sync());
    }
    return disk_->RemoveFile(PartPath());
  }

  Disk* const disk_;
  const std::string prefix_;
  const uint64_t shard_tokens_;
  const uint32_t token_bytes_;
  ShardIndex* const index_;
  uint64_t shards_ = 0;
  std::unique_ptr<WritableFile> file_;  // the part under way, or null
  std::string buffer_;                  // not yet in the file
  uint64_t tokens_ = 0;                 // of the part
  uint32_t maximum_ = 0;
};

TokenWriter::TokenWriter(Disk* disk, std::string out, const Tokenizer& tokenizer,
                         TokenWriterOptions options)
    : disk_(disk),
      out_(std::move(out)),
      temporary_(out_ + kTemporarySuffix),
      options_(std::move(options)),
      tokenizer_files_(tokenizer.files()) {
  index_.tokenizer = tokenizer.name();
  index_.vocabulary = VocabularyOf(tokenizer, options_.separate);
  if (options_.separate) index_.separator = tokenizer.separator();
  train_ = std::make_unique<Series>(disk_, temporary_ + "/train", options_.shard_tokens, &index_);
  validation_ =
      std::make_unique<Series>(disk_, temporary_ + "/val", options_.shard_tokens, &index_);
}

TokenWriter::~TokenWriter() {
  if (!published_) disk_->RemoveTree(temporary_).IgnoreError();
}

absl::StatusOr<std::unique_ptr<TokenWriter>> TokenWriter::Begin(Disk* disk, const std::string& out,
                                                                const Tokenizer& tokenizer,
                                                                TokenWriterOptions options) {
  STARLING_CHECK(options.shard_tokens >= 1 && options.shard_tokens <= kMaxShardTokens);
  const std::string folder = WithoutSlashes(out);
  if (disk->Exists(folder)) {
    const auto names = disk->List(folder);
    if (!names.ok() || !names->empty()) {
      return absl::AlreadyExistsError(
          absl::StrCat(folder, names.ok() ? " is not empty" : " is no folder",
                       ": nothing is overwritten; give a folder that does not exist yet"));
    }
  }
  const std::string temporary = folder + kTemporarySuffix;
  if (disk->Exists(temporary)) {
    return absl::AlreadyExistsError(
        absl::StrCat(temporary, " is in the way: remove it if nobody is writing to it"));
  }
  STARLING_RETURN_IF_ERROR(disk->MakeDirectories(temporary));
  return std::unique_ptr<TokenWriter>(new TokenWriter(disk, folder, tokenizer, std::move(options)));
}

absl::Status TokenWriter::Add(const uint32_t* tokens, size_t count, bool ends) {
  const bool judged = IsForValidation(options_.validation, totals_.documents);
  (judged ? totals_.validation_tokens : totals_.train_tokens) += count;
  if (ends) ++totals_.documents;
  return (judged ? validation_ : train_)->Add(tokens, count);
}

absl::Status TokenWriter::WriteTokenizerFiles() {
  if (tokenizer_files_.empty()) return absl::OkStatus();
  const std::string folder = absl::StrCat(temporary_, "/", kShardTokenizerName);
  STARLING_RETURN_IF_ERROR(disk_->MakeDirectories(folder));
  for (const TokenizerFile& file : tokenizer_files_) {
    STARLING_RETURN_IF_ERROR(WriteFile(*disk_, absl::StrCat(folder, "/", file.name), file.bytes));
  }
  return disk_->SyncDirectory(folder);
}

absl::Status TokenWriter::Publish() {
  STARLING_CHECK(!published_);
  if (totals_.train_tokens == 0) {
    return absl::InvalidArgumentError(
        totals_.documents <= 1 && totals_.validation_tokens > 0
            ? "there is one document only, and --validation takes it: leave --validation out; "
              "data.validation can take the end of a single shard"
            : "there is no text to train on: all documents are empty");
  }
  STARLING_RETURN_IF_ERROR(train_->Finish());
  STARLING_RETURN_IF_ERROR(validation_->Finish());
  totals_.train_shards = train_->shards();
  totals_.validation_shards = validation_->shards();
  STARLING_RETURN_IF_ERROR(
      WriteFile(*disk_, absl::StrCat(temporary_, "/", kShardIndexName), PrintShardIndex(index_)));
  STARLING_RETURN_IF_ERROR(WriteTokenizerFiles());
  STARLING_RETURN_IF_ERROR(disk_->SyncDirectory(temporary_));
  STARLING_RETURN_IF_ERROR(disk_->Rename(temporary_, out_));
  published_ = true;
  return disk_->SyncDirectory(ParentOf(out_));
}

}  // namespace starling
