#include "tests/sim/scheduler.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/ids.h"

namespace starling::sim {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
// After a stall a node reads what has arrived before any of its timers runs.
constexpr int64_t kTimersAfterStallNanos = 1000;

absl::Time Origin() { return absl::UnixEpoch() + absl::Hours(1); }

}  // namespace

const char* ToString(RunEnd end) {
  switch (end) {
    case RunEnd::kConditionHolds:
      return "condition holds";
    case RunEnd::kDeadline:
      return "deadline";
    case RunEnd::kEventLimit:
      return "event limit";
    case RunEnd::kIdle:
      return "idle";
  }
  return "?";
}

absl::Time Scheduler::FromNanos(int64_t nanos) { return Origin() + absl::Nanoseconds(nanos); }

int64_t Scheduler::ToNanos(absl::Time time) {
  if (time == absl::InfiniteFuture()) return kNever;
  // Rounded up: a timer may run late, never early.
  const absl::Duration since = absl::Ceil(time - Origin(), absl::Nanoseconds(1));
  return absl::ToInt64Nanoseconds(since);  // saturates
}

Scheduler::EventId Scheduler::At(absl::Time when, NodeId node, EventKind kind, const char* what,
                                 Callback callback) {
  STARLING_CHECK(callback != nullptr);
  const uint64_t id = ++last_id_;
  Event& event = events_[id];
  event.node = node;
  event.kind = kind;
  event.what = what;
  event.callback = std::move(callback);
  Rekey(id, &event, std::max(now_, ToNanos(when)));
  return id;
}

Scheduler::EventId Scheduler::After(absl::Duration delay, NodeId node, EventKind kind,
                                    const char* what, Callback callback) {
  return At(Now() + delay, node, kind, what, std::move(callback));
}

void Scheduler::Rekey(uint64_t id, Event* event, int64_t when) {
  event->when = when;
  if (when != kNever) queue_.push(Key{when, id});
}

void Scheduler::Cancel(EventId id) {
  auto found = events_.find(id);
  if (found == events_.end()) return;
  Callback dropped = std::move(found->second.callback);  // destroyed after the erase
  events_.erase(found);
}

void Scheduler::Postpone(EventId id, absl::Duration delay) {
  auto found = events_.find(id);
  if (found == events_.end() || found->second.when == kNever) return;
  Rekey(id, &found->second, found->second.when + absl::ToInt64Nanoseconds(delay));
}

void Scheduler::DropAll() {
  while (!events_.empty()) {
    const Callback dropped = std::move(events_.begin()->second.callback);
    events_.erase(events_.begin());
  }
}

void Scheduler::DropNode(NodeId node) {
  std::vector<std::pair<uint64_t, Callback>> dropped;
  for (auto it = events_.begin(); it != events_.end();) {
    if (it->second.node == node) {
      dropped.emplace_back(it->first, std::move(it->second.callback));
      it = events_.erase(it);
    } else {
      ++it;
    }
  }
  stalled_until_.erase(Value(node));
  std::sort(dropped.begin(), dropped.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (auto& entry : dropped) entry.second = nullptr;
}

void Scheduler::Stall(NodeId node, absl::Duration duration) {
  const int64_t nanos = absl::ToInt64Nanoseconds(duration);
  STARLING_CHECK_GT(nanos, 0);
  STARLING_CHECK_LT(nanos, kNever / 4);
  int64_t& until = stalled_until_[Value(node)];
  until = std::max(until, now_) + nanos;
  for (auto& [id, event] : events_) {
    if (event.node != node || event.when == kNever) continue;
    if (event.kind == EventKind::kTimer || event.kind == EventKind::kCompletion) {
      Rekey(id, &event, event.when + nanos + kTimersAfterStallNanos);
    }
  }
}

bool Scheduler::stalled(NodeId node) const {
  auto found = stalled_until_.find(Value(node));
  return found != stalled_until_.end() && found->second > now_;
}

void Scheduler::SetObservers(std::function<void(const EventInfo&)> before,
                             std::function<void(NodeId)> after) {
  before_ = std::move(before);
  after_ = std::move(after);
}

bool Scheduler::FindNext(Key* next) {
  while (!queue_.empty()) {
    const Key key = queue_.top();
    auto found = events_.find(key.id);
    if (found == events_.end() || found->second.when != key.when) {
      queue_.pop();
      continue;
    }
    Event& event = found->second;
    if (event.kind != EventKind::kWorld && !stalled_until_.empty()) {
      auto stall = stalled_until_.find(Value(event.node));
      if (stall != stalled_until_.end() && stall->second > key.when) {
        queue_.pop();
        Rekey(key.id, &event, stall->second);
        continue;
      }
    }
    *next = key;
    return true;
  }
  return false;
}

void Scheduler::RunEvent(uint64_t id) {
  auto found = events_.find(id);
  Event event = std::move(found->second);
  events_.erase(found);
  ++events_run_;
  running_ = event.node;
  if (before_) before_(EventInfo{Now(), event.node, event.what});
  event.callback();
  event.callback = nullptr;  // what it held is let go as part of the event
  running_ = kNobody;
  if (after_) after_(event.node);
}

RunEnd Scheduler::Run(const RunLimits& limits) {
  STARLING_CHECK_MSG(running_ == kNobody, "Run inside an event");
  const int64_t deadline = ToNanos(limits.deadline);
  for (uint64_t count = 0;; ++count) {
    if (limits.until && limits.until()) return RunEnd::kConditionHolds;
    if (count >= limits.max_events) return RunEnd::kEventLimit;
    Key next{};
    if (!FindNext(&next)) return RunEnd::kIdle;
    if (next.when > deadline) {
      now_ = std::max(now_, deadline);
      return RunEnd::kDeadline;
    }
    queue_.pop();
    now_ = next.when;
    RunEvent(next.id);
  }
}

}  // namespace starling::sim
