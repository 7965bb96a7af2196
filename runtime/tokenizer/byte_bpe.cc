#include "runtime/tokenizer/byte_bpe.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"
#include "runtime/tokenizer/tokenizer_name.h"
#include "runtime/tokenizer/utf8.h"

namespace starling {
namespace {

constexpr uint32_t kNone = ~uint32_t{0};

class ByteBpe final : public Tokenizer {
 public:
  ByteBpe(BpeModel model, std::unique_ptr<Splitter> splitter)
      : model_(std::move(model)), splitter_(std::move(splitter)) {}

  absl::Status Take(ByteBpeParts parts);

  std::string name() const override { return name_; }
  std::string description() const override;
  uint32_t vocabulary() const override { return static_cast<uint32_t>(texts_.size()); }
  uint32_t separator() const override { return separator_; }
  std::vector<uint32_t> prefix() const override { return prefix_; }
  bool divisible() const override { return false; }
  const std::vector<TokenizerFile>& files() const override { return files_; }

  absl::Status Encode(const char* text, size_t bytes, std::vector<uint32_t>* tokens) const override;

  std::string Decode(const std::vector<uint32_t>& tokens) const override {
    std::string text;
    for (const uint32_t token : tokens) {
      if (token < texts_.size()) text += texts_[token];
    }
    return text;
  }
  std::string TextOf(uint32_t token) const override {
    return token < texts_.size() ? texts_[token] : "";
  }

 private:
  absl::Status SetTexts(const ByteBpeParts& parts);
  absl::Status SetSeparator(const ByteBpeParts& parts);
  absl::Status EncodeRaw(const char* begin, const char* end, std::vector<uint32_t>* tokens) const;
  absl::Status EncodeValid(const char* begin, size_t bytes, std::vector<uint32_t>* tokens) const;
  absl::Status EncodeWords(const char* begin, const char* end, std::vector<uint32_t>* tokens) const;

  const BpeModel model_;
  const std::unique_ptr<Splitter> splitter_;
  AddedTokens raw_added_;
  AddedTokens normal_added_;
  NormalForm normal_form_ = NormalForm::kNone;
  bool space_first_ = false;
  std::vector<std::string> texts_;  // by token, as Decode has it
  std::vector<uint32_t> prefix_;
  uint32_t separator_ = 0;
  std::vector<TokenizerFile> files_;
  std::string name_;
};

absl::Status ByteBpe::SetTexts(const ByteBpeParts& parts) {
  uint64_t above = 0;
  for (const auto& token : parts.model.tokens) above = std::max<uint64_t>(above, token.second);
  for (const auto& token : parts.literals) above = std::max<uint64_t>(above, token.second);
  for (const AddedToken& token : parts.added) above = std::max<uint64_t>(above, token.id);
  const uint64_t count = parts.model.tokens.size() + parts.literals.size() + parts.added.size();
  // Some vocabularies have gaps; a hostile one would have mostly gaps.
  if (above >= 4 * count + 4096) {
    return absl::InvalidArgumentError(
        absl::StrCat("token ", above, " of a vocabulary of ", count, " tokens cannot be right"));
  }
  texts_.resize(above + 1);
  for (const auto& [bytes, id] : parts.model.tokens) texts_[id] = bytes;
  for (const auto& [text, id] : parts.literals) texts_[id] = text;
  for (const AddedToken& token : parts.added) texts_[token.id] = token.special ? "" : token.text;
  return absl::OkStatus();
}

absl::Status ByteBpe::SetSeparator(const ByteBpeParts& parts) {
  separator_ = vocabulary();
  if (parts.separator.empty()) return absl::OkStatus();
  uint32_t found = kNone;
  for (const auto& tokens : {parts.model.tokens, parts.literals}) {
    for (const auto& [bytes, id] : tokens) {
      if (bytes == parts.separator) found = id;
    }
  }
  for (const AddedToken& token : parts.added) {
    if (token.text == parts.separator) found = token.id;
  }
  if (found == kNone) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", parts.separator, "\", which ends a text, is not in the vocabulary"));
  }
  separator_ = found;
  texts_[found].clear();
  return absl::OkStatus();
}

