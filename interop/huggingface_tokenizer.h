// The tokenizer that stands beside a model of Hugging Face.
//
// Pure functions.
#ifndef STARLING_INTEROP_HUGGINGFACE_TOKENIZER_H_
#define STARLING_INTEROP_HUGGINGFACE_TOKENIZER_H_

#include <cstdint>
#include <vector>

#include "interop/huggingface_config.h"
#include "runtime/tokenizer/tokenizer.h"

namespace starling {

// Its files, as Hugging Face looks for them. Those of "bytes" are a tokenizer.json of byte-level
// BPE without merges, in which token b is byte b.
std::vector<TokenizerFile> HuggingFaceTokenizerFiles(const Tokenizer& tokenizer);

// Tokens that a model with this vocabulary has.
HuggingFaceEnds EndsOf(const Tokenizer& tokenizer, int64_t vocabulary);

// Whether its tokens are those of "bytes", whatever its name is.
bool MakesBytes(const Tokenizer& tokenizer);

}  // namespace starling

#endif  // STARLING_INTEROP_HUGGINGFACE_TOKENIZER_H_
