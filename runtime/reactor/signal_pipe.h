// Unix signals as bytes in a pipe, so that they are handled between two callbacks of the event
// loop.
#ifndef STARLING_RUNTIME_REACTOR_SIGNAL_PIPE_H_
#define STARLING_RUNTIME_REACTOR_SIGNAL_PIPE_H_

#include <csignal>
#include <map>
#include <vector>

#include "absl/status/status.h"

namespace starling {

// A signal may be caught by one SignalPipe at a time. Its former disposition comes back when the
// pipe is destroyed. Threads: one owner; the signals may be delivered to any thread.
class SignalPipe {
 public:
  SignalPipe();
  ~SignalPipe();
  SignalPipe(const SignalPipe&) = delete;
  SignalPipe& operator=(const SignalPipe&) = delete;

  // Invalid argument: the signal cannot be caught, or another pipe catches it.
  absl::Status Add(int signal);

  int fd() const { return read_fd_; }
  // The signals that have come in, in order. Those that come faster than they are read may be
  // merged.
  std::vector<int> Take();

 private:
  int read_fd_ = -1;
  int write_fd_ = -1;
  std::map<int, struct sigaction> former_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_SIGNAL_PIPE_H_
