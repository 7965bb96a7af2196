#include "runtime/tokenizer/text_stream.h"

#include <utility>

#include "runtime/tokenizer/utf8.h"

namespace starling {

std::string TextStream::Push(uint32_t token) {
  std::string text = std::move(waiting_) + tokenizer_->TextOf(token);
  const size_t whole = text.size() - UnfinishedUtf8Suffix(text);
  waiting_ = text.substr(whole);
  text.resize(whole);
  return text;
}

std::string TextStream::Finish() { return std::exchange(waiting_, std::string()); }

}  // namespace starling
