// What every Disk must do, as a suite that any implementation can be run through:
//
//   class PosixHarness {            // default-constructible
//    public:
//     Disk& disk();
//     std::string root();           // an existing, empty folder
//   };
//   INSTANTIATE_TYPED_TEST_SUITE_P(Posix, DiskContract, PosixHarness);
#ifndef STARLING_TESTS_TESTING_DISK_CONTRACT_H_
#define STARLING_TESTS_TESTING_DISK_CONTRACT_H_

#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/env/file_system.h"

namespace starling {

template <typename Harness>
class DiskContract : public ::testing::Test {
 protected:
  Disk& disk() { return harness_.disk(); }
  std::string Path(const std::string& name) { return harness_.root() + "/" + name; }

  void Write(const std::string& path, const std::string& bytes) {
    auto file = disk().Create(path);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE((*file)->Append(bytes.data(), bytes.size()).ok());
    ASSERT_TRUE((*file)->Sync().ok());
  }
  std::string Contents(const std::string& path) {
    const absl::StatusOr<std::string> bytes = disk().Read(path);
    return bytes.ok() ? *bytes : bytes.status().ToString();
  }

  Harness harness_;
};

TYPED_TEST_SUITE_P(DiskContract);

TYPED_TEST_P(DiskContract, WhatIsWrittenIsRead) {
  std::string bytes = "first line\n";
  bytes.push_back('\0');
  bytes += std::string(3 << 20, 'x');
  this->Write(this->Path("file"), bytes);
  EXPECT_EQ(this->Contents(this->Path("file")), bytes);
  EXPECT_EQ(this->disk().FileSize(this->Path("file")).value(), bytes.size());
}

TYPED_TEST_P(DiskContract, AppendsFollowOneAnother) {
  auto file = this->disk().Create(this->Path("log"));
  ASSERT_TRUE(file.ok()) << file.status();
  for (const std::string part : {"one ", "two ", ""}) {
    ASSERT_TRUE((*file)->Append(part.data(), part.size()).ok());
  }
  file->reset();
  auto again = this->disk().OpenForAppend(this->Path("log"));
  ASSERT_TRUE(again.ok()) << again.status();
  ASSERT_TRUE((*again)->Append("three", 5).ok());
  EXPECT_EQ(this->Contents(this->Path("log")), "one two three");
}

TYPED_TEST_P(DiskContract, OpenForAppendMakesTheFile) {
  auto file = this->disk().OpenForAppend(this->Path("new"));
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->Append("x", 1).ok());
  EXPECT_EQ(this->Contents(this->Path("new")), "x");
}

TYPED_TEST_P(DiskContract, CreateTruncates) {
  this->Write(this->Path("file"), "a long first text");
  this->Write(this->Path("file"), "short");
  EXPECT_EQ(this->Contents(this->Path("file")), "short");
}

TYPED_TEST_P(DiskContract, MappedFileHoldsTheBytesAfterItsNameIsGone) {
  const std::string bytes = std::string(10000, 'a') + "end";
  this->Write(this->Path("file"), bytes);
  const absl::StatusOr<Blob> blob = this->disk().Map(this->Path("file"));
  ASSERT_TRUE(blob.ok()) << blob.status();
  ASSERT_TRUE(this->disk().RemoveFile(this->Path("file")).ok());
  EXPECT_EQ(blob->dtype(), DType::kU8);
  EXPECT_EQ(blob->ToStringBytes(), bytes);
}

TYPED_TEST_P(DiskContract, EmptyFileMapsToAnEmptyBlob) {
  this->Write(this->Path("file"), "");
  const absl::StatusOr<Blob> blob = this->disk().Map(this->Path("file"));
  ASSERT_TRUE(blob.ok()) << blob.status();
  EXPECT_TRUE(blob->empty());
  EXPECT_EQ(this->Contents(this->Path("file")), "");
}

