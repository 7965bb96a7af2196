// TokenStream: a long run of tokens that lies in several pieces, read a window at a time.
//
// The pieces are what a file or a text holds, little-endian, one, two or four bytes to a token;
// they follow each other as if they were one, so how tokens are cut into files changes nothing.
// Pieces are Blobs, memory-mapped where they come from shards: only what is read is loaded.
//
// Thread safety: const methods may be called from any thread. Copies share the bytes.
#ifndef STARLING_RUNTIME_DATA_TOKEN_STREAM_H_
#define STARLING_RUNTIME_DATA_TOKEN_STREAM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/base/blob.h"

namespace starling {

class TokenStream {
 public:
  struct Piece {
    std::string name;          // of its file, for messages
    Blob bytes;                // u8 [tokens * token_bytes], of any alignment
    uint32_t token_bytes = 1;  // 1, 2 or 4
    uint64_t first = 0;        // place of its first token in its file

    uint64_t tokens() const { return bytes.size_bytes() / token_bytes; }
  };

  void Append(Piece piece);

  uint64_t size() const { return ends_.empty() ? 0 : ends_.back(); }  // tokens
  bool empty() const { return size() == 0; }
  const std::vector<Piece>& pieces() const { return pieces_; }

  // Tokens [begin, begin + count), sharing the bytes.
  TokenStream Slice(uint64_t begin, uint64_t count) const;

  // Copies tokens [begin, begin + out.size()), which must exist, to `out`.
  //   invalid argument: one is not below `vocabulary`; names piece, place and token.
  absl::Status Read(uint64_t begin, int64_t vocabulary, absl::Span<int32_t> out) const;

 private:
  std::vector<Piece> pieces_;   // none is empty
  std::vector<uint64_t> ends_;  // of each piece, in tokens of the stream
};

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_TOKEN_STREAM_H_