absl::Status ByteBpe::Take(ByteBpeParts parts) {
  STARLING_RETURN_IF_ERROR(SetTexts(parts));
  STARLING_RETURN_IF_ERROR(SetSeparator(parts));
  for (const uint32_t token : parts.prefix) {
    if (token < vocabulary()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("token ", token, ", which begins a text, is not in the vocabulary"));
  }
  std::vector<std::pair<std::string, uint32_t>> raw;
  std::vector<std::pair<std::string, uint32_t>> normal;
  for (const AddedToken& token : parts.added) {
    if (token.normalized && parts.normal_form != NormalForm::kNone) {
      STARLING_ASSIGN_OR_RETURN(std::string text,
                                Normalize(parts.normal_form, token.text.data(), token.text.size()));
      normal.emplace_back(std::move(text), token.id);
    } else {
      raw.emplace_back(token.text, token.id);
    }
  }
  raw_added_ = AddedTokens(std::move(raw));
  normal_added_ = AddedTokens(std::move(normal));
  normal_form_ = parts.normal_form;
  space_first_ = parts.space_first;
  prefix_ = std::move(parts.prefix);
  files_ = std::move(parts.files);
  name_ = TokenizerName("bpe", files_, separator_, prefix_);
  return absl::OkStatus();
}

std::string ByteBpe::description() const {
  std::string text = absl::StrCat("byte-level BPE, ", model_.merges(), " merges");
  if (normal_form_ != NormalForm::kNone) absl::StrAppend(&text, ", ", ToString(normal_form_));
  if (model_.missing_bytes() > 0) {
    absl::StrAppend(&text, ", ", model_.missing_bytes(), " bytes without a token");
  }
  for (const std::string& pattern : splitter_->patterns()) {
    absl::StrAppend(&text, ", split by ", pattern == kGpt2Pattern ? "GPT-2's pattern" : pattern);
  }
  return text;
}

absl::Status ByteBpe::Encode(const char* text, size_t bytes, std::vector<uint32_t>* tokens) const {
  const char* at = text;
  const char* const end = text + bytes;
  while (at < end) {
    const AddedTokens::Found found = raw_added_.Find(at, end);
    STARLING_RETURN_IF_ERROR(EncodeRaw(at, found.begin, tokens));
    if (found.begin == end) break;
    tokens->push_back(found.token);
    at = found.begin + found.bytes;
  }
  return absl::OkStatus();
}

// Characters and other bytes in turn.
absl::Status ByteBpe::EncodeRaw(const char* begin, const char* end,
                                std::vector<uint32_t>* tokens) const {
  std::string spaced;
  if (space_first_ && begin < end && *begin != ' ') {
    spaced.append(" ").append(begin, end);
    begin = spaced.data();
    end = begin + spaced.size();
  }
  while (begin < end) {
    const size_t valid = ValidUtf8Prefix(begin, end);
    STARLING_RETURN_IF_ERROR(EncodeValid(begin, valid, tokens));
    begin += valid;
    const size_t invalid = InvalidUtf8Prefix(begin, end);
    if (invalid > 0) STARLING_RETURN_IF_ERROR(model_.Encode(begin, invalid, tokens));
    begin += invalid;
  }
  return absl::OkStatus();
}

absl::Status ByteBpe::EncodeValid(const char* begin, size_t bytes,
                                  std::vector<uint32_t>* tokens) const {
  if (normal_form_ == NormalForm::kNone) return EncodeWords(begin, begin + bytes, tokens);
  STARLING_ASSIGN_OR_RETURN(const std::string normal, Normalize(normal_form_, begin, bytes));
  const char* at = normal.data();
  const char* const end = at + normal.size();
  while (at < end) {
    const AddedTokens::Found found = normal_added_.Find(at, end);
    STARLING_RETURN_IF_ERROR(EncodeWords(at, found.begin, tokens));
    if (found.begin == end) break;
    tokens->push_back(found.token);
    at = found.begin + found.bytes;
  }
  return absl::OkStatus();
}

absl::Status ByteBpe::EncodeWords(const char* begin, const char* end,
                                  std::vector<uint32_t>* tokens) const {
  return splitter_->Cut(
      begin, static_cast<size_t>(end - begin),
      [&](const char* word, size_t bytes) { return model_.Encode(word, bytes, tokens); });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeByteBpe(ByteBpeParts parts) {
  STARLING_ASSIGN_OR_RETURN(BpeModel model, BpeModel::Make(parts.model));
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<Splitter> splitter, Splitter::Make(parts.patterns));
  auto tokenizer = std::make_unique<ByteBpe>(std::move(model), std::move(splitter));
  STARLING_RETURN_IF_ERROR(tokenizer->Take(std::move(parts)));
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace starling
