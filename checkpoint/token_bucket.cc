#include "checkpoint/token_bucket.h"

#include <algorithm>

namespace starling {

double TokenBucket::Missing(uint64_t amount, absl::Time now) {
  if (per_second_ <= 0) return 0;
  if (filled_ != absl::InfinitePast() && now > filled_) {
    tokens_ = std::min(burst_, tokens_ + per_second_ * absl::ToDoubleSeconds(now - filled_));
  }
  filled_ = std::max(filled_, now);
  return std::min(static_cast<double>(amount), burst_) - tokens_;
}

bool TokenBucket::Take(uint64_t amount, absl::Time now) {
  // What rounding lost on the way to a full bucket is not waited for again.
  if (Missing(amount, now) > 1e-6 * burst_) return false;
  if (per_second_ > 0) tokens_ -= static_cast<double>(amount);
  return true;
}

absl::Duration TokenBucket::Wait(uint64_t amount, absl::Time now) {
  const double missing = Missing(amount, now);
  if (missing <= 1e-6 * burst_) return absl::ZeroDuration();
  return absl::Ceil(absl::Seconds(missing / per_second_), absl::Microseconds(1));
}

}  // namespace starling
