#include "runtime/data/token_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

// Little-endian on every machine; compilers make it one load.
template <uint32_t kBytes>
uint32_t TokenAt(const std::byte* bytes) {
  uint32_t token = 0;
  for (uint32_t i = 0; i < kBytes; ++i) token |= static_cast<uint32_t>(bytes[i]) << (8 * i);
  return token;
}

// Gives how many tokens were below `vocabulary` before one was not.
template <uint32_t kBytes>
size_t CopyTokens(const std::byte* from, uint32_t vocabulary, absl::Span<int32_t> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const uint32_t token = TokenAt<kBytes>(from + i * kBytes);
    if (token >= vocabulary) return i;
    out[i] = static_cast<int32_t>(token);
  }
  return out.size();
}

uint32_t AnyTokenAt(const TokenStream::Piece& piece, uint64_t place) {
  const std::byte* const at = piece.bytes.data() + place * piece.token_bytes;
  if (piece.token_bytes == 1) return TokenAt<1>(at);
  return piece.token_bytes == 2 ? TokenAt<2>(at) : TokenAt<4>(at);
}

absl::Status CopyFrom(const TokenStream::Piece& piece, uint64_t begin, int64_t vocabulary,
                      absl::Span<int32_t> out) {
  const std::byte* const from = piece.bytes.data() + begin * piece.token_bytes;
  const auto limit = static_cast<uint32_t>(vocabulary);
  const size_t good = piece.token_bytes == 1   ? CopyTokens<1>(from, limit, out)
                      : piece.token_bytes == 2 ? CopyTokens<2>(from, limit, out)
                                               : CopyTokens<4>(from, limit, out);
  if (good == out.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(piece.name, ": token ", piece.first + begin + good,
                                                 " is ", AnyTokenAt(piece, begin + good),
                                                 ", not below model.vocabulary = ", vocabulary));
}

}  // namespace

void TokenStream::Append(Piece piece) {
  STARLING_CHECK(piece.token_bytes == 1 || piece.token_bytes == 2 || piece.token_bytes == 4);
  STARLING_CHECK_EQ(piece.bytes.size_bytes() % piece.token_bytes, 0u);
  if (piece.tokens() == 0) return;
  ends_.push_back(size() + piece.tokens());
  pieces_.push_back(std::move(piece));
}

TokenStream TokenStream::Slice(uint64_t begin, uint64_t count) const {
  STARLING_CHECK_LE(begin, size());
  STARLING_CHECK_LE(count, size() - begin);
  TokenStream slice;
  uint64_t piece_begin = 0;
  for (size_t i = 0; i < pieces_.size(); piece_begin = ends_[i++]) {
    const uint64_t from = std::max(begin, piece_begin);
    const uint64_t to = std::min(begin + count, ends_[i]);
    if (from >= to) continue;
    Piece part = pieces_[i];
    const uint64_t width = part.token_bytes;
    part.bytes = part.bytes.Slice(static_cast<int64_t>((from - piece_begin) * width),
                                  static_cast<int64_t>((to - from) * width));
    part.first += from - piece_begin;
    slice.Append(std::move(part));
  }
  return slice;
}

absl::Status TokenStream::Read(uint64_t begin, int64_t vocabulary, absl::Span<int32_t> out) const {
  STARLING_CHECK_LE(begin, size());
  STARLING_CHECK_LE(out.size(), size() - begin);
  STARLING_CHECK(vocabulary > 0 && vocabulary <= int64_t{1} << 31);
  auto piece =
      static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), begin) - ends_.begin());
  while (!out.empty()) {
    const uint64_t count = std::min<uint64_t>(out.size(), ends_[piece] - begin);
    const uint64_t place = begin - (ends_[piece] - pieces_[piece].tokens());
    STARLING_RETURN_IF_ERROR(CopyFrom(pieces_[piece], place, vocabulary, out.subspan(0, count)));
    out.remove_prefix(count);
    begin += count;
    ++piece;
  }
  return absl::OkStatus();
}

}  // namespace starling
