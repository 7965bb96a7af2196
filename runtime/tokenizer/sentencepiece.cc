#include "runtime/tokenizer/sentencepiece.h"

#include <algorithm>
#include <array>
#include <cfloat>
#include <cstring>
#include <map>
#include <queue>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/tokenizer/flat_map.h"
#include "runtime/tokenizer/tokenizer_name.h"
#include "runtime/tokenizer/utf8.h"

namespace starling {
namespace {

constexpr char kSpace[] = "\xe2\x96\x81";  // U+2581
constexpr size_t kSpaceBytes = 3;
constexpr char kReplacement[] = "\xef\xbf\xbd";  // U+FFFD
constexpr float kUnknownPenalty = 10;
constexpr uint32_t kNone = ~uint32_t{0};

// A text within the normalized one.
struct View {
  size_t begin = 0;
  size_t size = 0;
};

// Bytes to numbers, byte by byte.
class Trie {
 public:
  void Add(const std::string& text, uint32_t value) {
    uint64_t node = 0;
    for (const char byte : text) {
      uint64_t& child = children_.At(node << 8 | static_cast<unsigned char>(byte));
      if (child == 0) {
        values_.push_back(kNone);
        child = values_.size() - 1;
      }
      node = child;
    }
    values_[node] = value;
  }
  // Goes on from a node (0: the root); false: nothing begins so.
  bool Step(uint64_t* node, char byte) const {
    const uint64_t* const child = children_.Find(*node << 8 | static_cast<unsigned char>(byte));
    if (child == nullptr) return false;
    *node = *child;
    return true;
  }
  uint32_t ValueAt(uint64_t node) const { return values_[node]; }

  // The bytes of the longest text in it that begins [begin, end); 0: none.
  size_t LongestPrefix(const char* begin, const char* end) const {
    size_t longest = 0;
    uint64_t node = 0;
    for (const char* at = begin; at < end && Step(&node, *at); ++at) {
      if (values_[node] != kNone) longest = static_cast<size_t>(at - begin) + 1;
    }
    return longest;
  }

 private:
  NumberMap children_;
  std::vector<uint32_t> values_{kNone};  // by node
};

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(SentencePieceModel model, std::vector<TokenizerFile> files)
      : model_(std::move(model)), files_(std::move(files)) {}

  absl::Status Prepare(bool begin_first);

  std::string name() const override { return name_; }
  std::string description() const override {
    const bool bpe = model_.algorithm == SentencePieceAlgorithm::kBpe;
    return absl::StrCat("sentencepiece, ", bpe ? "BPE" : "unigram",
                        model_.byte_fallback ? ", unknown characters as bytes" : "");
  }
  uint32_t vocabulary() const override { return static_cast<uint32_t>(model_.pieces.size()); }
  uint32_t separator() const override {
    return model_.end >= 0 ? static_cast<uint32_t>(model_.end) : vocabulary();
  }
  std::vector<uint32_t> prefix() const override { return prefix_; }
  bool divisible() const override { return false; }
  const std::vector<TokenizerFile>& files() const override { return files_; }

  absl::Status Encode(const char* text, size_t bytes, std::vector<uint32_t>* tokens) const override;
  std::string Decode(const std::vector<uint32_t>& tokens) const override;
  std::string TextOf(uint32_t token) const override {
    return token < texts_.size() ? texts_[token] : "";
  }

 private:
  struct Choice {
    View view;
    uint32_t id = 0;
  };

  const SentencePiece& Piece(uint32_t id) const { return model_.pieces[id]; }
  uint32_t IdOf(const std::string& text, View view) const;
  std::string Normalize(const char* text, size_t bytes) const;
  size_t NormalizeOne(const char* begin, const char* end, std::string* normal) const;
  bool Replace(const char* begin, const char* end, size_t* consumed, std::string* normal) const;
  std::vector<Choice> Unigram(const std::string& text) const;
  std::vector<Choice> Bpe(const std::string& text) const;
  void Resegment(const std::string& text, View view, const std::map<std::string, size_t>& halves,
                 std::vector<Choice>* chosen) const;

