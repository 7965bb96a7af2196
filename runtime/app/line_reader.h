// LineReader: lines from a file descriptor, mostly the standard input; waiting for one can be ended
// from elsewhere, for instance by a signal.
//
// Threads: any one at a time.
#ifndef STARLING_RUNTIME_APP_LINE_READER_H_
#define STARLING_RUNTIME_APP_LINE_READER_H_

#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace starling {

class LineReader {
 public:
  static constexpr size_t kLongestLine = size_t{1} << 24;  // bytes

  // Does not own the descriptors. When `wake_fd` can be read (nothing is read from it here),
  // waiting ends.
  LineReader(int fd, int wake_fd) : fd_(fd), wake_fd_(wake_fd) {}

  enum class Kind { kLine, kEnd, kWoken };
  struct Read {
    Kind kind = Kind::kEnd;
    std::string line;  // without its newline; the last one may have had none
  };

  // Waits for the next line, the end of the input, or `wake_fd`, which counts first.
  //   resource exhausted: the line is too long; internal: the descriptor cannot be read.
  absl::StatusOr<Read> Next();

 private:
  size_t Newline();  // in waiting_
  std::optional<Read> TakeLine();
  absl::Status ReadMore();

  const int fd_;
  const int wake_fd_;
  std::string waiting_;  // read and not yet given out
  size_t searched_ = 0;  // of it, without a newline
  bool ended_ = false;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_LINE_READER_H_
