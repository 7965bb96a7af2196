#include "checkpoint/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_replace.h"

namespace starling {
namespace {

using testing::HasSubstr;

Manifest Example() {
  Manifest manifest;
  manifest.meta.run = RunId{0xfedcba9876543210};
  manifest.meta.era = Era{2};
  manifest.meta.version = Version{50};
  manifest.meta.updates = 49;
  manifest.meta.sequences = 1600;
  manifest.meta.text_sha256 = std::string(64, 'a');
  manifest.meta.config_toml = "[data]\ntext = [\"a \\\"b\\\"\"]\n";
  manifest.parameters = {{"a.weight", {2, 3}}, {"b", {}}};
  manifest.files = {{"parameters-00000.safetensors", 123, Hash128{0xbb, 7}}};
  return manifest;
}

TEST(Manifest, RoundTrips) {
  const std::string text = PrintManifest(Example());
  const auto manifest = ParseManifest(text);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->meta.run, RunId{0xfedcba9876543210});
  EXPECT_EQ(manifest->meta.era, Era{2});
  EXPECT_EQ(manifest->meta.version, Version{50});
  EXPECT_EQ(manifest->meta.updates, 49u);
  EXPECT_EQ(manifest->meta.sequences, 1600u);
  EXPECT_EQ(manifest->meta.text_sha256, Example().meta.text_sha256);
  EXPECT_EQ(manifest->meta.config_toml, Example().meta.config_toml);
  ASSERT_EQ(manifest->parameters.size(), 2u);
  EXPECT_EQ(manifest->parameters[0].shape, (std::vector<int64_t>{2, 3}));
  ASSERT_EQ(manifest->files.size(), 1u);
  EXPECT_EQ(manifest->files[0].bytes, 123u);
  EXPECT_EQ(manifest->files[0].hash, (Hash128{0xbb, 7}));
  EXPECT_EQ(PrintManifest(*manifest), text);
}

TEST(Manifest, EveryFlippedBitIsSeen) {
  const std::string text = PrintManifest(Example());
  for (size_t i = 0; i < text.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = text;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      EXPECT_FALSE(ParseManifest(flipped).ok()) << i << " " << bit;
    }
  }
}

TEST(Manifest, EveryTruncationIsSeen) {
  const std::string text = PrintManifest(Example());
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_EQ(ParseManifest(text.substr(0, size)).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(Manifest, OtherJsonIsRefused) {
  for (const char* text : {"", "{}", "[]", "null", "{\"format\": 1}", "{\"format\": \"other\"}",
                           "{\"format\": \"starling-checkpoint\"}"}) {
    EXPECT_EQ(ParseManifest(text).status().code(), absl::StatusCode::kDataLoss) << text;
  }
}

TEST(Manifest, LaterFormatIsNamed) {
  const std::string text = absl::StrReplaceAll(
      PrintManifest(Example()), {{"\"format_version\": 2", "\"format_version\": 7"}});
  const auto manifest = ParseManifest(text);
  EXPECT_EQ(manifest.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(manifest.status().message()), HasSubstr("format 7"));
}

// Even with a right checksum.
TEST(Manifest, FileNamesThatLeaveTheFolderAreRefused) {
  for (const char* name : {"../x", "/etc/passwd", "a/b", "", ".."}) {
    Manifest manifest = Example();
    manifest.files[0].name = name;
    EXPECT_EQ(ParseManifest(PrintManifest(manifest)).status().code(), absl::StatusCode::kDataLoss)
        << name;
  }
}

}  // namespace
}  // namespace starling
