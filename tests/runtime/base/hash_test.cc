#include "runtime/base/hash.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace starling {
namespace {

Hash128 Of(const std::string& bytes) { return HashBytes(bytes.data(), bytes.size()); }

// Hashes are written into checkpoints and compared between machines: their values are a format.
TEST(Hash128, ValuesAreThoseOfXxh3) {
  EXPECT_EQ(ToHex(Of("")), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(ToHex(Of("abc")), "06b05ab6733a618578af5f94892f3950");
}

TEST(Hash128, OneFlippedBitChangesTheHash) {
  std::string bytes(1000, 'x');
  std::set<Hash128> seen = {Of(bytes)};
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] ^= 1;
    EXPECT_TRUE(seen.insert(Of(bytes)).second) << "byte " << i;
    bytes[i] ^= 1;
  }
}

TEST(Hash128, PiecesHashAsOneRun) {
  const std::string text(5000, 'q');
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{240}, size_t{4999}, size_t{5000}}) {
    Hasher128 hasher;
    hasher.Update(text.data(), cut);
    hasher.Update(text.data() + cut, text.size() - cut);
    EXPECT_EQ(hasher.Finish(), Of(text)) << "cut at " << cut;
  }
  EXPECT_EQ(Hasher128().Finish(), Of(""));
}

TEST(Hash128, FinishLeavesTheHasherUsable) {
  Hasher128 hasher;
  hasher.Update("ab", 2);
  EXPECT_EQ(hasher.Finish(), Of("ab"));
  hasher.Update("c", 1);
  EXPECT_EQ(hasher.Finish(), Of("abc"));
}

TEST(Hash128, HexRoundTrips) {
  const Hash128 hash{0x0123456789abcdefULL, 0x00000000000000ffULL};
  EXPECT_EQ(ToHex(hash), "0123456789abcdef00000000000000ff");
  Hash128 parsed;
  ASSERT_TRUE(FromHex(ToHex(hash), &parsed));
  EXPECT_EQ(parsed, hash);
}

TEST(Hash128, MalformedHexIsRefused) {
  Hash128 parsed;
  EXPECT_FALSE(FromHex("", &parsed));
  EXPECT_FALSE(FromHex(std::string(31, '0'), &parsed));
  EXPECT_FALSE(FromHex(std::string(33, '0'), &parsed));
  EXPECT_FALSE(FromHex(std::string(31, '0') + "g", &parsed));
  EXPECT_FALSE(FromHex(std::string(31, '0') + "A", &parsed));
  EXPECT_FALSE(FromHex("-" + std::string(31, '0'), &parsed));
  EXPECT_FALSE(FromHex("0x" + std::string(30, '0'), &parsed));
}

TEST(Hash128, OrdersByHighThenLow) {
  EXPECT_LT((Hash128{1, 9}), (Hash128{2, 0}));
  EXPECT_LT((Hash128{1, 1}), (Hash128{1, 2}));
  EXPECT_FALSE((Hash128{1, 1}) < (Hash128{1, 1}));
  EXPECT_NE((Hash128{1, 1}), (Hash128{1, 2}));
  EXPECT_NE((Hash128{1, 1}), (Hash128{2, 1}));
}

// The examples of FIPS 180-4.
TEST(Sha256, ValuesAreTheStandards) {
  EXPECT_EQ(Sha256Hex("abc", 3),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(nullptr, 0),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Sha256, PiecesHashAsOneRun) {
  Sha256 sha;
  sha.Update("a", 1);
  sha.Update("", 0);
  sha.Update("bc", 2);
  EXPECT_EQ(sha.FinishHex(), Sha256Hex("abc", 3));
}

}  // namespace
}  // namespace starling
