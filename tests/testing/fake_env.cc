#include "tests/testing/fake_env.h"

#include <algorithm>
#include <utility>

namespace starling {

TimerId FakeEnv::Schedule(absl::Duration delay, std::function<void()> callback) {
  const uint64_t id = next_id_++;
  const Key key(now_ + std::max(delay, absl::ZeroDuration()), id);
  timers_[key] = std::move(callback);
  keys_[id] = key;
  return static_cast<TimerId>(id);
}

void FakeEnv::Cancel(TimerId timer) {
  auto it = keys_.find(static_cast<uint64_t>(timer));
  if (it == keys_.end()) return;
  timers_.erase(it->second);
  keys_.erase(it);
}

void FakeEnv::Advance(absl::Duration duration) {
  const absl::Time end = now_ + duration;
  while (next_timer() <= end) RunNext();
  now_ = std::max(now_, end);
}

bool FakeEnv::RunNext() {
  if (timers_.empty()) return false;
  const auto first = timers_.begin();
  now_ = std::max(now_, first->first.first);
  const std::function<void()> callback = std::move(first->second);
  keys_.erase(first->first.second);
  timers_.erase(first);
  callback();
  return true;
}

absl::Time FakeEnv::next_timer() const {
  return timers_.empty() ? absl::InfiniteFuture() : timers_.begin()->first.first;
}

}  // namespace starling
