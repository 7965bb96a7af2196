// ProgressBar: how far a command is through so many bytes, or other things: a bar on a terminal,
// else a line for every tenth of the work.
//
// Threads: any one at a time.
#ifndef STARLING_RUNTIME_APP_PROGRESS_BAR_H_
#define STARLING_RUNTIME_APP_PROGRESS_BAR_H_

#include <cstdint>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace starling {

class ProgressBar {
 public:
  // `verb` is what was done to them: "tokenized". `things`: "tokens"; empty: bytes.
  ProgressBar(std::string verb, uint64_t total, std::string things = "");

  void Show(uint64_t done);
  // Takes the bar away, so that a line can follow.
  void Clear();

 private:
  void Draw(uint64_t done, int64_t percent);
  void Print(uint64_t done, int64_t percent);

  std::string Amount(uint64_t count) const;

  const std::string verb_;
  const uint64_t total_;
  const std::string things_;
  const bool terminal_;
  const absl::Time began_ = absl::Now();
  absl::Time last_;
  bool drawn_ = false;
  int64_t tenths_ = 0;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_PROGRESS_BAR_H_
