#include "runtime/reactor/signal_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "runtime/base/check.h"

namespace starling {
namespace {

// A signal handler has no argument of its own to find its pipe by. 0 = not caught, else fd + 1.
constexpr int kSignals = 65;
std::atomic<int> pipe_of_signal[kSignals];

void WriteToPipe(int signal) {
  const int former_errno = errno;
  const int fd = pipe_of_signal[signal].load() - 1;
  const unsigned char byte = static_cast<unsigned char>(signal);
  // A full pipe holds signals enough to wake the loop.
  if (fd >= 0 && write(fd, &byte, 1) < 0) errno = 0;
  errno = former_errno;
}

}  // namespace

SignalPipe::SignalPipe() {
  int ends[2];
  STARLING_CHECK_MSG(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0, "no pipe: too many open files");
  read_fd_ = ends[0];
  write_fd_ = ends[1];
}

SignalPipe::~SignalPipe() {
  for (const auto& [signal, former] : former_) {
    sigaction(signal, &former, nullptr);
    pipe_of_signal[signal].store(0);
  }
  close(read_fd_);
  close(write_fd_);
}

absl::Status SignalPipe::Add(int signal) {
  if (signal <= 0 || signal >= kSignals) {
    return absl::InvalidArgumentError("no such signal: " + std::to_string(signal));
  }
  int none = 0;
  if (!pipe_of_signal[signal].compare_exchange_strong(none, write_fd_ + 1)) {
    return absl::InvalidArgumentError("signal " + std::to_string(signal) + " is caught already");
  }
  struct sigaction action = {};
  action.sa_handler = WriteToPipe;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  struct sigaction former = {};
  if (sigaction(signal, &action, &former) != 0) {
    pipe_of_signal[signal].store(0);
    return absl::InvalidArgumentError("signal " + std::to_string(signal) + " cannot be caught");
  }
  former_[signal] = former;
  return absl::OkStatus();
}

std::vector<int> SignalPipe::Take() {
  std::vector<int> signals;
  unsigned char bytes[64];
  ssize_t got = 0;
  while ((got = read(read_fd_, bytes, sizeof(bytes))) > 0 || (got < 0 && errno == EINTR)) {
    for (ssize_t i = 0; i < got; ++i) signals.push_back(bytes[i]);
  }
  return signals;
}

}  // namespace starling
