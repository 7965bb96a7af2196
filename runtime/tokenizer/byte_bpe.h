// ByteBpeTokenizer: byte-level BPE as GPT-2 (Radford et al. 2019, section 2.2), Llama 3 and their
// like have it. tokenizer_json.h reads its parts from files.
//
// A text goes through: added tokens that see it as it is; the normal form; added tokens that see
// the normal form; the splitter; the model. Bytes that are no UTF-8 are not shown to any of these
// but the model: each run of them is a word of its own. So every text has tokens, and where the
// normal form is kNone their bytes are the text.
#ifndef STARLING_RUNTIME_TOKENIZER_BYTE_BPE_H_
#define STARLING_RUNTIME_TOKENIZER_BYTE_BPE_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/tokenizer/added_tokens.h"
#include "runtime/tokenizer/bpe_model.h"
#include "runtime/tokenizer/normalizer.h"
#include "runtime/tokenizer/splitter.h"
#include "runtime/tokenizer/tokenizer.h"

namespace starling {

struct AddedToken {
  std::string text;
  uint32_t id = 0;
  bool special = false;     // is no text: Decode gives nothing for it
  bool normalized = false;  // looked for in the normal form
};

struct ByteBpeParts {
  BpeParts model;
  // Of the vocabulary that are no bytes in the alphabet: no text becomes them, they become this.
  std::vector<std::pair<std::string, uint32_t>> literals;
  std::vector<AddedToken> added;
  NormalForm normal_form = NormalForm::kNone;
  std::vector<std::string> patterns;  // of the splitter
  bool space_first = false;  // a space before a text, and behind an added token, that has none
  std::vector<uint32_t> prefix;
  std::string separator;  // an added token or one of the vocabulary; empty: the one beyond all
  std::vector<TokenizerFile> files;
};

// Invalid argument, one line without a file's name: the parts do not fit each other.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeByteBpe(ByteBpeParts parts);

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_BYTE_BPE_H_
