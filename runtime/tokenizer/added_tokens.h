// AddedTokens: texts that are one token wherever they stand, such as "<|endoftext|>", found before
// anything else looks at a text: the leftmost, of those the longest.
//
// Thread safety: const methods may be called from any thread.
#ifndef STARLING_RUNTIME_TOKENIZER_ADDED_TOKENS_H_
#define STARLING_RUNTIME_TOKENIZER_ADDED_TOKENS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace starling {

class AddedTokens {
 public:
  AddedTokens() = default;
  // Texts and their tokens; none is empty.
  explicit AddedTokens(std::vector<std::pair<std::string, uint32_t>> tokens);

  struct Found {
    const char* begin = nullptr;  // `end` of the text where there is none
    size_t bytes = 0;
    uint32_t token = 0;
  };

  // The first in [begin, end).
  Found Find(const char* begin, const char* end) const;

  bool empty() const { return tokens_.empty(); }

 private:
  // By first byte, longer ones first.
  std::vector<std::pair<std::string, uint32_t>> tokens_;
  std::array<uint32_t, 257> first_ = {};  // of tokens_ that begin with a byte
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_ADDED_TOKENS_H_
