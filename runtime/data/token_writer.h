// TokenWriter: tokenized documents to a folder of shards, all or nothing.
//
//   auto writer = TokenWriter::Begin(&disk, out, tokenizer, options);
//   ...for each part of each document, in order: writer->Add(tokens, count, ends)...
//   writer->Publish();        // only now is there a folder `out`
//
// The folder gets train_000000.bin, train_000001.bin, ... and val_000000.bin, ..., llm.c's format,
// 16-bit tokens where they fit, else 32-bit, shards.json (shard_index.h), and the tokenizer's own
// files, if it has any, in a folder `tokenizer`. Every shard but the
// last of its kind has exactly `shard_tokens`; documents are cut where one is full. What is written
// depends on the documents and options alone. All is written and synced under a temporary folder
// beside `out` (its name and ".tmp") and published by one rename; a writer that is destroyed before
// removes it.
//
// Threads: any one at a time. Memory: a buffer of a few MiB, whatever the shards' size.
#ifndef STARLING_RUNTIME_DATA_TOKEN_WRITER_H_
#define STARLING_RUNTIME_DATA_TOKEN_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/data/shard_index.h"
#include "runtime/env/file_system.h"
#include "runtime/tokenizer/tokenizer.h"

namespace starling {

struct TokenWriterOptions {
  uint64_t shard_tokens = 100'000'000;  // 1 to kMaxShardTokens
  double validation = 0;                // share of the documents, spread evenly over all of them
  bool separate = true;                 // documents end with Tokenizer::separator
};

// Of documents 0, 1, ...: whether `number` is for validation. The first of every 1 / share is.
bool IsForValidation(double share, uint64_t number);

class TokenWriter {
 public:
  struct Totals {
    uint64_t documents = 0;
    uint64_t train_tokens = 0;
    uint64_t validation_tokens = 0;
    uint64_t train_shards = 0;
    uint64_t validation_shards = 0;
  };

  // `disk` must outlive it. Already exists: `out` is there and is not an empty folder, or its
  // temporary folder is.
  static absl::StatusOr<std::unique_ptr<TokenWriter>> Begin(Disk* disk, const std::string& out,
                                                            const Tokenizer& tokenizer,
                                                            TokenWriterOptions options);
  ~TokenWriter();
  TokenWriter(const TokenWriter&) = delete;
  TokenWriter& operator=(const TokenWriter&) = delete;

  // The next tokens of the document under way; `ends`: its last ones. Errors are the disk's.
  absl::Status Add(const uint32_t* tokens, size_t count, bool ends);

  // Once, after the last document. Invalid argument: there are no tokens to train on.
  absl::Status Publish();

  const Totals& totals() const { return totals_; }
  const std::string& folder() const { return out_; }
  uint32_t vocabulary() const { return index_.vocabulary; }

 private:
  class Series;

  absl::Status WriteTokenizerFiles();

  TokenWriter(Disk* disk, std::string out, const Tokenizer& tokenizer, TokenWriterOptions options);

  Disk* const disk_;
  const std::string out_;
  const std::string temporary_;
  const TokenWriterOptions options_;
  ShardIndex index_;
  const std::vector<TokenizerFile> tokenizer_files_;
  Totals totals_;
  bool published_ = false;
  std::unique_ptr<Series> train_;
  std::unique_ptr<Series> validation_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_TOKEN_WRITER_H_
