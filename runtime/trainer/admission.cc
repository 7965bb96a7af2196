#include "runtime/trainer/admission.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/planted.h"

namespace starling {
namespace {

// A load that takes longer than this no longer holds up the start, nor does one that has failed.
constexpr absl::Duration kLoadPatience = absl::Seconds(60);
// Before a failed load is tried again.
constexpr absl::Duration kLoadAgain = absl::Milliseconds(200);

}  // namespace

Admission::Admission(Env* env, Swarm* swarm, std::string config_toml, EventSink events,
                     FindTarget target, std::function<void()> changed)
    : env_(env),
      swarm_(swarm),
      config_toml_(std::move(config_toml)),
      events_(std::move(events)),
      target_(std::move(target)),
      changed_(std::move(changed)) {}

std::string Admission::Objection(const Hello& hello) const {
  if (hello.protocol != kProtocolVersion) {
    return absl::StrCat("this peer speaks protocol ", hello.protocol, " (", hello.build,
                        "), the trainer ", kProtocolVersion, ": run the same version of starling");
  }
  if (hello.stage && Value(*hello.stage) >= swarm_->stages()) {
    return absl::StrCat("there is no stage ", Value(*hello.stage), ": this run has stages 0 to ",
                        swarm_->stages() - 1);
  }
  return "";
}

StageId Admission::ChooseStage(const Hello& hello) const {
  if (hello.stage) return *hello.stage;
  if (choose_) return choose_(hello);
  std::vector<uint32_t> counts = swarm_->CountPerStage();
  const std::vector<uint32_t> joining = CountPerStage();
  for (size_t s = 0; s < counts.size(); ++s) counts[s] += joining[s];
  return StageId{
      static_cast<uint32_t>(std::min_element(counts.begin(), counts.end()) - counts.begin())};
}

std::optional<Incarnation> Admission::OnHello(const Hello& hello, Incarnation previous,
                                              uint64_t request) {
  const std::string objection = Objection(hello);
  if (!objection.empty()) {
    swarm_->Reply(hello.address, request, Refused{false, objection});
    return std::nullopt;
  }
  for (auto it = joiners_.begin(); it != joiners_.end(); ++it) {
    if (it->second.replica.member.peer != hello.peer) continue;
    if (it->first != previous) {  // it has not heard the Welcome
      SendWelcome(it->second.replica, request);
      return std::nullopt;
    }
    Drop(it->first, "it came back");
    break;
  }
  std::optional<Incarnation> replaced;
  for (const auto& [incarnation, replica] : swarm_->replicas()) {
    if (replica.member.peer != hello.peer) continue;
    if (incarnation != previous) {  // an old Hello, late
      SendWelcome(replica, request);
      return std::nullopt;
    }
    replaced = incarnation;
  }
  Joiner joiner;
  joiner.replica.hello = hello;
  joiner.replica.since = env_->Now();
  const bool reuse = previous.epoch == swarm_->epoch() && Planted(Bug::kReuseIncarnation);
  const Incarnation name = reuse ? previous : Incarnation{swarm_->epoch(), ++last_counter_};
  joiner.replica.member = {name, hello.peer, ChooseStage(hello), hello.address};
  const Incarnation incarnation = joiner.replica.member.incarnation;
  events_(Event("peer_arrived")
              .With("stage", Value(joiner.replica.member.stage))
              .With("replica", ToString(incarnation))
              .With("host", hello.host)
              .With("pid", hello.pid));
  SendWelcome(joiner.replica, request);
  joiners_.emplace(incarnation, std::move(joiner));
  return replaced;
}

void Admission::SendWelcome(const Replica& replica, uint64_t request) {
  swarm_->Reply(replica.member.address, request,
                Welcome{replica.member.incarnation, replica.member.stage, config_toml_});
}

void Admission::OfferLoads() {
  for (auto& [incarnation, joiner] : joiners_) {
    if (joiner.state != State::kWaiting) continue;
    const auto target = target_(joiner.replica.member.stage, joiner.replica.hello.held);
    if (target) BeginLoad(incarnation, &joiner, *target);
  }
}

void Admission::BeginLoad(Incarnation incarnation, Joiner* joiner, const LoadTarget& target) {
  joiner->state = State::kLoading;
  joiner->load_began = env_->Now();
  joiner->load = ++loads_;
  swarm_->AskAt(joiner->replica.member.address, incarnation, LoadState{target.state, target.donors},
                [this, incarnation, load = joiner->load](const Message& reply) {
                  const auto* loaded = std::get_if<Loaded>(&reply.body);
                  if (loaded != nullptr) OnLoaded(incarnation, load, *loaded);
                });
}

void Admission::OnLoaded(Incarnation incarnation, uint64_t load, const Loaded& loaded) {
  const auto it = joiners_.find(incarnation);
  if (it == joiners_.end() || it->second.load != load) return;
  Joiner& joiner = it->second;
  if (loaded.code == absl::StatusCode::kOk) {
    joiner.state = State::kLoaded;
    joiner.replica.state = loaded.state;
    joiner.replica.older = loaded.older;
    joiner.replica.hello.held = loaded.state;
  } else {
    joiner.failed_before = true;
    events_(
        Event("load_failed").With("replica", ToString(incarnation)).With("reason", loaded.error));
    env_->Schedule(kLoadAgain, [this, incarnation, load] {
      const auto failed = joiners_.find(incarnation);
      if (failed == joiners_.end() || failed->second.load != load) return;
      failed->second.state = State::kWaiting;
      OfferLoads();
    });
  }
  changed_();
}

void Admission::OnBehind(Incarnation incarnation, const Behind& behind) {
  const auto it = joiners_.find(incarnation);
  if (it == joiners_.end()) return;
  events_(Event("joiner_falls_behind")
              .With("stage", Value(it->second.replica.member.stage))
              .With("replica", ToString(incarnation))
              .With("reason", absl::StrFormat("its link takes %.3g s for each result, steps take "
                                              "%.3g s: it will not catch up as things are",
                                              behind.result_s, behind.step_s)));
}

void Admission::RestartLoads() {
  for (auto& [incarnation, joiner] : joiners_) {
    swarm_->outbox().CancelTo(incarnation);
    joiner.state = State::kWaiting;
    joiner.load = 0;
    joiner.failed_before = false;
  }
}

void Admission::Drop(Incarnation incarnation, const std::string& reason) {
  const auto it = joiners_.find(incarnation);
  if (it == joiners_.end()) return;
  events_(Event("joiner_lost")
              .With("stage", Value(it->second.replica.member.stage))
              .With("replica", ToString(incarnation))
              .With("reason", reason));
  swarm_->outbox().CancelTo(incarnation);
  joiners_.erase(it);
}

void Admission::DropAll(const std::string& reason) {
  for (const auto& [incarnation, joiner] : joiners_) {
    swarm_->outbox().CancelTo(incarnation);
    swarm_->Tell(joiner.replica.member.address, Refused{true, reason});
  }
  joiners_.clear();
}

void Admission::Readmit(Replica replica) {
  Joiner joiner;
  const Incarnation incarnation = replica.member.incarnation;
  joiner.replica = std::move(replica);
  joiners_.emplace(incarnation, std::move(joiner));
}

std::vector<Replica> Admission::TakeLoaded(const std::function<bool(const Replica&)>& current) {
  std::vector<Replica> taken;
  for (auto it = joiners_.begin(); it != joiners_.end();) {
    if (it->second.state == State::kLoaded && current(it->second.replica)) {
      taken.push_back(std::move(it->second.replica));
      it = joiners_.erase(it);
    } else {
      ++it;
    }
  }
  return taken;
}

std::vector<Replica> Admission::Take(const std::set<Incarnation>& incarnations) {
  std::vector<Replica> taken;
  for (const Incarnation& incarnation : incarnations) {
    const auto it = joiners_.find(incarnation);
    if (it == joiners_.end()) continue;
    taken.push_back(std::move(it->second.replica));
    joiners_.erase(it);
  }
  return taken;
}

const Replica* Admission::Find(Incarnation incarnation) const {
  const auto it = joiners_.find(incarnation);
  return it == joiners_.end() ? nullptr : &it->second.replica;
}

std::optional<Incarnation> Admission::FindByAddress(const std::string& control) const {
  for (const auto& [incarnation, joiner] : joiners_) {
    if (joiner.replica.member.address.control == control) return incarnation;
  }
  return std::nullopt;
}

bool Admission::loading() const {
  return std::any_of(joiners_.begin(), joiners_.end(), [this](const auto& entry) {
    const Joiner& joiner = entry.second;
    return joiner.state == State::kLoading && !joiner.failed_before &&
           env_->Now() - joiner.load_began < kLoadPatience;
  });
}

std::vector<uint32_t> Admission::CountPerStage() const {
  std::vector<uint32_t> counts(swarm_->stages(), 0);
  for (const auto& [incarnation, joiner] : joiners_) {
    ++counts[Value(joiner.replica.member.stage)];
  }
  return counts;
}

std::vector<uint32_t> Admission::LoadedPerStage() const {
  std::vector<uint32_t> counts(swarm_->stages(), 0);
  for (const auto& [incarnation, joiner] : joiners_) {
    if (joiner.state == State::kLoaded) ++counts[Value(joiner.replica.member.stage)];
  }
  return counts;
}

void Admission::ForEach(const std::function<void(const Replica&)>& visit) const {
  for (const auto& [incarnation, joiner] : joiners_) visit(joiner.replica);
}

}  // namespace starling
