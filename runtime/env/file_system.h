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
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
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

class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  virtual uint64_t size_bytes() const = 0;  // as it was when it was opened
  // Exactly `size` bytes from `offset` on. Data loss: the file has become shorter.
  virtual absl::Status Read(uint64_t offset, void* to, size_t size) = 0;
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
  // For large files that are read once: unlike what is mapped, a file that is truncated meanwhile
  // gives an error.
  virtual absl::StatusOr<std::unique_ptr<ReadableFile>> OpenToRead(const std::string& path);
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

// A file as bytes in memory.
class ReadableBytes : public ReadableFile {
 public:
  explicit ReadableBytes(Blob bytes) : bytes_(std::move(bytes)) {}
  uint64_t size_bytes() const override { return bytes_.size_bytes(); }
  absl::Status Read(uint64_t offset, void* to, size_t size) override {
    if (offset > bytes_.size_bytes() || size > bytes_.size_bytes() - offset) {
      return absl::DataLossError("bytes behind the end of the file were asked for");
    }
    if (size > 0) std::memcpy(to, bytes_.data() + offset, size);
    return absl::OkStatus();
  }

 private:
  const Blob bytes_;
};

inline absl::StatusOr<std::unique_ptr<ReadableFile>> Disk::OpenToRead(const std::string& path) {
  absl::StatusOr<Blob> bytes = Map(path);
  if (!bytes.ok()) return bytes.status();
  return std::unique_ptr<ReadableFile>(std::make_unique<ReadableBytes>(*std::move(bytes)));
}

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
