#include "runtime/reactor/posix_disk.h"

#include <errno.h>

#include <filesystem>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/reactor/system_error.h"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/testing/disk_contract.h"

namespace starling {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

class PosixHarness {
 public:
  Disk& disk() { return disk_; }
  std::string root() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
  PosixDisk disk_;
};
INSTANTIATE_TYPED_TEST_SUITE_P(Posix, DiskContract, PosixHarness);

TEST(PosixDisk, FullDiskIsResourceExhaustedAndNamed) {
  PosixDisk disk;
  auto file = disk.OpenForAppend("/dev/full");
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::Status status = (*file)->Append("x", 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "cannot write /dev/full: no space left on device");
}

TEST(PosixDisk, FileThatIsCutShortWhileItIsReadIsDataLossAndNamed) {
  PosixDisk disk;
  TemporaryFolder folder;
  const std::string path = folder.path() + "/file";
  {
    auto written = disk.Create(path);
    ASSERT_TRUE(written.ok()) << written.status();
    ASSERT_TRUE((*written)->Append(std::string(300000, 'x').data(), 300000).ok());
  }
  auto file = disk.OpenToRead(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->size_bytes(), 300000u);
  std::string bytes(200000, ' ');
  ASSERT_TRUE((*file)->Read(100000, bytes.data(), bytes.size()).ok());
  EXPECT_EQ(bytes, std::string(200000, 'x'));
  std::filesystem::resize_file(path, 150000);
  const absl::Status status = (*file)->Read(100000, bytes.data(), bytes.size());
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  EXPECT_EQ(disk.OpenToRead(folder.path()).status().code(), absl::StatusCode::kInternal);
}

TEST(PosixDisk, FolderCannotBeReadOrMappedAsAFile) {
  PosixDisk disk;
  TemporaryFolder folder;
  EXPECT_EQ(disk.Read(folder.path()).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(disk.Map(folder.path()).status().code(), absl::StatusCode::kInternal);
}

TEST(PosixDisk, FileWithoutASizeIsReadWhole) {
  PosixDisk disk;
  const absl::StatusOr<std::string> status = disk.Read("/proc/self/status");
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_THAT(*status, HasSubstr("Threads:"));
}

TEST(FileError, CodesSayWhatToDo) {
  EXPECT_EQ(FileError("x", ENOENT).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(FileError("x", EEXIST).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(FileError("x", EACCES).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(FileError("x", EROFS).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(FileError("x", EDQUOT).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(FileError("x", EIO).code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(FileError("cannot read /a", ENOENT).message()),
              EndsWith("cannot read /a: no such file or directory"));
}

}  // namespace
}  // namespace starling
