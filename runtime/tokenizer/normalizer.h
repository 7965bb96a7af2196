// Unicode's normal forms, as normalizers of tokenizers apply them (Unicode Standard Annex 15).
#ifndef STARLING_RUNTIME_TOKENIZER_NORMALIZER_H_
#define STARLING_RUNTIME_TOKENIZER_NORMALIZER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace starling {

enum class NormalForm : uint8_t { kNone, kNfc, kNfd, kNfkc, kNfkd };

const char* ToString(NormalForm form);  // "NFC"

// Valid UTF-8 to valid UTF-8. Resource exhausted: too little memory.
absl::StatusOr<std::string> Normalize(NormalForm form, const char* text, size_t bytes);

// True where `form` surely changes nothing: of ASCII.
bool IsNormalAscii(const char* text, size_t bytes);

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_NORMALIZER_H_
