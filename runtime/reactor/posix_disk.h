// PosixDisk: the machine's file system as a Disk.
//
// Relative paths are taken from the working directory. Errors have the codes of
// runtime/env/file_system.h, the path, and the system's words. Threads: any; it holds no state.
#ifndef STARLING_RUNTIME_REACTOR_POSIX_DISK_H_
#define STARLING_RUNTIME_REACTOR_POSIX_DISK_H_

#include <memory>
#include <string>
#include <vector>

#include "runtime/env/file_system.h"

namespace starling {

class PosixDisk final : public Disk {
 public:
  absl::StatusOr<std::string> Read(const std::string& path) override;
  // The file stays mapped, read-only, as long as a Blob of it lives, also when its name is gone.
  absl::StatusOr<Blob> Map(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<ReadableFile>> OpenToRead(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) override;
  absl::StatusOr<uint64_t> FileSize(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;
  bool Exists(const std::string& path) override;
  absl::Status MakeDirectories(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status RemoveFile(const std::string& path) override;
  absl::Status RemoveTree(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_POSIX_DISK_H_
