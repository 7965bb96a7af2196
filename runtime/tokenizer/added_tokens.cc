#include "runtime/tokenizer/added_tokens.h"

#include <algorithm>
#include <cstring>

namespace starling {
namespace {

unsigned char FirstByte(const std::string& text) { return static_cast<unsigned char>(text[0]); }

}  // namespace

AddedTokens::AddedTokens(std::vector<std::pair<std::string, uint32_t>> tokens)
    : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(), [](const auto& a, const auto& b) {
    if (a.first[0] != b.first[0]) return FirstByte(a.first) < FirstByte(b.first);
    if (a.first.size() != b.first.size()) return a.first.size() > b.first.size();
    return a.first < b.first;
  });
  for (const auto& token : tokens_) ++first_[FirstByte(token.first) + size_t{1}];
  for (size_t byte = 1; byte < first_.size(); ++byte) first_[byte] += first_[byte - 1];
}

AddedTokens::Found AddedTokens::Find(const char* begin, const char* end) const {
  if (tokens_.empty()) return {end, 0, 0};
  for (const char* at = begin; at < end; ++at) {
    const auto byte = static_cast<unsigned char>(*at);
    for (uint32_t i = first_[byte]; i < first_[byte + size_t{1}]; ++i) {
      const std::string& text = tokens_[i].first;
      if (text.size() <= static_cast<size_t>(end - at) &&
          std::memcmp(at, text.data(), text.size()) == 0) {
        return {at, text.size(), tokens_[i].second};
      }
    }
  }
  return {end, 0, 0};
}

}  // namespace starling
