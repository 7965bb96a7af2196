#include "tests/sim/shared_disk.h"

#include <utility>

#include "runtime/base/status_macros.h"

namespace starling::sim {

class SharedFile : public WritableFile {
 public:
  SharedFile(SharedDisk* disk, std::unique_ptr<WritableFile> file)
      : disk_(disk), file_(std::move(file)) {}
  ~SharedFile() override {
    if (disk_->dead()) SimDisk::Forget(file_.get());
  }

  absl::Status Append(const void* data, size_t size) override {
    STARLING_RETURN_IF_ERROR(disk_->Change());
    return file_->Append(data, size);
  }
  absl::Status Sync() override {
    STARLING_RETURN_IF_ERROR(disk_->Change());
    return file_->Sync();
  }

 private:
  SharedDisk* const disk_;
  const std::unique_ptr<WritableFile> file_;
};

void SharedDisk::DieAfter(uint64_t changes, std::function<void()> died) {
  changes_left_ = changes + 1;
  died_ = std::move(died);
}

absl::Status SharedDisk::Change() {
  if (!dead() && changes_left_ != std::numeric_limits<uint64_t>::max() && --changes_left_ == 0) {
    died_();
  }
  return dead() ? absl::InternalError("the process has died") : absl::OkStatus();
}

bool SharedDisk::Exists(const std::string& path) {
  if (has_every_folder_) MakeDirectories(path).IgnoreError();
  return ForwardingDisk::Exists(path);
}

absl::StatusOr<std::unique_ptr<WritableFile>> SharedDisk::Create(const std::string& path) {
  STARLING_RETURN_IF_ERROR(Change());
  STARLING_ASSIGN_OR_RETURN(auto file, ForwardingDisk::Create(path));
  return std::unique_ptr<WritableFile>(new SharedFile(this, std::move(file)));
}

absl::StatusOr<std::unique_ptr<WritableFile>> SharedDisk::OpenForAppend(const std::string& path) {
  STARLING_RETURN_IF_ERROR(Change());
  STARLING_ASSIGN_OR_RETURN(auto file, ForwardingDisk::OpenForAppend(path));
  return std::unique_ptr<WritableFile>(new SharedFile(this, std::move(file)));
}

absl::Status SharedDisk::MakeDirectories(const std::string& path) {
  STARLING_RETURN_IF_ERROR(Change());
  return ForwardingDisk::MakeDirectories(path);
}

absl::Status SharedDisk::Rename(const std::string& from, const std::string& to) {
  STARLING_RETURN_IF_ERROR(Change());
  return ForwardingDisk::Rename(from, to);
}

absl::Status SharedDisk::RemoveFile(const std::string& path) {
  STARLING_RETURN_IF_ERROR(Change());
  return ForwardingDisk::RemoveFile(path);
}

absl::Status SharedDisk::RemoveTree(const std::string& path) {
  STARLING_RETURN_IF_ERROR(Change());
  return ForwardingDisk::RemoveTree(path);
}

absl::Status SharedDisk::SyncDirectory(const std::string& path) {
  STARLING_RETURN_IF_ERROR(Change());
  return ForwardingDisk::SyncDirectory(path);
}

}  // namespace starling::sim
