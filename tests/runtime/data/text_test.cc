#include "runtime/data/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

using starling::testing::MemoryDisk;
using ::testing::HasSubstr;

TEST(ValidationShare, IsTheShareRoundedUp) {
  EXPECT_EQ(ValidationShare(0, 10), 0u);
  EXPECT_EQ(ValidationShare(0.001, 10), 1u);
  EXPECT_EQ(ValidationShare(0.1, 10), 1u);
  EXPECT_EQ(ValidationShare(0.1, 11), 2u);
  EXPECT_EQ(ValidationShare(0.1, 290), 29u);
  EXPECT_EQ(ValidationShare(0.07, 100), 7u);  // 0.07 * 100 is a little more than 7
}

TEST(LoadFiles, LastFilesAreForValidation) {
  MemoryDisk disk;
  disk.files = {{"/a", "one"}, {"/b", "two"}, {"/c", ""}, {"/d", "three"}};
  const auto text = LoadFiles(disk, {"/a", "/b", "/c", "/d"}, 0.25);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->train.ToStringBytes(), "onetwo");
  EXPECT_EQ(text->validation.ToStringBytes(), "three");
  EXPECT_EQ(text->train_files, 3u);
  EXPECT_EQ(text->validation_files, 1u);
}

TEST(LoadFiles, SingleFileIsCutAtItsBytes) {
  MemoryDisk disk;
  disk.files["/a"] = "0123456789";
  const auto text = LoadFiles(disk, {"/a"}, 0.25);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->train.ToStringBytes(), "0123456");
  EXPECT_EQ(text->validation.ToStringBytes(), "789");
  const auto whole = LoadFiles(disk, {"/a"}, 0);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(whole->train.ToStringBytes(), "0123456789");
  EXPECT_TRUE(whole->validation.empty());
}

TEST(LoadFiles, HashSeesBytesAndTheirBoundary) {
  MemoryDisk disk;
  disk.files = {{"/a", "one"}, {"/b", "two"}, {"/c", "onet"}, {"/d", "wo"}};
  const auto hash = [&](std::vector<std::string> files) {
    return LoadFiles(disk, files, 0.5)->sha256;
  };
  EXPECT_EQ(hash({"/a", "/b"}).size(), 64u);
  EXPECT_EQ(hash({"/a", "/b"}), hash({"/a", "/b"}));
  EXPECT_NE(hash({"/a", "/b"}), hash({"/b", "/a"}));
  EXPECT_NE(hash({"/a", "/b"}), hash({"/c", "/d"}));
}

TEST(LoadFiles, UnreadableFileIsNamed) {
  MemoryDisk disk;
  disk.files["/a"] = "one";
  const auto text = LoadFiles(disk, {"/a", "/gone"}, 0);
  EXPECT_EQ(text.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(text.status().message()), HasSubstr("data.text: cannot read /gone: "));
}

}  // namespace
}  // namespace starling