  const SentencePieceModel model_;
  const std::vector<TokenizerFile> files_;
  std::string name_;
  std::vector<uint32_t> prefix_;
  std::vector<std::string> texts_;  // by id, as TextOf has it
  Trie pieces_;                     // normal, user-defined and unused ones
  BytesMap piece_numbers_;          // the same
  std::vector<uint32_t> piece_ids_;
  Trie user_defined_;
  std::array<uint32_t, 256> byte_ids_ = {};
  float lowest_ = FLT_MAX;   // scores of normal pieces
  float highest_ = FLT_MIN;  // above 0, as the original has it
};

absl::Status SentencePieceTokenizer::Prepare(bool begin_first) {
  byte_ids_.fill(kNone);
  for (uint32_t id = 0; id < model_.pieces.size(); ++id) {
    const SentencePiece& piece = Piece(id);
    std::string text = piece.text;
    for (size_t at = 0; (at = text.find(kSpace, at)) != std::string::npos; ++at) {
      text.replace(at, kSpaceBytes, " ");
    }
    switch (piece.type) {
      case PieceType::kUnknown:
        text = model_.unknown_text;
        break;
      case PieceType::kControl:
        text.clear();
        break;
      case PieceType::kByte: {
        uint32_t byte = 0;
        while (byte < 256 && piece.text != absl::StrFormat("<0x%02X>", byte)) ++byte;
        if (byte == 256) {
          return absl::DataLossError(absl::StrCat("the piece ", id, " is no byte's"));
        }
        byte_ids_[byte] = id;
        text.assign(1, static_cast<char>(byte));
        break;
      }
      case PieceType::kNormal:
        lowest_ = std::min(lowest_, piece.score);
        highest_ = std::max(highest_, piece.score);
        break;
      case PieceType::kUserDefined:
        user_defined_.Add(piece.text, id);
        break;
      case PieceType::kUnused:
        break;
    }
    if (piece.type == PieceType::kNormal || piece.type == PieceType::kUserDefined ||
        piece.type == PieceType::kUnused) {
      pieces_.Add(piece.text, id);
      piece_numbers_.Add(piece.text.data(), piece.text.size());
      piece_ids_.push_back(id);
    }
    texts_.push_back(std::move(text));
  }
  if (model_.byte_fallback && std::count(byte_ids_.begin(), byte_ids_.end(), kNone) > 0) {
    return absl::DataLossError("it falls back on bytes, but has not a piece for each of them");
  }
  if (begin_first) {
    if (model_.begin < 0) return absl::DataLossError("it has no piece that begins a text");
    prefix_ = {static_cast<uint32_t>(model_.begin)};
  }
  name_ = TokenizerName("spm", files_, separator(), prefix_);
  return absl::OkStatus();
}

uint32_t SentencePieceTokenizer::IdOf(const std::string& text, View view) const {
  const uint32_t number = piece_numbers_.Find(text.data() + view.begin, view.size);
  return number == BytesMap::kNone ? kNone : piece_ids_[number];
}

// The longest prefix of the text that the model's table replaces. The double array is Darts':
// every access is checked, since nothing else says that it is whole.
bool SentencePieceTokenizer::Replace(const char* begin, const char* end, size_t* consumed,
                                     std::string* normal) const {
  const std::vector<uint32_t>& trie = model_.trie;
  if (trie.empty()) return false;
  const auto offset = [](uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); };
  size_t value = 0;
  *consumed = 0;
  size_t node = offset(trie[0]);
  for (const char* at = begin; at < end; ++at) {
    const auto byte = static_cast<unsigned char>(*at);
    node ^= byte;
    if (node >= trie.size() || (trie[node] & ((1u << 31) | 0xff)) != byte) break;
    const uint32_t unit = trie[node];
    node ^= offset(unit);
    if (node >= trie.size()) break;
    if ((unit >> 8 & 1) == 1) {
      value = trie[node] & 0x7fffffff;
      *consumed = static_cast<size_t>(at - begin) + 1;
    }
  }
  if (*consumed == 0 || value >= model_.replacements.size()) return false;
  *normal = model_.replacements.c_str() + value;
  return true;
}

// What the text begins with, normalized; gives how many bytes that was, at least 1.
size_t SentencePieceTokenizer::NormalizeOne(const char* begin, const char* end,
                                            std::string* normal) const {
  size_t bytes = user_defined_.LongestPrefix(begin, end);
  if (bytes == 0) {
    if (Replace(begin, end, &bytes, normal)) return bytes;
    bytes = Utf8CharAt(begin, end);
    if (bytes == 0) {
      *normal = kReplacement;
      return 1;
    }
  }
  normal->assign(begin, bytes);
  return bytes;
}

