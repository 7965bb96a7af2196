#include "runtime/data/megatron_index.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/data/token_shard.h"
#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

using starling::testing::MemoryDisk;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Little(uint64_t value, int size) {
  std::string bytes;
  for (int i = 0; i < size; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return bytes;
}

struct Parts {
  std::string magic = std::string("MMIDIDX\0\0", 9);
  uint64_t version = 1;
  uint64_t type = 8;
  uint64_t sequences = 3;
  uint64_t entries = 3;
  std::vector<uint64_t> lengths = {2, 0, 3};
  std::vector<uint64_t> places = {0, 4, 4};
  std::vector<uint64_t> documents = {0, 2, 3};
  std::string rest;

  std::string bytes() const {
    std::string all =
        magic + Little(version, 8) + Little(type, 1) + Little(sequences, 8) + Little(entries, 8);
    for (const uint64_t length : lengths) all += Little(length, 4);
    for (const uint64_t place : places) all += Little(place, 8);
    for (const uint64_t document : documents) all += Little(document, 8);
    return all + rest;
  }
};

absl::StatusOr<MegatronIndex> Parse(const Parts& parts, uint64_t bin_bytes = 10) {
  return ParseMegatronIndex(Blob::OfString(parts.bytes()), bin_bytes);
}

TEST(MegatronIndex, ReadsWhatMegatronWrites) {
  const auto index = Parse(Parts());
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->token_bytes, 2u);
  EXPECT_EQ(index->tokens, 5u);
  EXPECT_EQ(index->sequences, 3u);
  EXPECT_EQ(index->documents, 2u);
  Parts modes;
  modes.rest = std::string(3, '\1');
  EXPECT_TRUE(Parse(modes).ok());
  Parts wide;
  wide.type = 4;
  wide.places = {0, 8, 8};
  EXPECT_EQ(Parse(wide, 20)->token_bytes, 4u);
  Parts bytes;
  bytes.type = 1;
  bytes.places = {0, 2, 2};
  EXPECT_EQ(Parse(bytes, 5)->token_bytes, 1u);
}

TEST(MegatronIndex, BadFieldIsRefusedAndNamed) {
  constexpr auto kBad = absl::StatusCode::kDataLoss;
  constexpr auto kNo = absl::StatusCode::kInvalidArgument;
  const auto expect = [](const Parts& parts, absl::StatusCode code, const char* says) {
    const auto index = Parse(parts);
    EXPECT_EQ(index.status().code(), code) << says;
    EXPECT_THAT(std::string(index.status().message()), HasSubstr(says));
  };
  Parts parts;
  parts.magic[7] = 'X';
  expect(parts, kNo, "does not begin with MMIDIDX");
  parts = Parts();
  parts.version = 2;
  expect(parts, kNo, "version 2 is not known");
  parts = Parts();
  parts.type = 5;
  expect(parts, kNo, "tokens of type 5 (int64) are not supported");
  parts.type = 77;
  expect(parts, kNo, "tokens of type 77 are");
  parts = Parts();
  parts.sequences = uint64_t{1} << 62;  // times 12 is small in 64 bits
  expect(parts, kBad, "the header says 4611686018427387904 sequences");
  parts = Parts();
  parts.entries = uint64_t{1} << 61;
  expect(parts, kBad, "entries of documents");
  parts = Parts();
  parts.rest = "x";
  expect(parts, kBad, "which are not");
  parts = Parts();
  parts.lengths[1] = 0xffffffff;
  expect(parts, kBad, "sequence 1 has a negative length");
  parts = Parts();
  parts.places[2] = 5;
  expect(parts, kBad, "sequence 2 is at byte 5, but those before it end at byte 4");
  parts = Parts();
  parts.lengths[2] = 2;
  expect(parts, kBad, "end at byte 8, but the .bin file has 10");
  parts.lengths[2] = 0x7fffffff;
  expect(parts, kBad, "or later, but the .bin file has 10");
  parts = Parts();
  parts.documents = {1, 2, 3};
  expect(parts, kBad, "document 0 begins at sequence 1");
  parts.documents = {0, 4, 3};
  expect(parts, kBad, "document 1 begins at sequence 4");
  parts.documents = {0, 2, 1};
  expect(parts, kBad, "document 2 begins at sequence 1");
  parts.documents = {0, 1, 2};
  expect(parts, kBad, "documents end at sequence 2 of 3");
  parts = Parts();
  parts.entries = 0;
  parts.documents.clear();
  expect(parts, kBad, "no documents");
}

TEST(MegatronIndex, EveryCutOfTheFileIsRefused) {
  const std::string whole = Parts().bytes();
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(ParseMegatronIndex(Blob::OfString(whole.substr(0, size)), 10).ok()) << size;
  }
}

TEST(OpenShard, FindsMegatronsIndexBesideTheFile) {
  MemoryDisk disk;
  disk.files["/d/x_text_document.bin"] = std::string("\1\0\2\0\3\0\4\0\5\0", 10);
  disk.files["/d/x_text_document.idx"] = Parts().bytes();
  for (const ShardFormat format : {ShardFormat::kAuto, ShardFormat::kMegatron}) {
    const auto shard = OpenShard(disk, "/d/x_text_document.bin", format);
    ASSERT_TRUE(shard.ok()) << shard.status();
    EXPECT_EQ(shard->tokens.tokens(), 5u);
  }
  const auto refused = [&](const std::string& path, ShardFormat format, const char* says) {
    const auto shard = OpenShard(disk, path, format);
    EXPECT_FALSE(shard.ok());
    EXPECT_THAT(std::string(shard.status().message()), AllOf(StartsWith("/d/"), HasSubstr(says)));
  };
  refused("/d/x_text_document.idx", ShardFormat::kAuto, "name the .bin files only");
  disk.files["/d/x_text_document.bin"] += "x";
  refused("/d/x_text_document.bin", ShardFormat::kAuto,
          "x_text_document.idx: its sequences end at byte 10, but the .bin file has 11");
  disk.files["/d/y.bin"] = "ab";
  refused("/d/y.bin", ShardFormat::kMegatron, "has no /d/y.idx beside it");
  disk.files["/d/y.idx"] = "something else";
  EXPECT_TRUE(OpenShard(disk, "/d/y.bin", ShardFormat::kAuto).ok());
  refused("/d/y.bin", ShardFormat::kMegatron, "does not begin with MMIDIDX");
}

}  // namespace
}  // namespace starling