TYPED_TEST_P(DiskContract, MissingFileIsNotFoundAndNamed) {
  const std::string path = this->Path("missing");
  const absl::Status status = this->disk().Read(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(path));
  EXPECT_EQ(this->disk().Map(path).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(this->disk().FileSize(path).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(this->disk().List(path).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(this->disk().RemoveFile(path).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(this->disk().Rename(path, this->Path("other")).code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(this->disk().Exists(path));
}

TYPED_TEST_P(DiskContract, FileInAMissingFolderIsNotFound) {
  EXPECT_EQ(this->disk().Create(this->Path("no/file")).status().code(),
            absl::StatusCode::kNotFound);
}

TYPED_TEST_P(DiskContract, FoldersAreMadeAndListedInOrder) {
  ASSERT_TRUE(this->disk().MakeDirectories(this->Path("a/b/c")).ok());
  ASSERT_TRUE(this->disk().MakeDirectories(this->Path("a/b/c")).ok()) << "making it again";
  this->Write(this->Path("a/z"), "");
  this->Write(this->Path("a/k"), "");
  EXPECT_THAT(this->disk().List(this->Path("a")).value(), testing::ElementsAre("b", "k", "z"));
  EXPECT_TRUE(this->disk().Exists(this->Path("a/b/c")));
  EXPECT_TRUE(this->disk().SyncDirectory(this->Path("a")).ok());
}

TYPED_TEST_P(DiskContract, FolderWhereAFileIsAlreadyExists) {
  this->Write(this->Path("file"), "x");
  const absl::Status status = this->disk().MakeDirectories(this->Path("file/sub"));
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(this->Contents(this->Path("file")), "x");
}

TYPED_TEST_P(DiskContract, RenameReplacesAFile) {
  this->Write(this->Path("old"), "old");
  this->Write(this->Path("new"), "new");
  ASSERT_TRUE(this->disk().Rename(this->Path("new"), this->Path("old")).ok());
  EXPECT_EQ(this->Contents(this->Path("old")), "new");
  EXPECT_FALSE(this->disk().Exists(this->Path("new")));
}

TYPED_TEST_P(DiskContract, RenameMovesAFolderWithAllInIt) {
  ASSERT_TRUE(this->disk().MakeDirectories(this->Path("tmp/sub")).ok());
  this->Write(this->Path("tmp/sub/file"), "x");
  ASSERT_TRUE(this->disk().Rename(this->Path("tmp"), this->Path("final")).ok());
  EXPECT_EQ(this->Contents(this->Path("final/sub/file")), "x");
}

TYPED_TEST_P(DiskContract, RenameOntoAFullFolderAlreadyExistsAndChangesNothing) {
  ASSERT_TRUE(this->disk().MakeDirectories(this->Path("from")).ok());
  ASSERT_TRUE(this->disk().MakeDirectories(this->Path("to")).ok());
  this->Write(this->Path("to/file"), "kept");
  EXPECT_EQ(this->disk().Rename(this->Path("from"), this->Path("to")).code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(this->Contents(this->Path("to/file")), "kept");
  EXPECT_TRUE(this->disk().Exists(this->Path("from")));
}

TYPED_TEST_P(DiskContract, RemoveTreeTakesAllAndAcceptsNothing) {
  ASSERT_TRUE(this->disk().MakeDirectories(this->Path("a/b")).ok());
  this->Write(this->Path("a/b/file"), "x");
  EXPECT_TRUE(this->disk().RemoveTree(this->Path("a")).ok());
  EXPECT_FALSE(this->disk().Exists(this->Path("a")));
  EXPECT_TRUE(this->disk().RemoveTree(this->Path("a")).ok());
}

REGISTER_TYPED_TEST_SUITE_P(DiskContract, WhatIsWrittenIsRead, AppendsFollowOneAnother,
                            OpenForAppendMakesTheFile, CreateTruncates,
                            MappedFileHoldsTheBytesAfterItsNameIsGone, EmptyFileMapsToAnEmptyBlob,
                            MissingFileIsNotFoundAndNamed, FileInAMissingFolderIsNotFound,
                            FoldersAreMadeAndListedInOrder, FolderWhereAFileIsAlreadyExists,
                            RenameReplacesAFile, RenameMovesAFolderWithAllInIt,
                            RenameOntoAFullFolderAlreadyExistsAndChangesNothing,
                            RemoveTreeTakesAllAndAcceptsNothing);

}  // namespace starling

#endif  // STARLING_TESTS_TESTING_DISK_CONTRACT_H_