std::string SentencePieceTokenizer::Normalize(const char* text, size_t bytes) const {
  const char* at = text;
  const char* const end = text + bytes;
  const char* const space = model_.escape_spaces ? kSpace : " ";
  const size_t space_bytes = model_.escape_spaces ? kSpaceBytes : 1;
  std::string one;
  if (model_.remove_extra_spaces) {
    while (at < end) {
      const size_t consumed = NormalizeOne(at, end, &one);
      if (one != " ") break;
      at += consumed;
    }
  }
  std::string normal;
  if (at == end) return normal;
  if (!model_.space_is_suffix && model_.add_dummy_prefix) normal += space;
  bool behind_space = model_.remove_extra_spaces;
  while (at < end) {
    at += NormalizeOne(at, end, &one);
    size_t from = 0;
    while (behind_space && from < one.size() && one[from] == ' ') ++from;
    for (size_t i = from; i < one.size(); ++i) {
      if (one[i] == ' ') {
        normal += space;
      } else {
        normal += one[i];
      }
    }
    if (from < one.size()) behind_space = one.back() == ' ';
    if (!model_.remove_extra_spaces) behind_space = false;
  }
  const auto ends_in_space = [&] {
    return normal.size() >= space_bytes &&
           normal.compare(normal.size() - space_bytes, space_bytes, space) == 0;
  };
  while (model_.remove_extra_spaces && ends_in_space()) normal.resize(normal.size() - space_bytes);
  if (model_.space_is_suffix && model_.add_dummy_prefix) normal += space;
  return normal;
}

size_t CharBytes(const std::string& text, size_t at) {
  return std::max<size_t>(1, Utf8CharAt(text.data() + at, text.data() + text.size()));
}

// The likeliest way to cut the text, by dynamic programming from left to right.
std::vector<SentencePieceTokenizer::Choice> SentencePieceTokenizer::Unigram(
    const std::string& text) const {
  struct Best {
    float score = 0;
    uint32_t id = 0;
    size_t begin = ~size_t{0};
  };
  const double unknown_score = lowest_ - kUnknownPenalty;
  std::vector<Best> best(text.size() + 1);  // of what ends there
  for (size_t begin = 0; begin < text.size();) {
    const size_t one = CharBytes(text, begin);
    const float here = best[begin].score;
    const auto propose = [&](size_t end, uint32_t id, double score) {
      Best& target = best[end];
      if (target.begin == ~size_t{0} || score + here > target.score) {
        target = {static_cast<float>(score + here), id, begin};
      }
    };
    bool has_one = false;
    uint64_t node = 0;
    for (size_t at = begin; at < text.size() && pieces_.Step(&node, text[at]); ++at) {
      const uint32_t id = pieces_.ValueAt(node);
      if (id == kNone || Piece(id).type == PieceType::kUnused) continue;
      const size_t size = at + 1 - begin;
      propose(at + 1, id,
              Piece(id).type == PieceType::kUserDefined
                  ? static_cast<double>(static_cast<float>(size) * highest_) - 0.1
                  : static_cast<double>(Piece(id).score));
      has_one = has_one || size == one;
    }
    if (!has_one) propose(begin + one, static_cast<uint32_t>(model_.unknown), unknown_score);
    begin += one;
  }
  std::vector<Choice> chosen;
  for (size_t end = text.size(); end > 0; end = best[end].begin) {
    chosen.push_back({{best[end].begin, end - best[end].begin}, best[end].id});
  }
  std::reverse(chosen.begin(), chosen.end());
  return chosen;
}

// A piece that is not to be used becomes the two that it was merged of.
void SentencePieceTokenizer::Resegment(const std::string& text, View view,
                                       const std::map<std::string, size_t>& halves,
                                       std::vector<Choice>* chosen) const {
  std::vector<View> open = {view};
  while (!open.empty()) {
    const View next = open.back();
    open.pop_back();
    const uint32_t id = IdOf(text, next);
    const auto left = id != kNone && Piece(id).type == PieceType::kUnused
                          ? halves.find(text.substr(next.begin, next.size))
                          : halves.end();
    if (left == halves.end()) {
      chosen->push_back({next, id == kNone ? static_cast<uint32_t>(model_.unknown) : id});
      continue;
    }
    open.push_back({next.begin + left->second, next.size - left->second});
    open.push_back({next.begin, left->second});
  }
}

