#include "runtime/base/learned_duration.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"

namespace starling {
namespace {

using Window = std::array<absl::Duration, LearnedDuration::kWindow>;

absl::Duration MedianOf(Window values, size_t count) {
  if (count == 0) return absl::ZeroDuration();
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(count / 2);
  std::nth_element(values.begin(), middle, values.begin() + static_cast<std::ptrdiff_t>(count));
  return *middle;
}

}  // namespace

void LearnedDuration::Add(absl::Duration duration) {
  window_[next_] = std::max(duration, absl::ZeroDuration());
  next_ = (next_ + 1) % kWindow;
  count_ = std::min(count_ + 1, kWindow);
}

absl::Duration LearnedDuration::median() const { return MedianOf(window_, count_); }

absl::Duration LearnedDuration::deviation() const {
  const absl::Duration middle = median();
  Window distances;
  for (size_t i = 0; i < count_; ++i) distances[i] = absl::AbsDuration(window_[i] - middle);
  return std::max(MedianOf(distances, count_), middle / 4);
}

absl::Duration LearnedDuration::LimitOf(const LimitBounds& bounds) const {
  if (count_ < bounds.enough) return bounds.most;
  const absl::Duration learned = median() + bounds.deviations * deviation();
  return std::min(bounds.most, std::max(bounds.least, learned));
}

LearnedLimit LearnedDuration::LimitWithin(const LimitBounds& bounds) const {
  const absl::Duration limit = LimitOf(bounds);
  if (count_ < bounds.enough) return {limit, "too little is known yet"};
  const absl::Duration learned = median() + bounds.deviations * deviation();
  std::string why =
      absl::StrFormat("median %s + %g deviations", InSeconds(median()), bounds.deviations);
  if (limit < learned) {
    why = absl::StrFormat("the most allowed; %s is %s", why, InSeconds(learned));
  } else if (limit > learned) {
    why = absl::StrFormat("the least allowed; %s is %s", why, InSeconds(learned));
  }
  return {limit, why};
}

std::string InSeconds(absl::Duration duration) {
  const double seconds = absl::ToDoubleSeconds(duration);
  if (std::abs(seconds) < 0.1) return absl::StrFormat("%.3g ms", seconds * 1000);
  return absl::StrFormat("%.1f s", seconds);
}

}  // namespace starling
