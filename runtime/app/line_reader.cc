#include "runtime/app/line_reader.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"

namespace starling {

absl::StatusOr<LineReader::Read> LineReader::Next() {
  while (true) {
    const bool wait = !ended_ && Newline() == std::string::npos;
    pollfd watched[] = {{wake_fd_, POLLIN, 0}, {fd_, POLLIN, 0}};
    const int ready = poll(watched, wait ? 2 : 1, wait ? -1 : 0);
    if (ready < 0 && errno != EINTR && errno != EAGAIN) {
      return absl::InternalError(absl::StrCat("cannot wait for input: ", strerror(errno)));
    }
    if (ready > 0 && watched[0].revents != 0) return Read{Kind::kWoken, ""};
    if (std::optional<Read> line = TakeLine()) return *std::move(line);
    if (ready > 0 && watched[1].revents != 0) STARLING_RETURN_IF_ERROR(ReadMore());
  }
}

size_t LineReader::Newline() {
  const size_t newline = waiting_.find('\n', searched_);
  searched_ = std::min(newline, waiting_.size());
  return newline;
}

std::optional<LineReader::Read> LineReader::TakeLine() {
  const size_t newline = Newline();
  if (newline != std::string::npos) {
    Read read{Kind::kLine, waiting_.substr(0, newline)};
    waiting_.erase(0, newline + 1);
    searched_ = 0;
    return read;
  }
  if (!ended_) return std::nullopt;
  if (waiting_.empty()) return Read{Kind::kEnd, ""};
  Read read{Kind::kLine, waiting_};
  waiting_.clear();
  return read;
}

absl::Status LineReader::ReadMore() {
  char bytes[4096];
  const ssize_t count = read(fd_, bytes, sizeof(bytes));
  if (count < 0) {
    if (errno == EINTR || errno == EAGAIN) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("cannot read the input: ", strerror(errno)));
  }
  ended_ = count == 0;
  waiting_.append(bytes, static_cast<size_t>(count));
  if (waiting_.size() > kLongestLine + sizeof(bytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a line of the input is longer than ", kLongestLine, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace starling
