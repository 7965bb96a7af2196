#include "runtime/reactor/file_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "runtime/reactor/system_error.h"

namespace starling {
namespace {

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown";
}

// "process 123 on host", as far as the file says.
std::string HolderOf(int fd) {
  char text[320] = {};
  const ssize_t got = pread(fd, text, sizeof(text) - 1, 0);
  const std::string line(text, got > 0 ? static_cast<size_t>(got) : 0);
  const size_t space = line.find(' ');
  if (space == std::string::npos) return "another process";
  const size_t end = line.find('\n');
  return "process " + line.substr(0, space) + " on " + line.substr(space + 1, end - space - 1);
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileLock>> FileLock::Acquire(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return FileError("cannot open " + path, errno);
  std::unique_ptr<FileLock> lock(new FileLock(fd));
  int locked = flock(fd, LOCK_EX | LOCK_NB);
  while (locked != 0 && errno == EINTR) locked = flock(fd, LOCK_EX | LOCK_NB);
  if (locked != 0) {
    if (errno != EWOULDBLOCK) return FileError("cannot lock " + path, errno);
    return absl::UnavailableError(path + " is locked by " + HolderOf(fd));
  }
  const std::string line = std::to_string(getpid()) + " " + HostName() + "\n";
  if (ftruncate(fd, 0) != 0 || pwrite(fd, line.data(), line.size(), 0) < 0) {
    return FileError("cannot write " + path, errno);
  }
  return lock;
}

FileLock::~FileLock() { close(fd_); }

}  // namespace starling
