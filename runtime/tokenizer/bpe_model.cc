#include "runtime/tokenizer/bpe_model.h"

#include <algorithm>
#include <queue>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/status_macros.h"
#include "runtime/tokenizer/byte_alphabet.h"

namespace starling {
namespace {

constexpr size_t kShort = 48;  // symbols, up to which looking at all of them is the faster way

}  // namespace

absl::StatusOr<BpeModel> BpeModel::Make(const BpeParts& parts) {
  BpeModel model;
  BytesMap known;
  std::vector<uint32_t> ids;
  for (const auto& [bytes, id] : parts.tokens) {
    known.Add(bytes.data(), bytes.size());
    ids.push_back(id);
    if (bytes.size() == 1) model.byte_tokens_[static_cast<unsigned char>(bytes[0])] = id;
  }
  const auto find = [&](const std::string& bytes) {
    const uint32_t number = known.Find(bytes.data(), bytes.size());
    return number == BytesMap::kNone ? kNoToken : ids[number];
  };
  for (uint64_t rank = 0; rank < parts.merges.size(); ++rank) {
    const auto& [left, right] = parts.merges[rank];
    for (const std::string& part : {left, right, left + right}) {
      if (find(part) != kNoToken) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("merge ", rank + 1, " (\"", ToByteAlphabet(left), " ", ToByteAlphabet(right),
                       "\") names \"", ToByteAlphabet(part), "\", which is not in the vocabulary"));
    }
    model.merges_.At(static_cast<uint64_t>(find(left)) << 32 | find(right)) =
        rank << 32 | find(left + right);
  }
  model.merge_count_ = parts.merges.size();
  // Most words of a text are one token: known here, they need no merging.
  std::vector<uint32_t> tokens;
  for (const auto& [bytes, id] : parts.tokens) {
    tokens.clear();
    if (!parts.ignore_merges) {
      if (!model.Merge(bytes.data(), bytes.size(), &tokens).ok()) continue;
      if (tokens.size() != 1 || tokens[0] != id) continue;
    }
    model.words_.Add(bytes.data(), bytes.size());
    model.word_tokens_.push_back(id);
  }
  return model;
}

size_t BpeModel::missing_bytes() const {
  return static_cast<size_t>(std::count(byte_tokens_.begin(), byte_tokens_.end(), kNoToken));
}

absl::Status BpeModel::Encode(const char* word, size_t bytes, std::vector<uint32_t>* tokens) const {
  const uint32_t whole = words_.Find(word, bytes);
  if (whole != BytesMap::kNone) {
    tokens->push_back(word_tokens_[whole]);
    return absl::OkStatus();
  }
  return Merge(word, bytes, tokens);
}

absl::Status BpeModel::Merge(const char* word, size_t bytes, std::vector<uint32_t>* tokens) const {
  uint32_t few[kShort];
  std::vector<uint32_t> many;
  if (bytes > kShort) many.resize(bytes);
  uint32_t* const symbols = bytes > kShort ? many.data() : few;
  for (size_t i = 0; i < bytes; ++i) {
    symbols[i] = byte_tokens_[static_cast<unsigned char>(word[i])];
    if (symbols[i] == kNoToken) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "the tokenizer has no token for byte 0x%02x", static_cast<unsigned char>(word[i])));
    }
  }
  if (bytes > kShort) {
    MergeLong(many, tokens);
  } else {
    MergeShort(symbols, bytes, tokens);
  }
  return absl::OkStatus();
}

void BpeModel::MergeShort(uint32_t* symbols, size_t count, std::vector<uint32_t>* tokens) const {
  uint64_t merges[kShort];  // of symbols i and i + 1
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = MergeOf(symbols[i], symbols[i + 1]);
  while (count > 1) {
    const auto best = static_cast<size_t>(std::min_element(merges, merges + count - 1) - merges);
    if (merges[best] == kNoMerge) break;
    symbols[best] = static_cast<uint32_t>(merges[best]);
    std::copy(symbols + best + 2, symbols + count, symbols + best + 1);
    std::copy(merges + best + 1, merges + count - 1, merges + best);
    --count;
    if (best > 0) merges[best - 1] = MergeOf(symbols[best - 1], symbols[best]);
    if (best + 1 < count) merges[best] = MergeOf(symbols[best], symbols[best + 1]);
  }
  tokens->insert(tokens->end(), symbols, symbols + count);
}

void BpeModel::MergeLong(const std::vector<uint32_t>& symbols,
                         std::vector<uint32_t>* tokens) const {
  constexpr size_t kNowhere = ~size_t{0};
  struct Node {
    uint32_t symbol;
    size_t previous;
    size_t next;
  };
  struct Candidate {
    uint64_t merge;
    size_t at;
    uint32_t left;
    uint32_t right;
    bool operator<(const Candidate& other) const {  // the best on top
      if (merge >> 32 != other.merge >> 32) return merge > other.merge;
      return at > other.at;
    }
  };
  std::vector<Node> nodes;
  std::priority_queue<Candidate> queue;
  const auto propose = [&](size_t at) {
    if (at == kNowhere || nodes[at].next == kNowhere) return;
    const uint32_t left = nodes[at].symbol;
    const uint32_t right = nodes[nodes[at].next].symbol;
    const uint64_t merge = MergeOf(left, right);
    if (merge != kNoMerge) queue.push({merge, at, left, right});
  };
  for (size_t i = 0; i < symbols.size(); ++i) {
    nodes.push_back(
        {symbols[i], i == 0 ? kNowhere : i - 1, i + 1 == symbols.size() ? kNowhere : i + 1});
  }
  for (size_t i = 0; i < nodes.size(); ++i) propose(i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Node& node = nodes[top.at];
    // A node that was taken into its left neighbour has no symbol any more.
    if (node.symbol != top.left || node.next == kNowhere || nodes[node.next].symbol != top.right) {
      continue;
    }
    const size_t taken = node.next;
    node.symbol = static_cast<uint32_t>(top.merge);
    node.next = nodes[taken].next;
    nodes[taken].symbol = kNoToken;
    if (node.next != kNowhere) nodes[node.next].previous = top.at;
    propose(node.previous);
    propose(top.at);
  }
  for (size_t at = 0; at != kNowhere; at = nodes[at].next) tokens->push_back(nodes[at].symbol);
}

}  // namespace starling
