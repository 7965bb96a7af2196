#include "runtime/tokenizer/sentencepiece_model.h"

#include <cmath>
#include <cstring>
#include <set>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

constexpr size_t kMaxPieces = size_t{1} << 24;

// A message of protocol buffers, field by field.
class Message {
 public:
  Message(const char* bytes, size_t size) : at_(bytes), end_(bytes + size) {}

  // Goes to the next field; false: there is none, or what follows is none (bad()).
  bool Next() {
    uint64_t key = 0;
    if (at_ == end_ || !Varint(&key)) return false;
    field_ = key >> 3;
    kind_ = key & 7;
    switch (kind_) {
      case 0:
        return Varint(&number_);
      case 1:
        return Fixed(8);
      case 2:
        return Varint(&number_) && Take(number_);
      case 5:
        return Fixed(4);
      default:
        return Bad();
    }
  }

  bool bad() const { return bad_; }
  uint64_t field() const { return field_; }
  bool IsBytes(uint64_t field) const { return field_ == field && kind_ == 2; }
  bool IsNumber(uint64_t field) const { return field_ == field && kind_ == 0; }
  bool IsFloat(uint64_t field) const { return field_ == field && kind_ == 5; }

  uint64_t number() const { return number_; }
  bool flag() const { return number_ != 0; }
  // Of an int32: negative ones are sent as 64 bits.
  int64_t signed_number() const { return static_cast<int64_t>(number_); }
  std::string bytes() const { return std::string(value_, size_); }
  Message message() const { return Message(value_, size_); }
  float real() const {
    float value = 0;
    std::memcpy(&value, &number_, 4);
    return value;
  }

 private:
  bool Bad() {
    bad_ = true;
    return false;
  }
  bool Varint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == end_) return Bad();
      const auto byte = static_cast<unsigned char>(*at_++);
      *value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    return Bad();
  }
  bool Take(uint64_t size) {
    if (size > static_cast<uint64_t>(end_ - at_)) return Bad();
    value_ = at_;
    size_ = size;
    at_ += size;
    return true;
  }
  bool Fixed(uint64_t size) {
    if (!Take(size)) return false;
    number_ = 0;
    for (uint64_t i = 0; i < size; ++i) {
      number_ |= static_cast<uint64_t>(static_cast<unsigned char>(value_[i])) << (8 * i);
    }
    return true;
  }

  const char* at_;
  const char* const end_;
  bool bad_ = false;
  uint64_t field_ = 0;
  uint64_t kind_ = 0;
  uint64_t number_ = 0;
  const char* value_ = nullptr;
  size_t size_ = 0;
};

absl::Status Damaged(const std::string& what) {
  return absl::DataLossError(absl::StrCat("no sentencepiece model, or damaged: ", what));
}

absl::Status ReadPiece(Message message, SentencePieceModel* model) {
  SentencePiece piece;
  while (message.Next()) {
    if (message.IsBytes(1)) piece.text = message.bytes();
    if (message.IsFloat(2)) piece.score = message.real();
    if (!message.IsNumber(3)) continue;
    if (message.number() < 1 || message.number() > 6) {
      return Damaged(
          absl::StrCat("piece ", model->pieces.size(), " is of type ", message.number()));
    }
    piece.type = static_cast<PieceType>(message.number());
  }
  if (message.bad() || model->pieces.size() == kMaxPieces) return Damaged("its pieces");
  if (piece.text.empty() || !std::isfinite(piece.score)) {
    return Damaged(absl::StrCat("piece ", model->pieces.size(), " has no text or no score"));
  }
  model->pieces.push_back(std::move(piece));
  return absl::OkStatus();
}

absl::Status ReadTrainerSpec(Message message, SentencePieceModel* model) {
  while (message.Next()) {
    if (message.IsNumber(3)) {
      if (message.number() != 1 && message.number() != 2) {
        return absl::InvalidArgumentError(
            absl::StrCat("model_type ", message.number(),
                         " is not supported (only 1, unigram, and 2, BPE, are)"));
      }
      model->algorithm = static_cast<SentencePieceAlgorithm>(message.number());
    }
    if (message.IsNumber(24)) model->space_is_suffix = message.flag();
    if (message.IsNumber(35)) model->byte_fallback = message.flag();
    if (message.IsNumber(41)) model->begin = message.signed_number();
    if (message.IsNumber(42)) model->end = message.signed_number();
    if (message.IsBytes(44)) model->unknown_text = message.bytes();
  }
  return message.bad() ? Damaged("its trainer_spec") : absl::OkStatus();
}

// The size of the double array, the array, and the texts.
absl::Status ReadCharsMap(const std::string& bytes, SentencePieceModel* model) {
  const auto word = [&](size_t at) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) {
      value |= static_cast<uint32_t>(static_cast<unsigned char>(bytes[at + i])) << (8 * i);
    }
    return value;
  };
  if (bytes.empty()) return absl::OkStatus();
  const uint64_t trie_bytes = bytes.size() >= 4 ? word(0) : 0;
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes + 4 >= bytes.size() ||
      bytes.back() != '\0') {
    return Damaged("its precompiled_charsmap");
  }
  for (size_t at = 0; at < trie_bytes; at += 4) model->trie.push_back(word(4 + at));
  model->replacements = bytes.substr(4 + trie_bytes);
  return absl::OkStatus();
}

absl::Status ReadNormalizerSpec(Message message, SentencePieceModel* model) {
  while (message.Next()) {
    if (message.IsBytes(2)) STARLING_RETURN_IF_ERROR(ReadCharsMap(message.bytes(), model));
    if (message.IsNumber(3)) model->add_dummy_prefix = message.flag();
    if (message.IsNumber(4)) model->remove_extra_spaces = message.flag();
    if (message.IsNumber(5)) model->escape_spaces = message.flag();
  }
  return message.bad() ? Damaged("its normalizer_spec") : absl::OkStatus();
}

absl::Status CheckPieces(SentencePieceModel* model) {
  std::set<std::string> texts;
  for (size_t id = 0; id < model->pieces.size(); ++id) {
    const SentencePiece& piece = model->pieces[id];
    if (!texts.insert(piece.text).second) {
      return Damaged(absl::StrCat("piece ", id, " is there twice"));
    }
    if (piece.type != PieceType::kUnknown) continue;
    if (model->unknown >= 0) return Damaged("it has two unknown pieces");
    model->unknown = static_cast<int64_t>(id);
  }
  if (model->pieces.empty()) return Damaged("it has no pieces");
  if (model->unknown < 0) return Damaged("it has no unknown piece");
  for (int64_t* id : {&model->begin, &model->end}) {
    const bool there = *id >= 0 && *id < static_cast<int64_t>(model->pieces.size()) &&
                       model->pieces[static_cast<size_t>(*id)].type == PieceType::kControl;
    if (!there) *id = -1;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(const std::string& bytes) {
  SentencePieceModel model;
  Message message(bytes.data(), bytes.size());
  while (message.Next()) {
    if (message.IsBytes(1)) STARLING_RETURN_IF_ERROR(ReadPiece(message.message(), &model));
    if (message.IsBytes(2)) STARLING_RETURN_IF_ERROR(ReadTrainerSpec(message.message(), &model));
    if (message.IsBytes(3)) STARLING_RETURN_IF_ERROR(ReadNormalizerSpec(message.message(), &model));
  }
  if (message.bad()) return Damaged("it is cut off");
  STARLING_RETURN_IF_ERROR(CheckPieces(&model));
  return model;
}

}  // namespace starling
