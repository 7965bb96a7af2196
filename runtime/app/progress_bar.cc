#include "runtime/app/progress_bar.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_format.h"
#include "runtime/app/terminal.h"
#include "runtime/observe/progress_printer.h"

namespace starling {
namespace {

constexpr int64_t kBarWidth = 30;
constexpr absl::Duration kBarEvery = absl::Milliseconds(100);

}  // namespace

ProgressBar::ProgressBar(std::string verb, uint64_t total, std::string things)
    : verb_(std::move(verb)),
      total_(total),
      things_(std::move(things)),
      terminal_(StdoutIsTerminal()) {}

std::string ProgressBar::Amount(uint64_t count) const {
  const auto number = static_cast<int64_t>(count);
  return things_.empty() ? FormatBytes(number) : FormatCount(number) + " " + things_;
}

void ProgressBar::Show(uint64_t done) {
  const int64_t percent = static_cast<int64_t>(100.0 * static_cast<double>(done) /
                                               static_cast<double>(std::max<uint64_t>(total_, 1)));
  return terminal_ ? Draw(done, percent) : Print(done, percent);
}

void ProgressBar::Clear() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stdout);
  std::fflush(stdout);
  drawn_ = false;
}

void ProgressBar::Draw(uint64_t done, int64_t percent) {
  const absl::Time now = absl::Now();
  if (drawn_ && now - last_ < kBarEvery) return;
  last_ = now;
  drawn_ = true;
  const double seconds = std::max(1e-3, absl::ToDoubleSeconds(now - began_));
  const double rate = static_cast<double>(done) / seconds;
  const std::string bar(static_cast<size_t>(percent * kBarWidth / 100), '#');
  const std::string eta =
      done == 0 ? "?" : FormatSeconds(static_cast<double>(total_ - done) / rate);
  std::fputs(
      absl::StrFormat("\r[%-*s] %3d%%  %s of %s  %s/s  eta %s\x1b[K", int{kBarWidth}, bar, percent,
                      Amount(done), Amount(total_), Amount(static_cast<uint64_t>(rate)), eta)
          .c_str(),
      stdout);
  std::fflush(stdout);
}

void ProgressBar::Print(uint64_t done, int64_t percent) {
  if (percent / 10 <= tenths_ || percent >= 100) return;
  tenths_ = percent / 10;
  PrintLine(absl::StrFormat("%s %2d%%  %s of %s", verb_, percent, Amount(done), Amount(total_)));
}

}  // namespace starling
