#include "router/wiring.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "runtime/base/check.h"
#include "runtime/base/rng.h"

namespace starling {
namespace {

// Reports are not trusted: one absurd service time must not drown all the others in rounding.
constexpr double kMinServiceS = 1e-6;
constexpr double kMaxServiceS = 3600;
constexpr absl::Duration kMaxBackoff = absl::Seconds(1);

}  // namespace

Wiring::Wiring(Options options) : options_(options) {
  STARLING_CHECK(options_.smoothing > 0 && options_.smoothing <= 1);
  STARLING_CHECK(options_.initial_service_s > 0);
  STARLING_CHECK(options_.busy_backoff > absl::ZeroDuration());
}

void Wiring::SetCandidates(const std::vector<Incarnation>& replicas) {
  const std::set<Incarnation> live(replicas.begin(), replicas.end());
  for (auto it = replicas_.begin(); it != replicas_.end();) {
    if (live.count(it->first) != 0) {
      ++it;
      continue;
    }
    Remove(it->first, &it->second);
    if (it->second.reported_s > 0) {
      reported_sum_ -= it->second.reported_s;
      --reported_count_;
    }
    it = replicas_.erase(it);
  }
  for (Incarnation id : live) {
    const auto [it, is_new] = replicas_.try_emplace(id);
    if (!is_new) continue;
    it->second.charged = virtual_time_;
    Insert(id, &it->second);
  }
}

std::optional<Incarnation> Wiring::Choose(absl::Time now) {
  ReleaseBusy(now);
  const std::optional<Incarnation> first = First();
  if (!first) return std::nullopt;
  Replica& replica = replicas_.at(*first);
  Remove(*first, &replica);
  virtual_time_ = std::max(virtual_time_, replica.charged);
  replica.last_charge = ServiceOf(replica);
  replica.charged = virtual_time_ + replica.last_charge;
  ++replica.outstanding;
  ++replica.chosen;
  Insert(*first, &replica);
  PassBehind();
  return first;
}

absl::Time Wiring::NextTry(absl::Time now) const {
  if (!ahead_.empty() || !behind_.empty()) return now;
  if (busy_.empty()) return absl::InfiniteFuture();
  return std::max(now, busy_.begin()->first);
}

void Wiring::OnReport(Incarnation id, double service_s, uint32_t queued) {
  const auto it = replicas_.find(id);
  if (it == replicas_.end()) return;
  Replica& replica = it->second;
  Remove(id, &replica);
  if (std::isfinite(service_s) && service_s > 0) {
    const double report = std::clamp(service_s, kMinServiceS, kMaxServiceS);
    const double before = replica.reported_s;
    const double gamma = options_.smoothing;
    replica.reported_s = before > 0 ? gamma * report + (1 - gamma) * before : report;
    reported_sum_ += replica.reported_s - before;
    if (before <= 0) ++reported_count_;
  }
  replica.reported_queue = queued;
  const uint32_t others = queued > replica.outstanding ? queued - replica.outstanding : 0;
  replica.others_until = virtual_time_ + ServiceOf(replica) * others;
  Insert(id, &replica);
}

void Wiring::OnFinished(Incarnation id) {
  const auto it = replicas_.find(id);
  // None outstanding: it was sent before this replica was left out and came back as a candidate.
  if (it == replicas_.end() || it->second.outstanding == 0) return;
  Remove(id, &it->second);
  --it->second.outstanding;
  it->second.backoff = absl::ZeroDuration();
  Insert(id, &it->second);
}

void Wiring::OnBusy(Incarnation id, absl::Time now) {
  const auto it = replicas_.find(id);
  if (it == replicas_.end()) return;
  Replica& replica = it->second;
  Remove(id, &replica);
  if (replica.outstanding > 0) {
    --replica.outstanding;
    replica.charged -= replica.last_charge;
  }
  // Several refusals may be on their way at once; only one of a later try shows that it goes on.
  if (now >= replica.busy_until) {
    replica.backoff = replica.backoff == absl::ZeroDuration()
                          ? options_.busy_backoff
                          : std::min(2 * replica.backoff, kMaxBackoff);
    replica.busy_until = now + replica.backoff;
  }
  Insert(id, &replica);
}

uint32_t Wiring::outstanding(Incarnation id) const {
  const auto it = replicas_.find(id);
  return it == replicas_.end() ? 0 : it->second.outstanding;
}

double Wiring::service_s(Incarnation id) const {
  const auto it = replicas_.find(id);
  return it == replicas_.end() ? 0 : ServiceOf(it->second);
}

std::string Wiring::Explain(Incarnation id) const {
  const auto it = replicas_.find(id);
  if (it == replicas_.end()) return ToString(id) + ": no candidate";
  const Replica& replica = it->second;
  const double start = std::max({replica.charged, replica.others_until, virtual_time_});
  std::string text = absl::StrFormat(
      "%s: %d outstanding and %d queued there, %.4f s each%s; next may start in %.4f s",
      ToString(id), replica.outstanding, replica.reported_queue, ServiceOf(replica),
      replica.reported_s > 0 ? "" : " (assumed, none reported)",
      start - virtual_time_ + ServiceOf(replica) * replica.outstanding);
  if (replica.place == Place::kBusy) {
    text += "; left out for " + absl::FormatDuration(replica.backoff) + " since it refused";
  }
  return text;
}

double Wiring::ServiceOf(const Replica& replica) const {
  if (replica.reported_s > 0) return replica.reported_s;
  if (reported_count_ == 0) return options_.initial_service_s;
  return std::max(kMinServiceS, reported_sum_ / static_cast<double>(reported_count_));
}

void Wiring::Insert(Incarnation id, Replica* replica) {
  STARLING_CHECK(replica->place == Place::kNowhere);
  if (replica->busy_until != absl::InfinitePast()) {
    replica->place = Place::kBusy;
    busy_.emplace(replica->busy_until, id);
    return;
  }
  const double wait = ServiceOf(*replica) * replica->outstanding;
  const uint64_t tie = MixAll(options_.seed, Value(id.epoch), id.counter, replica->chosen);
  replica->start = std::max(replica->charged, replica->others_until);
  if (replica->start < virtual_time_) {
    replica->place = Place::kBehind;
    replica->key = {wait, tie, id};
    behind_.insert(replica->key);
  } else {
    replica->place = Place::kAhead;
    replica->key = {replica->start + wait, tie, id};
    ahead_.insert(replica->key);
    starts_.emplace(replica->start, id);
  }
}

void Wiring::Remove(Incarnation id, Replica* replica) {
  switch (replica->place) {
    case Place::kAhead:
      ahead_.erase(replica->key);
      starts_.erase({replica->start, id});
      break;
    case Place::kBehind:
      behind_.erase(replica->key);
      break;
    case Place::kBusy:
      busy_.erase({replica->busy_until, id});
      break;
    case Place::kNowhere:
      break;
  }
  replica->place = Place::kNowhere;
}

// Those that the virtual time has passed move along with it from here on.
void Wiring::PassBehind() {
  while (!starts_.empty() && starts_.begin()->first < virtual_time_) {
    const Incarnation id = starts_.begin()->second;
    Replica& replica = replicas_.at(id);
    Remove(id, &replica);
    Insert(id, &replica);
  }
}

void Wiring::ReleaseBusy(absl::Time now) {
  while (!busy_.empty() && busy_.begin()->first <= now) {
    const Incarnation id = busy_.begin()->second;
    Replica& replica = replicas_.at(id);
    Remove(id, &replica);
    replica.busy_until = absl::InfinitePast();
    Insert(id, &replica);
  }
}

std::optional<Incarnation> Wiring::First() const {
  if (ahead_.empty() && behind_.empty()) return std::nullopt;
  if (behind_.empty()) return ahead_.begin()->replica;
  if (ahead_.empty()) return behind_.begin()->replica;
  const Key& ahead = *ahead_.begin();
  Key behind = *behind_.begin();
  behind.priority += virtual_time_;
  return behind < ahead ? behind.replica : ahead.replica;
}

}  // namespace starling
