// SentencePieceTokenizer: sentencepiece's unigram (Kudo 2018) and BPE, as its own program encodes.
//
// A text is normalized first: by the model's table, bytes that are no UTF-8 to U+FFFD, spaces to
// U+2581, mostly with one in front and none doubled. So a text comes back as it was only where the
// model's normalizer leaves it as it is.
#ifndef STARLING_RUNTIME_TOKENIZER_SENTENCEPIECE_H_
#define STARLING_RUNTIME_TOKENIZER_SENTENCEPIECE_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/sentencepiece_model.h"
#include "runtime/tokenizer/tokenizer.h"

namespace starling {

// The end piece is the separator; with `begin_first` the begin piece is the prefix.
//   data loss: bytes have no pieces although the model falls back on them; no begin piece.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePiece(SentencePieceModel model,
                                                             bool begin_first,
                                                             std::vector<TokenizerFile> files);

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_SENTENCEPIECE_H_
