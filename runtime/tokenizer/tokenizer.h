// Tokenizer: text to tokens and back. Bytes are here; what is read from files (byte-level BPE,
// sentencepiece) is in tokenizer_files.h, a library of its own.
//
// Thread safety: const methods may be called from any thread.
#ifndef STARLING_RUNTIME_TOKENIZER_TOKENIZER_H_
#define STARLING_RUNTIME_TOKENIZER_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace starling {

struct TokenizerFile {
  std::string name;  // within its folder
  std::string bytes;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // "bytes", or a kind and a hash of everything that decides about tokens: "bpe-0f1e2d3c4b5a6978".
  // Tokenizers of equal names make equal tokens. Goes into shards.json and the run file.
  virtual std::string name() const = 0;
  // In words, for users.
  virtual std::string description() const { return name(); }
  // Every token of text is below it.
  virtual uint32_t vocabulary() const = 0;
  // The token that stands between documents; may be vocabulary(), one beyond all of text.
  virtual uint32_t separator() const = 0;
  // What stands before each document and each prompt (a token for the begin); mostly nothing.
  virtual std::vector<uint32_t> prefix() const { return {}; }
  // Whether text may be cut anywhere: the tokens of two parts are those of the whole.
  virtual bool divisible() const = 0;

  // Appends the tokens of a document, or of a part of one where divisible(). Invalid argument: it
  // cannot be said in tokens.
  virtual absl::Status Encode(const char* text, size_t bytes,
                              std::vector<uint32_t>* tokens) const = 0;
  // The text of tokens; separators and tokens of no text give none.
  virtual std::string Decode(const std::vector<uint32_t>& tokens) const = 0;
  // The bytes that a token adds behind others; not always whole characters (text_stream.h).
  virtual std::string TextOf(uint32_t token) const { return Decode({token}); }

  // What to write into a folder to have the same tokenizer there; none: its name is enough.
  virtual const std::vector<TokenizerFile>& files() const;
};

// Of those that need no file. Invalid argument: there is none of that name; the message lists them.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const std::string& name);

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_TOKENIZER_H_
