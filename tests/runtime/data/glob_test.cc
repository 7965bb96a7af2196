#include "runtime/data/glob.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace starling {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class GlobTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    root_ = testing::TempDir() + "starling_glob_" + info->name() + "_" + std::to_string(getpid());
    fs::remove_all(root_);
    for (const char* name : {"a.txt", "b.txt", "c.md", ".hidden.txt", "sub/a.txt", "sub/deep/x.txt",
                             "sub/deep/y.md", ".git/z.txt", "other/q.txt"}) {
      fs::create_directories(fs::path(root_ + "/" + name).parent_path());
      std::ofstream(root_ + "/" + name) << name;
    }
  }
  void TearDown() override { fs::remove_all(root_); }

  // Matches, relative to the root.
  std::vector<std::string> Expand(const std::vector<std::string>& patterns) {
    std::vector<std::string> absolute;
    for (const std::string& pattern : patterns) absolute.push_back(root_ + "/" + pattern);
    const auto files = ExpandGlobs(absolute);
    EXPECT_TRUE(files.ok()) << files.status();
    std::vector<std::string> relative;
    if (!files.ok()) return relative;
    for (const std::string& file : *files) relative.push_back(file.substr(root_.size() + 1));
    return relative;
  }

  std::string root_;
};

using Names = std::vector<std::string>;

TEST_F(GlobTest, StarStaysInOneFolderAndLeavesOutHiddenFiles) {
  EXPECT_EQ(Expand({"*.txt"}), (Names{"a.txt", "b.txt"}));
  EXPECT_EQ(Expand({"*/a.txt"}), (Names{"sub/a.txt"}));
  EXPECT_EQ(Expand({"?.md"}), (Names{"c.md"}));
  EXPECT_EQ(Expand({"[ab].txt"}), (Names{"a.txt", "b.txt"}));
}

TEST_F(GlobTest, TwoStarsMatchAnyNumberOfFoldersIncludingNone) {
  EXPECT_EQ(Expand({"**/*.txt"}),
            (Names{"a.txt", "b.txt", "other/q.txt", "sub/a.txt", "sub/deep/x.txt"}));
  EXPECT_EQ(Expand({"sub/**/*.md"}), (Names{"sub/deep/y.md"}));
  EXPECT_EQ(Expand({"sub/**"}), (Names{"sub/a.txt", "sub/deep/x.txt", "sub/deep/y.md"}));
  EXPECT_EQ(Expand({"**/deep/*"}), (Names{"sub/deep/x.txt", "sub/deep/y.md"}));
}

TEST_F(GlobTest, PlainNamesWorkAndHiddenOnesCanBeNamed) {
  EXPECT_EQ(Expand({"sub/deep/x.txt"}), (Names{"sub/deep/x.txt"}));
  EXPECT_EQ(Expand({".hidden.txt", ".git/*"}), (Names{".git/z.txt", ".hidden.txt"}));
}

TEST_F(GlobTest, FilesMatchedTwiceComeOnceInOrderOfTheirPaths) {
  EXPECT_EQ(Expand({"sub/a.txt", "*.txt", "**/a.txt"}), (Names{"a.txt", "b.txt", "sub/a.txt"}));
}

TEST_F(GlobTest, LinkedFoldersAreNotWalkedInCircles) {
  fs::create_directory_symlink(root_, root_ + "/sub/loop");
  EXPECT_EQ(Expand({"**/q.txt"}), (Names{"other/q.txt"}));
}

TEST_F(GlobTest, PatternThatMatchesNothingIsNamed) {
  const auto files = ExpandGlobs({root_ + "/*.txt", root_ + "/*.cc"});
  EXPECT_EQ(files.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(files.status().message(), "data.text: \"" + root_ + "/*.cc\" matches no file");
  EXPECT_EQ(ExpandGlobs({root_ + "/sub"}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ExpandGlobs({root_ + "/none/*"}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ExpandGlobs({root_ + "/a.txt/*"}).status().code(), absl::StatusCode::kNotFound);
}

TEST(Glob, NoPatternsIsAnErrorThatSaysWhatToDo) {
  const auto files = ExpandGlobs({});
  EXPECT_EQ(files.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(files.status().message()), HasSubstr("--data.text="));
}

}  // namespace
}  // namespace starling
