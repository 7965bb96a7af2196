#include "runtime/observe/line_file.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::MemoryDisk;
using ::testing::SizeIs;

class LineFileTest : public ::testing::Test {
 protected:
  std::unique_ptr<LineFile> Open() {
    auto file = LineFile::Open(disk_, "a.jsonl",
                               [this](const std::string& what) { errors_.push_back(what); });
    EXPECT_TRUE(file.ok()) << file.status();
    return *std::move(file);
  }
  MemoryDisk disk_;
  std::vector<std::string> errors_;
};

TEST_F(LineFileTest, LinesAreAppendedBehindWhatIsThere) {
  disk_.files["a.jsonl"] = "one\n";
  Open()->Write("two");
  EXPECT_EQ(disk_.files["a.jsonl"], "one\ntwo\n");
}

TEST_F(LineFileTest, TornLineIsEndedBeforeTheNextOne) {
  disk_.files["a.jsonl"] = "one\ntw";
  Open()->Write("two");
  EXPECT_EQ(disk_.files["a.jsonl"], "one\ntw\ntwo\n");
}

TEST_F(LineFileTest, FullDiskIsSaidOnceAndWritingGoesOnAfterwards) {
  auto file = Open();
  disk_.budget_bytes = 0;
  file->Write("lost");
  file->Write("lost too");
  EXPECT_THAT(errors_, ElementsAre(HasSubstr("the run goes on")));
  disk_.budget_bytes = 1000;
  file->Write("kept");
  EXPECT_THAT(disk_.files["a.jsonl"], HasSubstr("kept\n"));
  disk_.budget_bytes = 0;
  file->Write("lost again");
  EXPECT_THAT(errors_, SizeIs(2));
}

}  // namespace
}  // namespace starling
