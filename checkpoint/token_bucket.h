// TokenBucket: a bound on a rate, with the time passed in.
//
//   if (bucket.Take(bytes, now)) send(); else wake_me_in(bucket.Wait(bytes, now));
//
// It fills at `per_second` up to `burst`. What is larger than the burst is let through when the
// bucket is full, and paid for afterwards. Not thread-safe.
#ifndef STARLING_CHECKPOINT_TOKEN_BUCKET_H_
#define STARLING_CHECKPOINT_TOKEN_BUCKET_H_

#include <cstdint>

#include "absl/time/time.h"

namespace starling {

class TokenBucket {
 public:
  // `per_second` 0: no bound. Full at first.
  TokenBucket(double per_second, double burst)
      : per_second_(per_second), burst_(burst), tokens_(burst) {}

  // Takes `amount` if it may go now.
  bool Take(uint64_t amount, absl::Time now);

  // How long until `amount` may go; zero: now. Rounded up to a microsecond.
  absl::Duration Wait(uint64_t amount, absl::Time now);

 private:
  double Missing(uint64_t amount, absl::Time now);

  const double per_second_;
  const double burst_;
  double tokens_;  // below zero after something larger than the burst
  absl::Time filled_ = absl::InfinitePast();
};

}  // namespace starling

#endif  // STARLING_CHECKPOINT_TOKEN_BUCKET_H_
