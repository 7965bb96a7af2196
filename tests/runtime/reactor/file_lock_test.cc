#include "runtime/reactor/file_lock.h"

#include <unistd.h>

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/reactor/temporary_folder.h"

namespace starling {
namespace {

using testing::HasSubstr;

TEST(FileLock, SecondHolderIsRefusedAndToldOfTheFirst) {
  TemporaryFolder folder;
  const std::string path = folder.path() + "/lock";
  auto first = FileLock::Acquire(path);
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status refused = FileLock::Acquire(path).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.message()), HasSubstr(path));
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("process " + std::to_string(getpid()) + " on "));
}

TEST(FileLock, ReleasedLockCanBeTakenAgain) {
  TemporaryFolder folder;
  const std::string path = folder.path() + "/lock";
  ASSERT_TRUE(FileLock::Acquire(path).ok());
  EXPECT_TRUE(FileLock::Acquire(path).ok());
}

TEST(FileLock, LockInAMissingFolderIsNotFound) {
  TemporaryFolder folder;
  EXPECT_EQ(FileLock::Acquire(folder.path() + "/no/lock").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace starling
