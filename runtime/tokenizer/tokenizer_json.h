// The files of byte-level BPE: Hugging Face's tokenizer.json, or vocab.json and merges.txt as GPT-2
// was published. docs/data.md says what of them is understood.
//
// Errors, one line without the file's name: data loss = damaged or not such a file; invalid
// argument = something in it is not understood, which is named.
#ifndef STARLING_RUNTIME_TOKENIZER_TOKENIZER_JSON_H_
#define STARLING_RUNTIME_TOKENIZER_TOKENIZER_JSON_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/byte_bpe.h"

namespace starling {

// What tokenizer_config.json says of begin and end.
struct TokenizerConfig {
  std::string eos;                // empty: not said
  std::string bos;                // empty: not said
  std::optional<bool> bos_first;  // add_bos_token
};

absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(const std::string& text);

// `parts.files` is left empty, `parts.separator` is what `config` says, or else a well-known end.
absl::StatusOr<ByteBpeParts> ParseTokenizerJson(const std::string& text,
                                                const TokenizerConfig& config);

// GPT-2's pattern; `vocab` is vocab.json, `merges` is merges.txt.
absl::StatusOr<ByteBpeParts> ParseVocabAndMerges(const std::string& vocab,
                                                 const std::string& merges,
                                                 const TokenizerConfig& config);

// The three files that say a tokenizer of GPT-2's kind: bytes of each token in the order of their
// ids, merges by rank, and the text of the separator, which has the id behind them.
struct Gpt2Files {
  std::string vocab_json;
  std::string merges_txt;
  std::string tokenizer_json;
};
Gpt2Files PrintGpt2Files(const std::vector<std::string>& tokens,
                         const std::vector<std::pair<std::string, std::string>>& merges,
                         const std::string& separator);

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_TOKENIZER_JSON_H_
