#include "runtime/reactor/threaded_files.h"

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/reactor/posix_disk.h"
#include "tests/runtime/reactor/temporary_folder.h"

namespace starling {
namespace {

using testing::ElementsAre;

constexpr absl::Duration kLongWait = absl::Seconds(30);

class ThreadedFilesTest : public ::testing::Test {
 protected:
  std::function<void(absl::Status)> Note() {
    return
        [this](absl::Status status) { seen_.push_back(absl::StatusCodeToString(status.code())); };
  }
  bool RunUntil(size_t count) {
    return loop_.RunUntil([this, count] { return seen_.size() >= count; }, kLongWait);
  }

  TemporaryFolder folder_;
  PosixDisk disk_;
  EventLoop loop_;
  std::vector<std::string> seen_;
};

TEST_F(ThreadedFilesTest, JobsRunInOrderOffTheReactorAndAnswerOnIt) {
  ThreadedFiles files(&loop_, &disk_);
  const std::string path = folder_.path() + "/file";
  const std::thread::id reactor = std::this_thread::get_id();
  std::string read;
  files.Run(
      [=](Disk& disk) {
        EXPECT_NE(std::this_thread::get_id(), reactor);
        auto file = disk.Create(path);
        return file.ok() ? (*file)->Append("bytes", 5) : file.status();
      },
      Note());
  files.Run(
      [&read, path](Disk& disk) {
        read = disk.Read(path).value_or("nothing");
        return absl::OkStatus();
      },
      Note());
  files.Run([path](Disk& disk) { return disk.Read(path + "/missing").status(); }, Note());
  EXPECT_TRUE(seen_.empty()) << "no answer is given inline";
  ASSERT_TRUE(RunUntil(3));
  EXPECT_THAT(seen_, ElementsAre("OK", "OK", "NOT_FOUND"));
  EXPECT_EQ(read, "bytes");
}

TEST_F(ThreadedFilesTest, ShutdownAnswersEveryJobOnce) {
  int ran = 0;
  auto files = std::make_unique<ThreadedFiles>(&loop_, &disk_);
  for (int i = 0; i < 100; ++i) {
    files->Run(
        [&ran](Disk&) {
          ++ran;
          return absl::OkStatus();
        },
        Note());
  }
  files.reset();
  EXPECT_EQ(seen_.size(), 100u);
  EXPECT_EQ(std::count(seen_.begin(), seen_.end(), "OK"), ran);
  EXPECT_EQ(std::count(seen_.begin(), seen_.end(), "CANCELLED"), 100 - ran);
}

}  // namespace
}  // namespace starling
