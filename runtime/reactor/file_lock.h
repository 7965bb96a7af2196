// An exclusive lock on a file, held by one process at a time: a run directory has one trainer.
//
// The lock goes with the process, however that ends. The file holds "pid host" of its last holder
// and stays.
#ifndef STARLING_RUNTIME_REACTOR_FILE_LOCK_H_
#define STARLING_RUNTIME_REACTOR_FILE_LOCK_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace starling {

class FileLock {
 public:
  // Makes the file if needed; never waits.
  //   unavailable: another process holds it; the message names its pid and host.
  //   not found, permission denied, resource exhausted, internal: the file cannot be made.
  static absl::StatusOr<std::unique_ptr<FileLock>> Acquire(const std::string& path);
  ~FileLock();  // releases
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_FILE_LOCK_H_
