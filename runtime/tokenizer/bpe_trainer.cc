#include "runtime/tokenizer/bpe_trainer.h"

#include <algorithm>
#include <queue>

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/tokenizer/byte_alphabet.h"
#include "runtime/tokenizer/utf8.h"

namespace starling {
namespace {

constexpr size_t kMaxWordBytes = 256;
constexpr uint32_t kProgressEvery = 64;
constexpr uint64_t kLeastCount = 2;

uint64_t KeyOf(uint32_t left, uint32_t right) { return static_cast<uint64_t>(left) << 32 | right; }

class Trainer {
 public:
  explicit Trainer(const WordCounts& counts) {
    for (const unsigned char byte : BytesInAlphabetOrder()) {
      const char text = static_cast<char>(byte);
      token_of_byte_[byte] = ids_.Add(&text, 1);
    }
    for (const auto& [text, count] : counts.Sorted()) {
      Word word{{}, count};
      for (const char c : text)
        word.symbols.push_back(token_of_byte_[static_cast<unsigned char>(c)]);
      words_.push_back(std::move(word));
      CountPairs(static_cast<uint32_t>(words_.size() - 1), /*only=*/kAll);
    }
    for (const Pair& pair : pairs_) queue_.push({pair.count, pair.key});
  }

  TrainedBpe Run(uint32_t tokens, const std::function<void(uint32_t)>& progress) {
    TrainedBpe result;
    uint64_t key = 0;
    while (ids_.strings().size() < tokens && TakeBest(&key)) {
      const std::string left = ids_.strings()[key >> 32];
      const std::string right = ids_.strings()[key & 0xffffffff];
      const std::string both = left + right;
      // Two pairs can make the same bytes; they are one token.
      Merge(key, ids_.Add(both.data(), both.size()));
      result.merges.emplace_back(left, right);
      if (ids_.strings().size() % kProgressEvery == 0) {
        progress(static_cast<uint32_t>(ids_.strings().size()));
      }
    }
    result.tokens = ids_.strings();
    return result;
  }

 private:
  static constexpr uint32_t kAll = ~uint32_t{0};

  struct Word {
    std::vector<uint32_t> symbols;
    uint64_t count = 0;
  };
  struct Pair {
    uint64_t key = 0;
    uint64_t count = 0;
    std::vector<uint32_t> words;  // that have it, or had it
  };
  struct Candidate {
    uint64_t count;
    uint64_t key;
    bool operator<(const Candidate& other) const {  // the best on top
      return count != other.count ? count < other.count : key > other.key;
    }
  };

  Pair& PairOf(uint64_t key) {
    uint64_t& number = pair_numbers_.At(key);
    if (number == 0) {
      pairs_.push_back({key, 0, {}});
      number = pairs_.size();
    }
    return pairs_[number - 1];
  }

  // Adds the pairs of a word; notes the word with those of token `only`, or with all.
  void CountPairs(uint32_t number, uint32_t only) {
    const Word& word = words_[number];
    for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      const uint32_t left = word.symbols[i];
      const uint32_t right = word.symbols[i + 1];
      Pair& pair = PairOf(KeyOf(left, right));
      pair.count += word.count;
      if (only != kAll && left != only && right != only) continue;
      if (pair.words.empty() || pair.words.back() != number) pair.words.push_back(number);
      if (only != kAll) grown_.push_back(pair.key);
    }
  }

  // Counts only fall between two visits of a candidate, but for pairs of the newest token, which
  // are pushed again: so the first whose count is still right is the best.
  bool TakeBest(uint64_t* key) {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      const uint64_t count = PairOf(top.key).count;
      if (count == top.count && count >= kLeastCount) {
        *key = top.key;
        return true;
      }
      if (count < top.count && count >= kLeastCount) queue_.push({count, top.key});
    }
    return false;
  }

  void Merge(uint64_t key, uint32_t made) {
    const auto left = static_cast<uint32_t>(key >> 32);
    const auto right = static_cast<uint32_t>(key);
    grown_.clear();
    for (const uint32_t number : std::exchange(PairOf(key).words, {})) {
      std::vector<uint32_t>& symbols = words_[number].symbols;
      bool has = false;
      for (size_t i = 0; i + 1 < symbols.size() && !has; ++i) {
        has = symbols[i] == left && symbols[i + 1] == right;
      }
      if (!has) continue;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        PairOf(KeyOf(symbols[i], symbols[i + 1])).count -= words_[number].count;
      }
      size_t to = 0;
      for (size_t from = 0; from < symbols.size(); ++to) {
        const bool merged =
            from + 1 < symbols.size() && symbols[from] == left && symbols[from + 1] == right;
        symbols[to] = merged ? made : symbols[from];
        from += merged ? 2 : 1;
      }
      symbols.resize(to);
      CountPairs(number, made);
    }
    std::sort(grown_.begin(), grown_.end());
    grown_.erase(std::unique(grown_.begin(), grown_.end()), grown_.end());
    for (const uint64_t grown : grown_) queue_.push({PairOf(grown).count, grown});
  }

  uint32_t token_of_byte_[256] = {};
  BytesMap ids_;  // bytes of tokens
  std::vector<Word> words_;
  std::vector<Pair> pairs_;
  NumberMap pair_numbers_;  // key to the place in pairs_, from 1
  std::vector<uint64_t> grown_;
  std::priority_queue<Candidate> queue_;
};

}  // namespace

WordCounts::WordCounts() {
  auto splitter = Splitter::Make({kGpt2Pattern});
  STARLING_CHECK(splitter.ok());
  splitter_ = *std::move(splitter);
}

absl::Status WordCounts::AddText(const char* text, size_t bytes) {
  const char* at = text;
  const char* const end = text + bytes;
  while (at < end) {
    const size_t valid = ValidUtf8Prefix(at, end);
    STARLING_RETURN_IF_ERROR(splitter_->Cut(at, valid, [this](const char* word, size_t size) {
      Add(word, size, 1);
      return absl::OkStatus();
    }));
    at += valid;
    const size_t invalid = InvalidUtf8Prefix(at, end);
    if (invalid > 0) Add(at, invalid, 1);
    at += invalid;
  }
  return absl::OkStatus();
}

void WordCounts::Add(const char* word, size_t bytes, uint64_t count) {
  if (bytes > kMaxWordBytes) return;
  const uint32_t number = words_.Add(word, bytes);
  if (number == counts_.size()) counts_.push_back(0);
  counts_[number] += count;
}

void WordCounts::Add(const WordCounts& other) {
  const std::vector<std::string>& words = other.words_.strings();
  for (size_t i = 0; i < words.size(); ++i) Add(words[i].data(), words[i].size(), other.counts_[i]);
}

std::vector<std::pair<std::string, uint64_t>> WordCounts::Sorted() const {
  std::vector<std::pair<std::string, uint64_t>> sorted;
  for (size_t i = 0; i < counts_.size(); ++i) sorted.emplace_back(words_.strings()[i], counts_[i]);
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

TrainedBpe TrainBpe(const WordCounts& counts, uint32_t tokens,
                    const std::function<void(uint32_t)>& progress) {
  return Trainer(counts).Run(tokens, progress);
}

}  // namespace starling
