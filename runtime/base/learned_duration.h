// LearnedDuration: how long a thing usually takes, and from when on it takes too long.
//
//   LearnedDuration answer;
//   answer.Add(took);                                    // each time
//   if (waited > answer.LimitWithin(bounds).limit) ...   // median plus k deviations
//
// Robust: it keeps the last kWindow durations and uses their median and the median of the distances
// from it, so that a few outliers move nothing. The deviation counts as at least a quarter of the
// median: what always took exactly a second is not overdue a moment later. A pure function of what
// was added, in order.
#ifndef STARLING_RUNTIME_BASE_LEARNED_DURATION_H_
#define STARLING_RUNTIME_BASE_LEARNED_DURATION_H_

#include <array>
#include <cstddef>
#include <string>

#include "absl/time/time.h"

namespace starling {

// What a learned limit may be.
struct LimitBounds {
  absl::Duration least = absl::ZeroDuration();
  absl::Duration most = absl::InfiniteDuration();  // also the limit while too little is known
  double deviations = 8;                           // above the median
  size_t enough = 5;                               // durations, before anything is believed
};

struct LearnedLimit {
  absl::Duration limit;
  std::string why;  // "median 1.0 s + 8 deviations", "too little is known yet", ...
};

class LearnedDuration {
 public:
  static constexpr size_t kWindow = 16;

  // Negative ones count as zero.
  void Add(absl::Duration duration);

  size_t count() const { return count_; }  // in the window
  // Zero if nothing was added.
  absl::Duration median() const;
  absl::Duration deviation() const;  // at least a quarter of the median

  // Between bounds.least and bounds.most; the latter wins where they contradict each other.
  absl::Duration LimitOf(const LimitBounds& bounds) const;
  LearnedLimit LimitWithin(const LimitBounds& bounds) const;  // with its reason

 private:
  std::array<absl::Duration, kWindow> window_;  // a ring
  size_t count_ = 0;
  size_t next_ = 0;
};

// "0.8 s", "12.3 s", "4 ms": for reasons in words.
std::string InSeconds(absl::Duration duration);

}  // namespace starling

#endif  // STARLING_RUNTIME_BASE_LEARNED_DURATION_H_
