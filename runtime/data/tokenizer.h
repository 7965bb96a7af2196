// Tokenizer: text to tokens and back. The seam for others than bytes: a new one is a class here and
// a line in MakeTokenizer.
//
// Thread safety: const methods may be called from any thread.
#ifndef STARLING_RUNTIME_DATA_TOKENIZER_H_
#define STARLING_RUNTIME_DATA_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace starling {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Goes into shards.json and the run file; MakeTokenizer(name()) makes its like.
  virtual std::string name() const = 0;
  // Every token of text is below it.
  virtual uint32_t vocabulary() const = 0;
  // The token that stands between documents; may be vocabulary(), one beyond all of text.
  virtual uint32_t separator() const = 0;
  // Whether text may be cut anywhere: the tokens of two parts are those of the whole.
  virtual bool divisible() const = 0;

  // Appends the tokens of a document, or of a part of one where divisible(). Invalid argument: it
  // cannot be said in tokens.
  virtual absl::Status Encode(const char* text, size_t bytes,
                              std::vector<uint32_t>* tokens) const = 0;
  // The text of tokens; separators and tokens of no text give none.
  virtual std::string Decode(const std::vector<uint32_t>& tokens) const = 0;
};

// Invalid argument: there is none of that name; the message lists them.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const std::string& name);

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_TOKENIZER_H_
