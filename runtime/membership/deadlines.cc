#include "runtime/membership/deadlines.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace starling {
namespace {

std::string What(const Task& task) {
  const bool microbatch = task.kind == TaskKind::kForward || task.kind == TaskKind::kBackward;
  if (microbatch) return absl::StrCat("microbatch ", task.item);
  return ToString(task.kind);
}

}  // namespace

const char* ToString(TaskKind kind) {
  switch (kind) {
    case TaskKind::kForward:
      return "forward";
    case TaskKind::kBackward:
      return "backward";
    case TaskKind::kSeal:
      return "seal";
    case TaskKind::kReduce:
      return "reduce";
    case TaskKind::kApply:
      return "apply";
    case TaskKind::kLoad:
      return "load";
  }
  return "unknown";
}

void Deadlines::Begin(const Task& task, absl::Time now) { open_.try_emplace(task, now); }

void Deadlines::Learn(Known* known, absl::Duration took) {
  known->durations.Add(took);
  known->limit = known->durations.LimitOf(options_.bounds);
}

void Deadlines::End(const Task& task, absl::Time now) {
  const auto it = open_.find(task);
  if (it == open_.end()) return;
  const absl::Duration took = now - it->second;
  open_.erase(it);
  Learn(&replicas_[{task.replica, task.kind}], took);
  Learn(&stages_[{task.stage, task.kind}], took);
}

void Deadlines::CallOff(const Task& task, absl::Time now) {
  const auto it = open_.find(task);
  if (it == open_.end()) return;
  const absl::Duration waited = now - it->second;
  open_.erase(it);
  Known& known = replicas_[{task.replica, task.kind}];
  if (waited > known.durations.median()) Learn(&known, waited);
}

void Deadlines::Forget(Incarnation replica) {
  for (auto it = open_.begin(); it != open_.end();) {
    it = it->first.replica == replica ? open_.erase(it) : std::next(it);
  }
  replicas_.erase(replicas_.lower_bound({replica, TaskKind::kForward}),
                  replicas_.upper_bound({replica, TaskKind::kLoad}));
}

void Deadlines::Extend(absl::Duration duration) {
  for (auto& [task, since] : open_) since += duration;
}

absl::Duration Deadlines::Limit(const Task& task) const {
  const auto own = replicas_.find({task.replica, task.kind});
  if (own != replicas_.end() && own->second.durations.count() >= options_.bounds.enough) {
    return own->second.limit;
  }
  const auto all = stages_.find({task.stage, task.kind});
  if (all == stages_.end()) return options_.bounds.most;
  return std::min(options_.bounds.most, options_.unknown_factor * all->second.limit);
}

std::vector<Deadlines::Late> Deadlines::Overdue(absl::Time now) const {
  std::vector<Late> late;
  for (const auto& [task, since] : open_) {
    const absl::Duration waited = now - since;
    const absl::Duration limit = Limit(task);
    if (waited <= limit) continue;
    late.push_back({task, waited, limit, Reason(task, waited)});
  }
  return late;
}

absl::Time Deadlines::NextDue() const {
  absl::Time due = absl::InfiniteFuture();
  for (const auto& [task, since] : open_) due = std::min(due, since + Limit(task));
  return due;
}

LearnedLimit Deadlines::LimitWithReason(const Task& task) const {
  const auto own = replicas_.find({task.replica, task.kind});
  if (own != replicas_.end() && own->second.durations.count() >= options_.bounds.enough) {
    return own->second.durations.LimitWithin(options_.bounds);
  }
  const auto all = stages_.find({task.stage, task.kind});
  if (all == stages_.end() || all->second.durations.count() < options_.bounds.enough) {
    return {Limit(task), "too little is known yet"};
  }
  return {Limit(task), absl::StrFormat("%g times the stage's, for a replica not known yet; %s",
                                       options_.unknown_factor,
                                       all->second.durations.LimitWithin(options_.bounds).why)};
}

std::string Deadlines::Reason(const Task& task, absl::Duration waited) const {
  std::string reason = absl::StrFormat("%s is overdue at stage %s: %s for %s at replica %s",
                                       What(task), ToString(task.stage), ToString(task.kind),
                                       InSeconds(waited), ToString(task.replica));
  const auto own = replicas_.find({task.replica, task.kind});
  if (own != replicas_.end() && own->second.durations.count() > 0) {
    reason += ", which takes " + InSeconds(own->second.durations.median());
  }
  const auto all = stages_.find({task.stage, task.kind});
  if (all != stages_.end()) {
    reason += "; the stage takes " + InSeconds(all->second.durations.median());
  }
  const LearnedLimit limit = LimitWithReason(task);
  return reason + absl::StrFormat(" (limit %s: %s)", InSeconds(limit.limit), limit.why);
}

}  // namespace starling
