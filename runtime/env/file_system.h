// FileSystem: how protocol code reaches files. A Disk is blocking; Files runs jobs on one where
// they do not block the reactor.
//
// Durability is the caller's: bytes survive a crash of the machine only after WritableFile::Sync, a
// new name or a rename only after SyncDirectory of its folder. The simulated disk forgets
// everything else at a crash.
#ifndef STARLING_RUNTIME_ENV_FILE_SYSTEM_H_
#define STARLING_RUNTIME_ENV_FILE_SYSTEM_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/base/blob.h"

namespace starling {

class WritableFile {
 public:
  virtual ~WritableFile() = default;  // closes; unsynced bytes may be lost
  virtual absl::Status Append(const void* data, size_t size) = 0;
  virtual absl::Status Sync() = 0;
};

// Errors: not found; already exists; permission denied; resource exhausted = disk full; unavailable
// = held by another process (locks); internal = anything else, with the path and the system's
// words. Paths use '/'. Threads: any one at a time.
class Disk {
 public:
  virtual ~Disk() = default;

  virtual absl::StatusOr<std::string> Read(const std::string& path) = 0;
  // The whole file as bytes, memory-mapped where that exists. The file must not be truncated while
  // the Blob lives.
  virtual absl::StatusOr<Blob> Map(const std::string& path) = 0;
  // Makes or truncates the file.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) = 0;
  // Opens at the end, making the file if needed.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) = 0;
  virtual absl::StatusOr<uint64_t> FileSize(const std::string& path) = 0;
  // Names in a folder, sorted, without "." and "..".
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& path) = 0;
  virtual bool Exists(const std::string& path) = 0;
  virtual absl::Status MakeDirectories(const std::string& path) = 0;
  // Atomic; replaces a file, or an empty folder.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  virtual absl::Status RemoveFile(const std::string& path) = 0;
  virtual absl::Status RemoveTree(const std::string& path) = 0;  // ok if it does not exist
  virtual absl::Status SyncDirectory(const std::string& path) = 0;
};

class Files {
 public:
  virtual ~Files() = default;

  // Runs `job` off the reactor thread, jobs one after another in order; then `done` on the reactor
  // thread with its result, never inline, exactly once.
  virtual void Run(std::function<absl::Status(Disk&)> job,
                   std::function<void(absl::Status)> done) = 0;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_ENV_FILE_SYSTEM_H_
