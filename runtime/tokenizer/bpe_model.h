// BpeModel: byte pair encoding of one word (Sennrich, Haddow, Birch 2016, over bytes): while any
// two neighbours have a merge, the one of the lowest rank is made, the leftmost of equals.
//
// Thread safety: const methods may be called from any thread.
#ifndef STARLING_RUNTIME_TOKENIZER_BPE_MODEL_H_
#define STARLING_RUNTIME_TOKENIZER_BPE_MODEL_H_

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/flat_map.h"

namespace starling {

struct BpeParts {
  std::vector<std::pair<std::string, uint32_t>> tokens;     // bytes and id; neither twice
  std::vector<std::pair<std::string, std::string>> merges;  // by rank; of a pair twice, the last
  bool ignore_merges = false;  // a word that is a token is that token, merges or not
};

class BpeModel {
 public:
  // Invalid argument, one line: a merge names what is no token.
  static absl::StatusOr<BpeModel> Make(const BpeParts& parts);

  // Appends the tokens of a word, whatever its length, in about its length times its logarithm.
  //   invalid argument: a byte of it is no token.
  absl::Status Encode(const char* word, size_t bytes, std::vector<uint32_t>* tokens) const;

  size_t merges() const { return merge_count_; }
  size_t missing_bytes() const;  // of 256, that are no token

 private:
  BpeModel() { byte_tokens_.fill(kNoToken); }

  static constexpr uint32_t kNoToken = ~uint32_t{0};
  static constexpr uint64_t kNoMerge = ~uint64_t{0};

  // rank << 32 | token that is made.
  uint64_t MergeOf(uint32_t left, uint32_t right) const {
    const uint64_t* const found = merges_.Find(static_cast<uint64_t>(left) << 32 | right);
    return found == nullptr ? kNoMerge : *found;
  }
  void MergeShort(uint32_t* symbols, size_t count, std::vector<uint32_t>* tokens) const;
  void MergeLong(const std::vector<uint32_t>& symbols, std::vector<uint32_t>* tokens) const;
  absl::Status Merge(const char* word, size_t bytes, std::vector<uint32_t>* tokens) const;

  std::array<uint32_t, 256> byte_tokens_;
  NumberMap merges_;  // left << 32 | right to MergeOf
  size_t merge_count_ = 0;
  BytesMap words_;  // those that are one token
  std::vector<uint32_t> word_tokens_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_BPE_MODEL_H_
