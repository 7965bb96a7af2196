// SentencePieceModel: what a sentencepiece `.model` file says (Kudo, Richardson 2018): a protocol
// buffer of pieces, how text is normalized, and which algorithm chooses pieces.
//
// Debian's libsentencepiece cannot be in one process with LibTorch: it brings its own copy of an
// older protobuf, whose symbols meet those of the protobuf that LibTorch loads. So the few fields
// that matter are read here.
#ifndef STARLING_RUNTIME_TOKENIZER_SENTENCEPIECE_MODEL_H_
#define STARLING_RUNTIME_TOKENIZER_SENTENCEPIECE_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace starling {

enum class PieceType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct SentencePiece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::kNormal;
};

enum class SentencePieceAlgorithm : uint8_t { kUnigram = 1, kBpe = 2 };

struct SentencePieceModel {
  std::vector<SentencePiece> pieces;  // by id
  SentencePieceAlgorithm algorithm = SentencePieceAlgorithm::kUnigram;
  bool byte_fallback = false;
  bool space_is_suffix = false;
  int64_t unknown = -1;  // the id of the one unknown piece
  int64_t begin = 1;     // ids of control pieces, -1: none
  int64_t end = 2;
  std::string unknown_text = " \xe2\x81\x87 ";
  // Of the normalizer.
  std::vector<uint32_t> trie;  // a double array: prefixes to places in `replacements`
  std::string replacements;    // each ends in a zero byte
  bool add_dummy_prefix = true;
  bool remove_extra_spaces = true;
  bool escape_spaces = true;
};

// Errors, one line without the file's name: data loss = cut off, or not such a file; invalid
// argument = something in it is not supported, which is named.
absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(const std::string& bytes);

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_SENTENCEPIECE_MODEL_H_
