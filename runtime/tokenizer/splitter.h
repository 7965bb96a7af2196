// Splitter: cuts a text into the words that byte pair encoding sees one at a time, by the regular
// expressions of pre-tokenizers, PCRE2's with Unicode properties.
//
// Every match is a word, and so is what lies between two matches. With several patterns each cuts
// the words of the one before. `\s` is Unicode's White_Space, as in the programs that the patterns
// were written for (PCRE2's own has U+180E more).
//
// Thread safety: Cut may be called from any thread.
#ifndef STARLING_RUNTIME_TOKENIZER_SPLITTER_H_
#define STARLING_RUNTIME_TOKENIZER_SPLITTER_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace starling {

// GPT-2's: contractions, letters, numbers and others with at most one space before them; of several
// spaces the last goes with the word that follows.
extern const char kGpt2Pattern[];

class Splitter {
 public:
  using Sink = std::function<absl::Status(const char* word, size_t bytes)>;

  // No pattern: a text is one word. Invalid argument: not a regular expression; says where.
  static absl::StatusOr<std::unique_ptr<Splitter>> Make(const std::vector<std::string>& patterns);
  ~Splitter();

  // Gives `sink` the words of valid UTF-8 in order, none empty; together they are the text. Stops
  // at the first error of `sink` and returns it. Invalid argument: the text takes more steps to
  // match than are allowed.
  absl::Status Cut(const char* text, size_t bytes, const Sink& sink) const;

  const std::vector<std::string>& patterns() const { return patterns_; }

 private:
  class Pattern;
  class Scratch;

  Splitter();
  absl::Status CutBy(size_t pattern, const char* text, size_t bytes, Scratch* scratch,
                     const Sink& sink) const;

  std::vector<std::string> patterns_;
  std::vector<std::unique_ptr<Pattern>> compiled_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_SPLITTER_H_
