#include "runtime/reactor/wakeup.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

#include "runtime/base/check.h"

namespace starling {

Wakeup::Wakeup() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  STARLING_CHECK_MSG(fd_ >= 0, "no eventfd: too many open files");
}

Wakeup::~Wakeup() { close(fd_); }

void Wakeup::Signal() {
  const uint64_t one = 1;
  ssize_t written = 0;
  do {
    written = write(fd_, &one, sizeof(one));
  } while (written < 0 && errno == EINTR);
  // EAGAIN means that the counter is full, thus readable.
  STARLING_CHECK(written == sizeof(one) || errno == EAGAIN);
}

void Wakeup::Clear() {
  uint64_t count = 0;
  ssize_t got = 0;
  do {
    got = read(fd_, &count, sizeof(count));
  } while (got < 0 && errno == EINTR);
}

void Wakeup::Wait() {
  pollfd item{fd_, POLLIN, 0};
  while (poll(&item, 1, -1) < 0) STARLING_CHECK_EQ(errno, EINTR);
}

}  // namespace starling
