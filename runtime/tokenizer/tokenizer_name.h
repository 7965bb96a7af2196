// The name of a tokenizer that was read from files.
#ifndef STARLING_RUNTIME_TOKENIZER_TOKENIZER_NAME_H_
#define STARLING_RUNTIME_TOKENIZER_TOKENIZER_NAME_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/tokenizer/tokenizer.h"

namespace starling {

// Says which tokens begin and end a text; not part of the vocabulary.
inline constexpr char kTokenizerConfigName[] = "tokenizer_config.json";

// "<kind>-" and 16 digits of a hash of the files but kTokenizerConfigName, separator and prefix.
std::string TokenizerName(const std::string& kind, const std::vector<TokenizerFile>& files,
                          uint32_t separator, const std::vector<uint32_t>& prefix);

// Whether a text is such a name.
bool IsTokenizerName(const std::string& text);

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_TOKENIZER_NAME_H_
