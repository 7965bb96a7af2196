// Messages, membership and eras. Steps and decisions are in trainer_steps.cc.
#include "runtime/trainer/trainer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/check.h"
#include "runtime/base/planted.h"
#include "runtime/base/status_macros.h"
#include "runtime/wire/wire.h"

namespace starling {
namespace {

// Versions for which the state an era began from is kept for those who may be fetching it.
constexpr uint64_t kKeepBaseFor = 32;
constexpr int kWatchesPerHeartbeat = 4;
constexpr absl::Duration kSayWhatIsMissing = absl::Seconds(10);
constexpr char kCameBack[] = "it came back and asked to be let in again";

}  // namespace

Trainer::Trainer(Options options, Env* env, Transport* transport, Files* files,
                 const DataFeed* data, TrainerObserver* observer)
    : options_(std::move(options)),
      env_(env),
      files_(files),
      data_(data),
      observer_(observer),
      self_(transport->address()),
      groups_(ParameterGroups(options_.layouts)),
      swarm_(env, transport, options_.run, options_.epoch, options_.config.stage_count()),
      admission_(
          env, &swarm_, options_.config_toml, [this](const Event& event) { Emit(event); },
          [this](StageId stage, const std::optional<StateName>& held) {
            return FindLoadTarget(stage, held);
          },
          [this] { OnAdmissionChanged(); }),
      departures_(&swarm_, [this](const Event& event) { Emit(event); }),
      mover_(options_.config, options_.layouts, env, &swarm_, &admission_, &departures_,
             [this](const Event& event) { Emit(event); }),
      detector_(FailureDetector::Options{options_.config.swarm.dead_after,
                                         options_.config.swarm.heartbeat}),
      log_(files, options_.run_directory + "/decisions.jsonl"),
      saver_({options_.config.checkpoint, options_.run_directory + "/checkpoints",
              (options_.shared_directory.empty() ? options_.run_directory
                                                 : options_.shared_directory) +
                  "/checkpoints"},
             env, files, &swarm_, self_, options_.layouts),
      record_number_(options_.last_record),
      base_(options_.start),
      base_donor_(
          env, ChunkDonor::Options{static_cast<double>(options_.config.swarm.join_rate), 64},
          [this](Content content, StageId stage, Era era, Version version) {
            return FindBase(content, stage, era, version);
          },
          [this](const Endpoint& to, uint64_t request, MessageBody body) {
            swarm_.Reply(to, request, std::move(body));
          }) {
  STARLING_CHECK_EQ(options_.layouts.size(), size_t{options_.config.stage_count()});
  for (const ParameterGroup& group : groups_) swarm_.AddNeighbours(group.stages);
  const uint64_t updates = options_.start_meta.updates;
  skipped_ = Value(options_.start.version) - updates;
  swarm_.set_era(Era{Value(options_.era) - 1});  // BeginEra counts up
  Wiring::Options wiring;
  wiring.seed = env->Random();
  wiring_ = std::make_unique<Wiring>(wiring);
  admission_.SetChooser([this](const Hello& hello) { return mover_.ChooseStage(hello); });
  transport->SetHandler(this);
}

Trainer::~Trainer() {
  env_->Cancel(watch_);
  env_->Cancel(rebalance_);
}

void Trainer::Start() {
  last_watch_ = env_->Now();
  watch_ =
      env_->Schedule(options_.config.swarm.heartbeat / kWatchesPerHeartbeat, [this] { Watch(); });
  if (options_.config.swarm.rebalance > absl::ZeroDuration()) {
    rebalance_ = env_->Schedule(options_.config.swarm.rebalance, [this] { Rebalance(); });
  }
  live_ = options_.live;
  if (live_) return BeginReturn();
  BeginEra();
}

void Trainer::RequestStop(const std::string& reason) {
  if (phase_ == Phase::kDone || !stop_reason_.empty()) return;
  stop_reason_ = reason;
  if (phase_ == Phase::kGathering || phase_ == Phase::kReturning) return MaybeEnd();
  if (paused_ && step_run_ == nullptr && !deciding_) return BeginStep();
  // A step that cannot end now is given up: nothing of it was decided.
  if (phase_ == Phase::kTraining && swarm_.EmptyStage()) {
    phase_ = Phase::kEnding;
    final_evaluation_done_ = true;
    MaybeEnd();
  }
}

// --- messages --------------------------------------------------------------------------

void Trainer::OnPacket(Packet packet) {
  if (phase_ == Phase::kDone || taking_again_) return;
  absl::StatusOr<Message> decoded = DecodeMessage(std::move(packet), WireLimits());
  if (!decoded.ok()) {
    return Emit(Event("message_refused").With("reason", std::string(decoded.status().message())));
  }
  const Message& message = *decoded;
  if (const auto* hello = std::get_if<Hello>(&message.body)) return OnHello(*hello, message);
  if (const auto* ask = std::get_if<StatusRequest>(&message.body)) {
    return swarm_.Reply(ask->reply_address, message.request, StatusReply{StatusJson()});
  }
  if (const auto* order = std::get_if<Order>(&message.body)) return OnOrder(*order, message);
  if (message.run != options_.run) return;
  if (std::holds_alternative<MusterReply>(message.body)) {  // its epoch is that of its own trainer
    swarm_.outbox().OnReply(message);
    return;
  }
  if (message.epoch != swarm_.epoch()) return;
  Replica* replica = swarm_.Find(message.sender);
  if (replica != nullptr) replica->load = message.load;
  if (replica != nullptr || admission_.Find(message.sender) != nullptr) {
    detector_.OnHeard(message.sender, env_->Now());
  }
  if (message.reply_to != 0) {
    wiring_->OnReport(message.sender, message.load.service_s, message.load.queued);
    swarm_.outbox().OnReply(message);
    return;
  }
  if (const auto* index = std::get_if<FetchIndex>(&message.body)) {
    return base_donor_.OnFetchIndex(*index, message.request);
  }
  if (const auto* fetch = std::get_if<Fetch>(&message.body)) {
    return base_donor_.OnFetch(*fetch, message.request);
  }
  OnMemberMessage(message);
}

void Trainer::OnHello(const Hello& hello, const Message& message) {
  if (message.run != RunId{0} && message.run != options_.run) {
    return swarm_.Reply(hello.address, message.request,
                        Refused{false, "this peer belongs to another run"});
  }
  if (admitting_ && admitting_peers_.count(hello.peer) > 0) return;  // it will say it again
  const Incarnation previous = message.epoch == swarm_.epoch() ? message.sender : Incarnation{};
  if (hello.serving && (swarm_.Find(previous) != nullptr || admission_.Find(previous) != nullptr)) {
    // It lost sight of this trainer for a while, and gave nothing up.
    detector_.OnHeard(previous, env_->Now());
    return swarm_.Reply(hello.address, message.request, Ack{});
  }
  const std::optional<Incarnation> replaced = admission_.OnHello(hello, previous, message.request);
  if (replaced) Fence(*replaced, kCameBack);
  if (roll_call_) roll_call_->OnHello(hello);
  OnAdmissionChanged();
}

void Trainer::OnMemberMessage(const Message& message) {
  const Incarnation from = message.sender;
  const Replica* replica = swarm_.Find(from);
  const Replica* joiner = admission_.Find(from);
  if (replica == nullptr && joiner == nullptr) {  // fenced: nothing it says counts
    departures_.TellAgain(from);
    return;
  }
  const Endpoint address = (replica != nullptr ? replica : joiner)->member.address;
  if (const auto* leave = std::get_if<Leave>(&message.body)) {
    if (leave->drain && replica != nullptr) {
      const std::string when = Drain(from, leave->reason, std::nullopt);
      return swarm_.Reply(address, message.request, Ack{absl::StatusCode::kOk, when});
    }
    swarm_.Reply(address, message.request, Ack{});
    if (leave->drain) swarm_.Tell(address, Stop{"left before it served"});
    return Lose(from, leave->reason);
  }
  if (std::holds_alternative<Heartbeat>(message.body)) return swarm_.Tell(address, Ack{});
  if (const auto* behind = std::get_if<Behind>(&message.body)) {
    return admission_.OnBehind(from, *behind);
  }
  if (replica == nullptr) return;
  wiring_->OnReport(from, message.load.service_s, message.load.queued);
  if (const auto* notice = std::get_if<Notice>(&message.body)) {
    swarm_.Reply(address, message.request, Ack{});
    if (message.era != swarm_.era()) return;
    if (step_run_) step_run_->OnNotice(from, *notice);
    if (ahead_run_ == nullptr) return;
    ahead_run_->OnNotice(from, *notice);
    ahead_run_->Poke();  // there may be room now
  }
}

absl::StatusOr<ChunkedBytes*> Trainer::FindBase(Content content, StageId stage, Era era,
                                                Version version) {
  if (content != Content::kState || era != swarm_.era() || version != base_version_ ||
      Value(stage) >= base_states_.size()) {
    return absl::AbortedError("the trainer has no such state");
  }
  return &base_states_[Value(stage)];
}

// --- membership ------------------------------------------------------------------------

void Trainer::OnLinkLost(const Endpoint& peer) {
  if (phase_ == Phase::kDone) return;
  if (roll_call_) {
    roll_call_->OnLinkLost(peer.control);
    ConsiderReturn();
  }
  if (const auto joiner = admission_.FindByAddress(peer.control)) {
    return Lose(*joiner, "connection lost");
  }
  for (const auto& [incarnation, replica] : swarm_.replicas()) {
    if (replica.member.address.control == peer.control) {
      return Fence(incarnation, "connection lost");
    }
  }
  if (admitting_) lost_while_admitting_.insert(peer.control);
}

void Trainer::Watch() {
  const absl::Time now = env_->Now();
  const absl::Duration pause = options_.config.swarm.heartbeat / kWatchesPerHeartbeat;
  const absl::Duration late = now - last_watch_ - pause;
  // A loop that could not run did not hear anyone either.
  const absl::Duration slept = late > options_.config.swarm.heartbeat ? late : absl::ZeroDuration();
  detector_.Extend(slept);
  last_watch_ = now;
  if (roll_call_) roll_call_->Watch(slept);
  for (const FailureDetector::Suspect& suspect : detector_.Overdue(now)) {
    const Replica* replica = swarm_.Find(suspect.incarnation);
    // Silence alone does not cost a stage its last replica while that may still come back to us,
    // unless one waits to take its place.
    if (replica != nullptr && swarm_.OfStage(replica->member.stage).size() == 1 &&
        admission_.LoadedPerStage()[Value(replica->member.stage)] == 0 &&
        suspect.silence < options_.config.swarm.orphan_timeout) {
      continue;
    }
    Lose(suspect.incarnation, suspect.reason);
  }
  if (!swarm_.EmptyStage()) stage_lost_ = absl::InfiniteFuture();
  stage_lost_ = std::min(stage_lost_, now);
  if ((paused_ && step_run_ == nullptr) || StageIsGone()) DepartWithoutStep();
  // A joiner may have loaded while a fence kept it out.
  OnAdmissionChanged();
  if (phase_ != Phase::kDone) {
    watch_ = env_->Schedule(pause, [this] { Watch(); });
  }
}

void Trainer::Lose(Incarnation incarnation, const std::string& reason) {
  if (swarm_.Find(incarnation) != nullptr) return Fence(incarnation, reason);
  detector_.Forget(incarnation);
  admission_.Drop(incarnation, reason);
  OnAdmissionChanged();
}

void Trainer::Fence(Incarnation incarnation, const std::string& reason) {
  const Replica* found = swarm_.Find(incarnation);
  if (found == nullptr) return;
  const Replica replica = *found;
  swarm_.Remove(incarnation);
  departures_.Forget(incarnation);
  mover_.OnGone();
  detector_.Forget(incarnation);
  unrecorded_leaves_.push_back(incarnation);
  const size_t left = swarm_.OfStage(replica.member.stage).size();
  Emit(Event("peer_lost")
           .With("stage", Value(replica.member.stage))
           .With("replica", ToString(incarnation))
           .With("peer", ToString(replica.member.peer))
           .With("pid", replica.hello.pid)
           .With("left", left)
           .With("reason", reason));
  // If it is alive after all, it may come back as a new incarnation.
  if (reason != kCameBack)
    swarm_.Tell(replica.member.address, Refused{true, absl::StrCat("fenced: ", reason)});
  OnMembersChanged();
  saver_.OnFenced(replica.member.address);
  applied_.erase(incarnation);
  if (!Judge(replica.member.stage, {})) return;  // it was the one that had not answered
  if (step_run_) step_run_->OnFenced({incarnation});
  if (ahead_run_) ahead_run_->OnFenced({incarnation});
  if (!stop_reason_.empty() && left == 0 && phase_ == Phase::kTraining) {
    phase_ = Phase::kEnding;
    final_evaluation_done_ = true;
  }
  OnAdmissionChanged();
}

// Who serves, or who of them takes work, is another from now on.
void Trainer::OnMembersChanged() {
  departures_.Review();
  wiring_->SetCandidates(swarm_.TakersOf(StageId{0}));
  swarm_.SendViews();
  departures_.ViewIsOut();
}

void Trainer::OnAdmissionChanged() {
  if (phase_ == Phase::kDone) return;
  ConsiderReturn();
  if (version_ != base_version_ &&
      (admission_.empty() || Value(version_) > Value(base_version_) + kKeepBaseFor)) {
    base_states_.clear();
  }
  ConsiderNewEra();
  admission_.OfferLoads();
  AdmitLoaded();
  const std::string waiting = WaitingFor();
  if (waiting != waiting_said_ && !waiting.empty()) Emit(Event("waiting").With("reason", waiting));
  waiting_said_ = waiting;
  if (step_run_) step_run_->Poke();
  if (ahead_run_) ahead_run_->Poke();
  BeginAhead();
  MaybeEnd();
}

bool Trainer::IsCurrent(const Replica& replica) const {
  if (Planted(Bug::kServeBeforeCaughtUp)) return replica.state.era == swarm_.era();
  return stage_states_[Value(replica.member.stage)] == replica.state;
}

bool Trainer::EnoughToStart() const {
  const std::vector<uint32_t> loaded = admission_.LoadedPerStage();
  bool as_expected = true;
  for (size_t stage = 0; stage < loaded.size(); ++stage) {
    if (loaded[stage] == 0) return false;
    as_expected = as_expected && loaded[stage] >= options_.expected[stage];
  }
  return as_expected || env_->Now() - gathering_since_ >= options_.gather_patience;
}

void Trainer::AdmitLoaded() {
  if (admitting_ || departing_ || deciding_ || taking_again_ || loading_base_) return;
  if (phase_ == Phase::kDone || phase_ == Phase::kReturning) return;
  if (phase_ == Phase::kGathering) {
    if (!EnoughToStart() || admission_.loading()) return;
  } else if (LastStateIsBack()) {
    return TakeStepAgain();
  } else if ((step_run_ && !step_run_->accepts_members()) ||
             (ahead_run_ && !ahead_run_->accepts_members())) {
    return;
  }
  std::vector<Replica> ready = admission_.TakeLoaded([this](const Replica& replica) {
    return IsCurrent(replica) && (replica.older || AllStepsOnNewest());
  });
  if (ready.empty()) return;
  RecordJoins(ready,
              [this, ready, at = version_, era = swarm_.era()] { Admitted(ready, at, era); });
}

void Trainer::RecordJoins(const std::vector<Replica>& replicas, std::function<void()> recorded) {
  Decision record = NewRecord();
  for (const Replica& replica : replicas) {
    record.joins.push_back(replica.member);
    admitting_peers_.insert(replica.member.peer);
  }
  admitting_ = true;
  lost_while_admitting_.clear();
  log_.Append(record, [this, record, recorded = std::move(recorded)](absl::Status status) {
    admitting_ = false;
    admitting_peers_.clear();
    if (phase_ == Phase::kDone) return;
    if (!status.ok()) return Finish(status, "the decision log cannot be written");
    observer_->OnDecision(record);
    recorded();
  });
}

void Trainer::LoseThoseLostMeanwhile() {
  for (const std::string& control : std::exchange(lost_while_admitting_, {})) {
    OnLinkLost({control, ""});
  }
}

void Trainer::Admitted(std::vector<Replica> replicas, Version at, Era era) {
  // The step was held open meanwhile, so the version stands; only a new era can have come between.
  if (at != version_ || era != swarm_.era()) {
    for (Replica& replica : replicas) admission_.Readmit(std::move(replica));
    return OnAdmissionChanged();
  }
  for (Replica& replica : replicas) {
    Emit(Event("peer_joined")
             .With("stage", Value(replica.member.stage))
             .With("replica", ToString(replica.member.incarnation))
             .With("peer", ToString(replica.member.peer))
             .With("pid", replica.hello.pid)
             .With("version", Value(version_)));
    detector_.OnHeard(replica.member.incarnation, env_->Now());
    mover_.OnJoined(replica);
    swarm_.Add(std::move(replica));
  }
  OnMembersChanged();
  if (phase_ == Phase::kGathering) {
    phase_ = Phase::kTraining;
    last_decision_ = env_->Now();
    BeginStep();
  } else {
    if (step_run_) step_run_->OnMembersChanged();
    if (ahead_run_) ahead_run_->OnMembersChanged();
  }
  LoseThoseLostMeanwhile();
  OnAdmissionChanged();
}

std::optional<Admission::LoadTarget> Trainer::FindLoadTarget(
    StageId stage, const std::optional<StateName>& held) const {
  const auto& current = stage_states_[Value(stage)];
  if (loading_base_ || !current || phase_ == Phase::kDone) return std::nullopt;
  Admission::LoadTarget target{*current, {}};
  for (const auto& [incarnation, replica] : swarm_.replicas()) {
    const bool differs =
        replica.state.version == current->version && replica.state.hash != current->hash;
    if (replica.member.stage == stage && !differs) {
      target.donors.push_back(replica.member.address);
    }
  }
  if (!base_states_.empty() && version_ == base_version_) target.donors.push_back(self_);
  if (target.donors.empty() && held != current) return std::nullopt;
  return target;
}

std::string Trainer::WaitingFor() const {
  if (phase_ == Phase::kEnding || admitting_) return "";
  // At the start replicas are on their way.
  const bool starting = phase_ == Phase::kGathering || phase_ == Phase::kReturning;
  if (starting && env_->Now() - gathering_since_ < kSayWhatIsMissing) return "";
  std::vector<uint32_t> counts = swarm_.CountPerStage();
  const std::vector<uint32_t> joining = admission_.CountPerStage();
  std::vector<std::string> missing;
  for (size_t stage = 0; stage < counts.size(); ++stage) {
    if (counts[stage] + joining[stage] == 0) missing.push_back(absl::StrCat(stage));
  }
  if (missing.empty()) return "";
  return absl::StrCat("stage ", absl::StrJoin(missing, " and stage "),
                      " has no replica: start one with `starling stage --join ", self_.control,
                      " --stage ", missing[0], "`");
}

// --- eras ------------------------------------------------------------------------------

void Trainer::BeginEra() {
  phase_ = Phase::kGathering;
  swarm_.set_era(Next(swarm_.era()));
  roll_call_.reset();
  live_.reset();
  applied_.clear();
  ForgetSteps();
  saver_.Abandon();
  std::vector<Replica> members;
  for (const auto& [incarnation, replica] : swarm_.replicas()) members.push_back(replica);
  swarm_.Clear();
  admission_.RestartLoads();
  for (Replica& replica : members) admission_.Readmit(std::move(replica));
  base_version_ = version_ = base_.version;
  saved_ = base_.version;
  gathering_since_ = env_->Now();
  stage_states_.assign(swarm_.stages(), std::nullopt);
  base_states_.clear();
  loading_base_ = true;
  Decision record = NewRecord();
  auto states = std::make_shared<std::vector<Blob>>();
  // A save of the era before may still be published meanwhile, and become base_.
  log_.Append(record, [this, record, states, base = base_](absl::Status status) {
    if (!status.ok()) return Finish(status, "the decision log cannot be written");
    observer_->OnDecision(record);
    files_->Run(
        [this, states, base](Disk& disk) {
          for (const StageLayout& layout : options_.layouts) {
            STARLING_ASSIGN_OR_RETURN(Blob state, LoadStage(disk, base, layout));
            states->push_back(std::move(state));
          }
          return absl::OkStatus();
        },
        [this, states, base](absl::Status loaded) {
          OnBaseLoaded(std::move(loaded), *states, base.path);
        });
  });
}

void Trainer::OnBaseLoaded(absl::Status status, const std::vector<Blob>& states,
                           const std::string& path) {
  if (phase_ == Phase::kDone) return;
  if (!status.ok()) return Finish(status, absl::StrCat("cannot begin from ", path));
  loading_base_ = false;
  for (uint32_t stage = 0; stage < swarm_.stages(); ++stage) {
    const Blob& bytes = states[stage];
    base_states_.emplace_back(std::vector<Blob>{bytes});
    stage_states_[stage] =
        StateName{swarm_.era(), base_version_, HashBytes(bytes.data(), bytes.size_bytes())};
  }
  Emit(Event("era_began")
           .With("era", Value(swarm_.era()))
           .With("version", Value(base_version_))
           .With("checkpoint", path));
  OnAdmissionChanged();
}

// It went with the last replica, unless someone comes back with it; and somebody waits to serve.
bool Trainer::StateIsGone(StageId stage) const {
  const auto& current = stage_states_[Value(stage)];
  bool candidate = false;
  bool current_candidate = false;
  admission_.ForEach([&](const Replica& joiner) {
    if (joiner.member.stage != stage) return;
    candidate = true;
    if (current && joiner.hello.held == current) current_candidate = true;
  });
  return candidate && !current_candidate;
}

void Trainer::ConsiderNewEra() {
  if (phase_ != Phase::kTraining && phase_ != Phase::kEnding) return;
  if (deciding_ || admitting_ || departing_ || taking_again_ || !stop_reason_.empty()) return;
  std::optional<StageId> empty;  // one whose state is not to be had
  for (uint32_t stage = 0; stage < swarm_.stages() && !empty; ++stage) {
    if (!swarm_.OfStage(StageId{stage}).empty()) continue;
    if (StateIsGone(StageId{stage})) empty = StageId{stage};
    if (AllStepsOnNewest()) break;  // else who has the state of this one may wait for others
  }
  if (!empty) return;
  if (version_ == base_version_ && !base_states_.empty()) return;  // the trainer still has it
  Emit(Event("state_lost")
           .With("stage", Value(*empty))
           .With("reason",
                 absl::StrCat("the last replica of stage ", Value(*empty), " is gone with version ",
                              Value(version_), "; everyone returns to ", base_.path)));
  BeginEra();
}

Decision Trainer::NewRecord(std::vector<Departure> departures) {
  Decision record;
  record.number = ++record_number_;
  record.epoch = swarm_.epoch();
  record.era = swarm_.era();
  record.leaves.swap(unrecorded_leaves_);
  for (const Departure& departure : departures) record.leaves.push_back(departure.incarnation);
  record.departures = std::move(departures);
  return record;
}

}  // namespace starling
