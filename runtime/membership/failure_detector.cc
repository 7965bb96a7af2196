#include "runtime/membership/failure_detector.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace starling {

void FailureDetector::OnHeard(Incarnation incarnation, absl::Time now) {
  const auto [it, is_new] = watched_.try_emplace(incarnation);
  Watched& watched = it->second;
  if (is_new) {
    watched.heard = watched.period_began = now;
    return;
  }
  if (now <= watched.heard) return;
  watched.longest_silence = std::max(watched.longest_silence, now - watched.heard);
  watched.heard = now;
  // A heartbeat may come a little early after a late one: a period is a bit shorter than its pause.
  if (now - watched.period_began < 0.75 * options_.heartbeat) return;
  watched.silences.Add(watched.longest_silence);
  watched.longest_silence = absl::ZeroDuration();
  watched.period_began = now;
}

void FailureDetector::Forget(Incarnation incarnation) { watched_.erase(incarnation); }

void FailureDetector::Extend(absl::Duration duration) {
  for (auto& [incarnation, watched] : watched_) {
    watched.heard += duration;
    watched.period_began += duration;
  }
}

std::vector<FailureDetector::Suspect> FailureDetector::Overdue(absl::Time now) const {
  std::vector<Suspect> suspects;
  for (const auto& [incarnation, watched] : watched_) {
    const absl::Duration silence = now - watched.heard;
    if (silence <= watched.silences.LimitOf(bounds())) continue;
    const LearnedLimit limit = watched.silences.LimitWithin(bounds());
    std::string reason = "silent for " + InSeconds(silence);
    if (watched.silences.count() >= options_.enough) {
      reason += "; usually heard every " + InSeconds(watched.silences.median());
    }
    reason += absl::StrFormat(" (limit %s: %s)", InSeconds(limit.limit), limit.why);
    suspects.push_back({incarnation, silence, std::move(reason)});
  }
  return suspects;
}

absl::Duration FailureDetector::Limit(Incarnation incarnation) const {
  const auto it = watched_.find(incarnation);
  return it == watched_.end() ? options_.dead_after : it->second.silences.LimitOf(bounds());
}

LimitBounds FailureDetector::bounds() const {
  return {options_.least_heartbeats * options_.heartbeat, options_.dead_after, options_.deviations,
          options_.enough};
}

}  // namespace starling
