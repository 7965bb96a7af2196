#include "runtime/trainer/slow_work.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace starling {

void SlowWork::OnSent(const MicrobatchId& id, absl::Time now) {
  Open& open = open_[id];
  open.since = now;
  open.noticed = false;
}

void SlowWork::OnNotice(const MicrobatchId& id, Incarnation from, absl::Time now) {
  heard_[from] = now;
  const auto found = open_.find(id);
  if (found == open_.end()) return;
  Open& open = found->second;
  if (open.tries == 0) {
    (open.noticed ? pace_->next_sign : pace_->first_sign).Add(now - open.since);
  }
  open.noticed = true;
  open.since = now;
}

void SlowWork::OnRepaired(const MicrobatchId& id, absl::Time now) {
  const auto found = open_.find(id);
  if (found == open_.end()) return;
  ++found->second.tries;
  found->second.since = now;
}

void SlowWork::Restart(absl::Time now) {
  for (auto& [id, open] : open_) open.since = now;
  for (auto& [replica, heard] : heard_) heard = now;
}

LearnedLimit SlowWork::LimitOf(const Open& open) const {
  // The next sign may be as far away as the first: a copy begins at the beginning.
  const bool next = open.noticed && open.tries == 0;
  LearnedLimit limit = (next ? pace_->next_sign : pace_->first_sign).LimitWithin(bounds_);
  for (uint32_t i = 0; i < std::min(open.tries, 10u); ++i) limit.limit *= 2;
  return limit;
}

std::vector<SlowWork::Late> SlowWork::Overdue(absl::Time now) const {
  std::vector<Late> late;
  for (const auto& [id, open] : open_) {
    const LearnedLimit limit = LimitOf(open);
    const absl::Duration waited = now - open.since;
    if (waited < limit.limit) continue;
    late.push_back({id, open.tries,
                    absl::StrCat(id.kind == WorkKind::kTrain ? "microbatch " : "evaluation ",
                                 id.index, " gave no sign for ", InSeconds(waited), " (limit ",
                                 InSeconds(limit.limit), ": ", limit.why, ")")});
  }
  return late;
}

absl::Time SlowWork::NextDue() const {
  absl::Time due = absl::InfiniteFuture();
  for (const auto& [id, open] : open_) due = std::min(due, open.since + LimitOf(open).limit);
  return due;
}

bool SlowWork::Quiet(Incarnation replica, absl::Time since, absl::Time now) const {
  const auto heard = heard_.find(replica);
  const absl::Time last = heard == heard_.end() ? since : std::max(since, heard->second);
  return now - last >= pace_->next_sign.LimitOf(bounds_);
}

}  // namespace starling
