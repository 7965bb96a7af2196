// TextStream: text from tokens that come one by one, in whole characters.
//
//   TextStream stream(&tokenizer);
//   for (...) Write(stream.Push(token));
//   Write(stream.Finish());
//
// A token may end within a character: those bytes wait for the rest. Bytes that cannot become a
// character are not changed: the pieces together are the bytes that the tokens say.
//
// Threads: any one at a time.
#ifndef STARLING_RUNTIME_TOKENIZER_TEXT_STREAM_H_
#define STARLING_RUNTIME_TOKENIZER_TEXT_STREAM_H_

#include <cstdint>
#include <string>

#include "runtime/tokenizer/tokenizer.h"

namespace starling {

class TextStream {
 public:
  // `tokenizer` must outlive it.
  explicit TextStream(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}

  // What can be shown now, maybe nothing.
  std::string Push(uint32_t token);
  // What still waited; the stream is as new.
  std::string Finish();

 private:
  const Tokenizer* const tokenizer_;
  std::string waiting_;  // at most 3 bytes between calls
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_TEXT_STREAM_H_
