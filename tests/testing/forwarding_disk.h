// A Disk that passes everything on to another one: the base of disks that do one thing differently.
#ifndef STARLING_TESTS_TESTING_FORWARDING_DISK_H_
#define STARLING_TESTS_TESTING_FORWARDING_DISK_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/env/file_system.h"

namespace starling::testing {

class ForwardingDisk : public Disk {
 public:
  explicit ForwardingDisk(Disk* disk) : disk_(disk) {}

  absl::StatusOr<std::string> Read(const std::string& path) override { return disk_->Read(path); }
  absl::StatusOr<Blob> Map(const std::string& path) override { return disk_->Map(path); }
  absl::StatusOr<std::unique_ptr<ReadableFile>> OpenToRead(const std::string& path) override {
    return disk_->OpenToRead(path);
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    return disk_->Create(path);
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) override {
    return disk_->OpenForAppend(path);
  }
  absl::StatusOr<uint64_t> FileSize(const std::string& path) override {
    return disk_->FileSize(path);
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    return disk_->List(path);
  }
  bool Exists(const std::string& path) override { return disk_->Exists(path); }
  absl::Status MakeDirectories(const std::string& path) override {
    return disk_->MakeDirectories(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return disk_->Rename(from, to);
  }
  absl::Status RemoveFile(const std::string& path) override { return disk_->RemoveFile(path); }
  absl::Status RemoveTree(const std::string& path) override { return disk_->RemoveTree(path); }
  absl::Status SyncDirectory(const std::string& path) override {
    return disk_->SyncDirectory(path);
  }

 private:
  Disk* const disk_;
};

class ForwardingFile : public WritableFile {
 public:
  explicit ForwardingFile(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}

  absl::Status Append(const void* data, size_t size) override { return file_->Append(data, size); }
  absl::Status Sync() override { return file_->Sync(); }

 private:
  const std::unique_ptr<WritableFile> file_;
};

}  // namespace starling::testing

#endif  // STARLING_TESTS_TESTING_FORWARDING_DISK_H_
