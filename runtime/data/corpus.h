// Corpus: what a run learns from and what it is judged by, as tokens. From text, whose tokens are
// its bytes, or from token shards.
//
// Files are taken in the order of their paths; their tokens follow each other as one stream. For
// validation are the last files (the end of the file, where there is one only), or the shards that
// data.validation_shards names. Text is held in memory, shards are mapped.
#ifndef STARLING_RUNTIME_DATA_CORPUS_H_
#define STARLING_RUNTIME_DATA_CORPUS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/config/run_config.h"
#include "runtime/data/text.h"
#include "runtime/data/token_stream.h"
#include "runtime/env/file_system.h"

namespace starling {

struct Corpus {
  TokenStream train;
  TokenStream validation;  // empty where nothing is kept for it
  // Runs with equal ones see equal data: of text, of all its bytes (text.h); of shards, of their
  // lengths and fingerprints.
  std::string sha256;
  uint64_t train_files = 0;
  uint64_t validation_files = 0;  // 0 where one file was cut in two
  bool from_shards = false;
  std::string tokenizer;  // Tokenizer::name, as the run or the shards say; empty: not known

  bool tokens_are_bytes() const { return tokenizer == "bytes"; }
};

Corpus CorpusOf(const Text& text);

// Finds (glob.h) and opens what the run file names. Of shards it reads three pages each and their
// shards.json, and checks them against each other and against model.vocabulary; all other tokens
// are checked as they are read (data_feed.h).
//
// Errors, one line that names key and file: not found and others as glob.h and the disk have them;
// invalid argument = a token or a vocabulary that the model does not have, another tokenizer, not a
// shard; data loss = cut off, or not what shards.json lists.
absl::StatusOr<Corpus> LoadCorpus(Disk& disk, const RunConfig& config);

// The same for shards that were found already; sorted by path.
absl::StatusOr<Corpus> LoadShards(Disk& disk, const RunConfig& config,
                                  const std::vector<std::string>& train,
                                  const std::vector<std::string>& validation);

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_CORPUS_H_
