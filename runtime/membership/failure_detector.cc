#include "runtime/membership/failure_detector.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace starling {

void FailureDetector::OnHeard(Incarnation incarnation, absl::Time now) {
  absl::Time& heard = heard_.try_emplace(incarnation, now).first->second;
  heard = std::max(heard, now);
}

void FailureDetector::Forget(Incarnation incarnation) { heard_.erase(incarnation); }

void FailureDetector::Extend(absl::Duration duration) {
  for (auto& [incarnation, heard] : heard_) heard += duration;
}

std::vector<FailureDetector::Suspect> FailureDetector::Overdue(absl::Time now) const {
  std::vector<Suspect> suspects;
  for (const auto& [incarnation, heard] : heard_) {
    const absl::Duration silence = now - heard;
    const absl::Duration limit = Limit(incarnation);
    if (silence <= limit) continue;
    suspects.push_back({incarnation, absl::StrFormat("no heartbeat for %.1f s (limit %g s)",
                                                     absl::ToDoubleSeconds(silence),
                                                     absl::ToDoubleSeconds(limit))});
  }
  return suspects;
}

absl::Duration FailureDetector::Limit(Incarnation) const { return options_.dead_after; }

}  // namespace starling