// Merges neighbours, the piece of the highest score first, the leftmost of equals.
std::vector<SentencePieceTokenizer::Choice> SentencePieceTokenizer::Bpe(
    const std::string& text) const {
  constexpr size_t kNowhere = ~size_t{0};
  struct Symbol {
    View view;
    size_t previous;
    size_t next;
    bool frozen;
  };
  struct Candidate {
    float score;
    size_t left;
    size_t right;
    size_t size;
    bool operator<(const Candidate& other) const {  // the best on top
      return score != other.score ? score < other.score : left > other.left;
    }
  };
  std::vector<Symbol> symbols;
  for (size_t begin = 0; begin < text.size(); begin += symbols.back().view.size) {
    const size_t user = user_defined_.LongestPrefix(text.data() + begin, text.data() + text.size());
    const size_t size = user > 0 ? user : CharBytes(text, begin);
    const size_t number = symbols.size();
    symbols.push_back({{begin, size},
                       number == 0 ? kNowhere : number - 1,
                       begin + size == text.size() ? kNowhere : number + 1,
                       user > 0});
  }
  std::priority_queue<Candidate> queue;
  std::map<std::string, size_t> halves;  // of unused pieces: bytes of the left one
  const auto propose = [&](size_t left, size_t right) {
    if (left == kNowhere || right == kNowhere) return;
    const Symbol& first = symbols[left];
    const Symbol& second = symbols[right];
    if (first.frozen || second.frozen) return;
    const View whole = {first.view.begin, first.view.size + second.view.size};
    const uint32_t id = IdOf(text, whole);
    if (id == kNone) return;
    queue.push({Piece(id).score, left, right, whole.size});
    if (Piece(id).type == PieceType::kUnused) {
      halves[text.substr(whole.begin, whole.size)] = first.view.size;
    }
  };
  for (size_t i = 1; i < symbols.size(); ++i) propose(i - 1, i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbols[top.left];
    Symbol& right = symbols[top.right];
    if (left.view.size == 0 || right.view.size == 0 ||
        left.view.size + right.view.size != top.size) {
      continue;
    }
    left.view.size = top.size;
    left.next = right.next;
    if (right.next != kNowhere) symbols[right.next].previous = top.left;
    right.view.size = 0;
    propose(left.previous, top.left);
    propose(top.left, left.next);
  }
  std::vector<Choice> chosen;
  for (size_t at = symbols.empty() ? kNowhere : 0; at != kNowhere; at = symbols[at].next) {
    Resegment(text, symbols[at].view, halves, &chosen);
  }
  return chosen;
}

absl::Status SentencePieceTokenizer::Encode(const char* text, size_t bytes,
                                            std::vector<uint32_t>* tokens) const {
  const std::string normal = Normalize(text, bytes);
  const bool bpe = model_.algorithm == SentencePieceAlgorithm::kBpe;
  bool behind_unknown = false;
  for (const Choice& choice : bpe ? Bpe(normal) : Unigram(normal)) {
    const bool unknown = choice.id == static_cast<uint32_t>(model_.unknown);
    if (unknown && model_.byte_fallback) {
      for (size_t i = 0; i < choice.view.size; ++i) {
        tokens->push_back(byte_ids_[static_cast<unsigned char>(normal[choice.view.begin + i])]);
      }
    } else if (!unknown || !behind_unknown) {  // a run of unknown pieces is one
      tokens->push_back(choice.id);
    }
    behind_unknown = unknown;
  }
  return absl::OkStatus();
}

std::string SentencePieceTokenizer::Decode(const std::vector<uint32_t>& tokens) const {
  std::string text;
  bool first = model_.add_dummy_prefix || model_.remove_extra_spaces;
  for (const uint32_t token : tokens) {
    if (token >= texts_.size() || Piece(token).type == PieceType::kControl) continue;
    const std::string& piece = texts_[token];
    const bool strip = first && Piece(token).text.compare(0, kSpaceBytes, kSpace) == 0;
    text.append(piece, strip ? 1 : 0, std::string::npos);
    first = false;
  }
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePiece(SentencePieceModel model,
                                                             bool begin_first,
                                                             std::vector<TokenizerFile> files) {
  auto tokenizer = std::make_unique<SentencePieceTokenizer>(std::move(model), std::move(files));
  const absl::Status status = tokenizer->Prepare(begin_first);
  if (!status.ok()) return status;
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace starling
