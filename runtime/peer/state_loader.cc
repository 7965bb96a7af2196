#include "runtime/peer/state_loader.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "runtime/base/layout.h"

namespace starling {
namespace {

// Results in a row before it is said that they come too slowly.
constexpr uint64_t kEnoughResults = 4;

void Smooth(double* mean, double sample) {
  *mean = *mean == 0 ? sample : *mean + 0.3 * (sample - *mean);
}

}  // namespace

StateLoader::StateLoader(StageId stage, Env* env, Compute* compute, PeerLinks* links,
                         OnHeld on_held, OnLoaded on_loaded)
    : stage_(stage),
      env_(env),
      compute_(compute),
      links_(links),
      on_held_(std::move(on_held)),
      on_loaded_(std::move(on_loaded)) {}

void StateLoader::Load(const LoadState& goal, const std::optional<StateName>& held) {
  MeasureSteps(goal);
  const bool goes_on =
      goal_ && goal_->state.era == goal.state.era && goal_->state.version <= goal.state.version;
  if (!goes_on) GiveUp();
  if (!goal_) held_ = held;
  const std::vector<Endpoint> before = goal_ ? goal_->donors : goal.donors;
  goal_ = goal;
  RefreshDonors(before);
  Step();
}

void StateLoader::GiveUp() {
  goal_.reset();
  fetcher_.reset();
  no_results_ = false;
  const bool changing = putting_in_ || (catch_up_ && catch_up_->applying());
  catch_up_.reset();
  putting_in_ = false;
  ++generation_;
  if (changing) SetHeld(std::nullopt);
}

void StateLoader::RefreshDonors(const std::vector<Endpoint>& before) {
  for (const Endpoint& donor : goal_->donors) {
    if (fetcher_) fetcher_->AddDonor(donor);
    if (catch_up_) catch_up_->AddDonor(donor);
  }
  for (const Endpoint& donor : before) {
    const auto& now = goal_->donors;
    if (std::find(now.begin(), now.end(), donor) != now.end()) continue;
    // A snapshot may still come from one that no longer serves, results do not.
    if (catch_up_) catch_up_->RemoveDonor(donor, "it serves no more");
  }
}

void StateLoader::OnLinkLost(const Endpoint& donor) {
  if (fetcher_) fetcher_->RemoveDonor(donor, "connection lost");
  if (catch_up_) catch_up_->RemoveDonor(donor, "connection lost");
}

void StateLoader::Step() {
  if (!goal_ || putting_in_) return;
  const StateName& goal = goal_->state;
  if (held_ == goal) return Arrived(absl::OkStatus());
  if (catch_up_ || fetcher_) return;
  const bool behind = held_ && held_->era == goal.era && held_->version < goal.version;
  if (behind && !no_results_) {
    Replay();
  } else {
    FetchSnapshot();
  }
}

// --- the snapshot ----------------------------------------------------------------------

FetchLinks StateLoader::MakeLinks() {
  FetchLinks links;
  links.ask = [this](const Endpoint& donor, MessageBody body, FetchLinks::OnReply reply) {
    return links_->AskAt(donor, std::move(body),
                         [reply](const Message& message) { reply(message.body); });
  };
  links.cancel = [this](uint64_t request) { links_->CancelAsk(request); };
  return links;
}

void StateLoader::FetchSnapshot() {
  const StateName name = goal_->state;
  if (goal_->donors.empty()) return Arrived(absl::AbortedError("nobody has this state"));
  ChunkFetcher::Want want;
  want.content = Content::kState;
  want.stage = stage_;
  want.era = name.era;
  want.version = name.version;
  want.elements = kStatePlanes * compute_->size();
  want.hash = name.hash;
  ChunkFetcher::Events events;
  events.done = [this, name](absl::StatusOr<ChunkFetcher::Fetched> fetched) {
    OnSnapshot(name, std::move(fetched));
  };
  fetcher_ =
      std::make_unique<ChunkFetcher>(env_, ChunkFetcher::Options(), want, links_->own_address(),
                                     goal_->donors, MakeLinks(), std::move(events));
  fetcher_->Start();
}

void StateLoader::OnSnapshot(const StateName& name, absl::StatusOr<ChunkFetcher::Fetched> fetched) {
  fetcher_.reset();
  if (!fetched.ok()) return Arrived(fetched.status());
  SetHeld(std::nullopt);
  putting_in_ = true;
  compute_->Load(fetched->bytes,
                 [this, name, generation = generation_,
                  alive = std::weak_ptr<bool>(alive_)](absl::StatusOr<Hash128> hash) {
                   if (alive.expired() || generation != generation_) return;
                   putting_in_ = false;
                   if (!hash.ok()) return Arrived(hash.status());
                   if (*hash != name.hash) {
                     return Arrived(absl::DataLossError("the state arrived with another hash"));
                   }
                   no_results_ = false;
                   SetHeld(name);
                   Step();
                 });
}

// --- results ---------------------------------------------------------------------------

void StateLoader::Replay() {
  CatchUp::Start start;
  start.stage = stage_;
  start.elements = compute_->size();
  start.state = *held_;
  CatchUp::Events events;
  events.advanced = [this](const StateName& state) { OnAdvanced(state); };
  events.failed = [this](const absl::Status& why) { OnReplayFailed(why); };
  ChunkFetcher::Options fetch;
  fetch.ask_again = absl::Milliseconds(20);
  advanced_at_ = env_->Now();
  replayed_ = 0;
  lag_at_first_ = Value(goal_->state.version) - Value(held_->version);
  catch_up_ = std::make_unique<CatchUp>(
      env_, fetch, start, links_->own_address(), goal_->donors, MakeLinks(),
      [this](const UpdateScalars& scalars, Blob gradient,
             std::function<void(absl::StatusOr<Hash128>)> done) {
        compute_->Apply(scalars, {std::move(gradient)}, std::move(done));
      },
      std::move(events));
  catch_up_->Begin();
}

// Called by the CatchUp: it must outlive this.
void StateLoader::OnAdvanced(const StateName& state) {
  SetHeld(state);
  MeasureResults(state);
  if (!goal_ || held_ != goal_->state) return;
  catch_up_->Stop();
  // It is off the stack by then.
  env_->Schedule(absl::ZeroDuration(),
                 [this, alive = std::weak_ptr<bool>(alive_), generation = generation_] {
                   if (alive.expired() || generation != generation_) return;
                   catch_up_.reset();
                   Step();
                 });
}

void StateLoader::OnReplayFailed(const absl::Status& why) {
  const bool spoiled = catch_up_->state_spoiled();
  catch_up_.reset();
  if (absl::IsCancelled(why)) return;  // the device is stopping
  if (spoiled) SetHeld(std::nullopt);
  no_results_ = true;
  links_->Emit(Event("results_missing").With("reason", std::string(why.message())));
  Step();
}

void StateLoader::Arrived(const absl::Status& status) {
  goal_.reset();
  on_loaded_(status);
}

void StateLoader::SetHeld(std::optional<StateName> held) {
  held_ = std::move(held);
  on_held_(held_);
}

// --- does it keep up? ------------------------------------------------------------------

void StateLoader::MeasureSteps(const LoadState& goal) {
  const absl::Time now = env_->Now();
  if (named_ && named_->era == goal.state.era && named_->version < goal.state.version) {
    const auto steps = static_cast<double>(Value(goal.state.version) - Value(named_->version));
    Smooth(&step_s_, absl::ToDoubleSeconds(now - named_at_) / steps);
  }
  if (named_ && named_->era == goal.state.era && named_->version == goal.state.version) return;
  named_ = goal.state;
  named_at_ = now;
}

void StateLoader::MeasureResults(const StateName& state) {
  const absl::Time now = env_->Now();
  Smooth(&result_s_, absl::ToDoubleSeconds(now - std::exchange(advanced_at_, now)));
  ++replayed_;
  if (!goal_ || behind_said_ || replayed_ < kEnoughResults || step_s_ == 0) return;
  const uint64_t lag = Value(goal_->state.version) - Value(state.version);
  if (result_s_ <= step_s_ || lag < lag_at_first_) return;
  behind_said_ = true;
  links_->Emit(Event("falls_behind").With("result_s", result_s_).With("step_s", step_s_));
  Behind behind;
  behind.result_s = static_cast<float>(result_s_);
  behind.step_s = static_cast<float>(step_s_);
  links_->ReplyToTrainer(0, behind);
}

}  // namespace starling
