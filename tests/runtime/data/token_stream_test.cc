#include "runtime/data/token_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/base/rng.h"

namespace starling {
namespace {

using ::testing::HasSubstr;

std::string Bytes(const std::vector<uint32_t>& tokens, uint32_t token_bytes) {
  std::string bytes;
  for (const uint32_t token : tokens) {
    for (uint32_t i = 0; i < token_bytes; ++i) bytes.push_back(static_cast<char>(token >> (8 * i)));
  }
  return bytes;
}

TokenStream::Piece Piece(const std::vector<uint32_t>& tokens, uint32_t token_bytes,
                         const std::string& name = "piece") {
  return {name, Blob::OfString(Bytes(tokens, token_bytes)), token_bytes, 0};
}

// Drawn from a seed: pieces of all widths, some of them empty; and what is in them.
struct Drawn {
  explicit Drawn(uint64_t seed) : rng(seed) {
    const uint64_t pieces = 1 + rng.Below(6);
    for (uint64_t i = 0; i < pieces; ++i) {
      const uint32_t width = uint32_t{1} << rng.Below(3);
      std::vector<uint32_t> tokens(rng.Below(20));
      for (uint32_t& token : tokens) {
        token = static_cast<uint32_t>(rng.Below(width == 1 ? 256 : width == 2 ? 65536 : 1 << 20));
      }
      all.insert(all.end(), tokens.begin(), tokens.end());
      stream.Append(Piece(tokens, width));
    }
  }
  Rng rng;
  std::vector<int32_t> all;
  TokenStream stream;
};

TEST(TokenStream, EveryWindowOfDrawnPiecesIsThatOfTheWhole) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const Drawn drawn(seed);
    ASSERT_EQ(drawn.stream.size(), drawn.all.size());
    for (size_t begin = 0; begin <= drawn.all.size(); ++begin) {
      for (size_t end = begin; end <= drawn.all.size(); end += 1 + end / 7) {
        std::vector<int32_t> window(end - begin);
        const auto status = drawn.stream.Read(begin, 1 << 20, absl::MakeSpan(window));
        ASSERT_TRUE(status.ok()) << status;
        ASSERT_EQ(window, std::vector<int32_t>(drawn.all.begin() + static_cast<long>(begin),
                                               drawn.all.begin() + static_cast<long>(end)))
            << "seed " << seed;
      }
    }
  }
}

TEST(TokenStream, SliceIsThatPartOfTheWhole) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Drawn drawn(seed);
    const uint64_t begin = drawn.rng.Below(drawn.stream.size() + 1);
    const uint64_t count = drawn.rng.Below(drawn.stream.size() - begin + 1);
    const TokenStream slice = drawn.stream.Slice(begin, count);
    ASSERT_EQ(slice.size(), count);
    std::vector<int32_t> a(count);
    std::vector<int32_t> b(count);
    ASSERT_TRUE(slice.Read(0, 1 << 20, absl::MakeSpan(a)).ok());
    ASSERT_TRUE(drawn.stream.Read(begin, 1 << 20, absl::MakeSpan(b)).ok());
    ASSERT_EQ(a, b) << "seed " << seed;
  }
}

TEST(TokenStream, TokenOutsideTheVocabularyIsNamedWithItsFileAndPlaceThere) {
  TokenStream stream;
  stream.Append(Piece({1, 2, 3}, 2, "a.bin"));
  stream.Append(Piece({4, 5, 4000000000u, 6}, 4, "b.bin"));
  std::vector<int32_t> window(5);
  EXPECT_TRUE(stream.Read(0, 6, absl::MakeSpan(window)).ok());
  const auto status = stream.Read(2, 6, absl::MakeSpan(window));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "b.bin: token 2 is 4000000000, not below model.vocabulary = 6");
  // The place is in the file, also where the stream is a slice of it.
  const auto sliced = stream.Slice(4, 3).Read(0, 6, absl::MakeSpan(window).subspan(0, 3));
  EXPECT_THAT(std::string(sliced.message()), HasSubstr("b.bin: token 2 is 4000000000"));
}

}  // namespace
}  // namespace starling
