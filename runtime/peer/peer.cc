#include "runtime/peer/peer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "runtime/base/check.h"
#include "runtime/base/layout.h"
#include "runtime/config/run_file.h"
#include "sync/plan.h"

namespace starling {
namespace {

constexpr absl::Duration kHelloAgain = absl::Milliseconds(500);
constexpr absl::Duration kFetchAgain = absl::Milliseconds(50);
constexpr absl::Duration kLeaveWait = absl::Seconds(2);
constexpr size_t kUnknownSenderBound = 256;

}  // namespace

Peer::Peer(Options options, Env* env, Transport* transport, ComputeFactory make_compute,
           EventSink events, OnExit on_exit)
    : options_(std::move(options)),
      env_(env),
      transport_(transport),
      make_compute_(std::move(make_compute)),
      events_(std::move(events)),
      on_exit_(std::move(on_exit)),
      outbox_(env, transport, Outbox::Options()) {
  transport_->SetHandler(this);
}

Peer::~Peer() {
  env_->Cancel(heartbeat_);
  env_->Cancel(hello_);
  env_->Cancel(retry_sends_);
}

void Peer::Start() {
  connecting_since_ = heard_trainer_ = env_->Now();
  SayHello();
}

void Peer::Leave(const std::string& reason) {
  if (state_ == State::kLeaving || state_ == State::kExited) return;
  if (state_ == State::kConnecting) return Exit(absl::OkStatus(), reason);
  state_ = State::kLeaving;
  outbox_.Send(options_.trainer, trainer_, Make(starling::Leave{reason}),
               [this, reason](const Message&) { Exit(absl::OkStatus(), reason); });
  env_->Schedule(kLeaveWait, [this, reason] { Exit(absl::OkStatus(), reason); });
}

void Peer::Exit(absl::Status status, const std::string& reason) {
  if (state_ == State::kExited) return;
  state_ = State::kExited;
  outbox_.CancelAll();
  env_->Cancel(heartbeat_);
  env_->Cancel(hello_);
  on_exit_(std::move(status), reason);
}

// --- admission -------------------------------------------------------------------------

void Peer::SayHello() {
  if (state_ != State::kConnecting) return;
  const absl::Duration waited = env_->Now() - connecting_since_;
  if (!ever_admitted_ && waited >= options_.first_contact) {
    return Exit(
        absl::UnavailableError(absl::StrCat("no rendezvous answers at ", options_.trainer.control)),
        absl::StrCat("no rendezvous answers at ", options_.trainer.control, " (waited ",
                     absl::FormatDuration(options_.first_contact), "; --wait keeps trying)"));
  }
  if (ever_admitted_ && waited >= config_.swarm.orphan_timeout) {
    return Exit(absl::OkStatus(),
                absl::StrCat("no trainer for ", absl::FormatDuration(config_.swarm.orphan_timeout),
                             " (swarm.orphan_timeout)"));
  }
  Hello hello;
  hello.build = options_.build;
  hello.peer = options_.id;
  hello.address = transport_->address();
  hello.stage = ever_admitted_ ? std::optional<StageId>(stage_) : options_.stage;
  hello.host = options_.host;
  hello.pid = options_.pid;
  hello.device = options_.device;
  hello.threads = options_.threads;
  hello.held = held_;
  outbox_.CancelAll();
  outbox_.Send(options_.trainer, Incarnation{}, Make(std::move(hello)),
               [this](const Message& reply) { OnHelloReply(reply); });
  // Said again soon: a trainer that starts late, or again, should not have to wait for us.
  env_->Cancel(hello_);
  hello_ = env_->Schedule(kHelloAgain, [this] { SayHello(); });
}

void Peer::OnHelloReply(const Message& message) {
  if (state_ != State::kConnecting) return;
  if (const auto* welcome = std::get_if<Welcome>(&message.body)) {
    OnWelcome(*welcome, message);
  } else if (const auto* refused = std::get_if<Refused>(&message.body)) {
    if (!refused->retry) {
      Exit(absl::FailedPreconditionError(refused->reason), refused->reason);
    }
  }
}

void Peer::OnWelcome(const Welcome& welcome, const Message& message) {
  auto config = ParseRunFile(welcome.config_toml, "the swarm's configuration", {});
  if (!config.ok()) return Exit(config.status(), std::string(config.status().message()));
  env_->Cancel(hello_);
  outbox_.CancelAll();
  const bool same_stage = compute_ != nullptr && welcome.stage == stage_ && message.run == run_;
  config_ = *std::move(config);
  run_ = message.run;
  era_ = message.era;
  epoch_ = message.epoch;
  trainer_ = message.sender;
  self_ = welcome.incarnation;
  stage_ = welcome.stage;
  if (!same_stage) {
    server_.reset();
    held_.reset();
    auto compute = make_compute_(config_, stage_);
    if (!compute.ok()) return Exit(compute.status(), std::string(compute.status().message()));
    compute_ = *std::move(compute);
  }
  StageServer::Options serve;
  serve.stage = stage_;
  serve.stage_count = config_.stage_count();
  serve.slots = config_.swarm.slots > 0 ? static_cast<uint32_t>(config_.swarm.slots)
                                        : 2 * config_.train.microbatches() + 64;
  StageLinks* const links = this;
  server_ = std::make_unique<StageServer>(serve, compute_.get(), links);
  Wiring::Options wire;
  wire.seed = env_->Random();
  wiring_ = std::make_unique<Wiring>(wire);
  members_.clear();
  fenced_.clear();
  unknown_senders_.clear();
  view_number_ = 0;
  ForgetStep();
  fetcher_.reset();
  load_request_ = 0;
  ever_admitted_ = true;
  state_ = State::kAdmitted;
  Emit(Event("admitted").With("incarnation", ToString(self_)).With("stage", Value(stage_)));
  env_->Cancel(heartbeat_);
  next_beat_ = env_->Now();
  BeatHeart();
}

void Peer::BeatHeart() {
  if (state_ != State::kAdmitted && state_ != State::kServing) return;
  // A loop that could not run did not hear the trainer either.
  const absl::Duration late = env_->Now() - next_beat_;
  if (late > config_.swarm.heartbeat) heard_trainer_ += late;
  if (env_->Now() - heard_trainer_ >= config_.swarm.dead_after) {
    return OnTrainerLost("the trainer says nothing");
  }
  Heartbeat beat;
  beat.version = server_->version();
  outbox_.SendOnce(options_.trainer, Make(beat)).IgnoreError();
  next_beat_ = env_->Now() + config_.swarm.heartbeat;
  heartbeat_ = env_->Schedule(config_.swarm.heartbeat, [this] { BeatHeart(); });
}

void Peer::OnTrainerLost(const std::string& why) {
  if (state_ != State::kAdmitted && state_ != State::kServing) return;
  Emit(Event("trainer_lost").With("reason", why));
  state_ = State::kConnecting;
  connecting_since_ = env_->Now();
  heard_trainer_ = env_->Now();
  env_->Cancel(heartbeat_);
  SayHello();
}

// --- what arrives ----------------------------------------------------------------------

void Peer::OnLinkLost(const Endpoint& peer) {
  if (peer.control == options_.trainer.control) OnTrainerLost("connection lost");
}

void Peer::OnPacket(Packet packet) {
  if (state_ == State::kExited) return;
  absl::StatusOr<Message> decoded = DecodeMessage(std::move(packet), WireLimits());
  if (!decoded.ok()) {
    Emit(Event("message_refused").With("reason", std::string(decoded.status().message())));
    return;
  }
  const Message& message = *decoded;
  if (message.reply_to != 0) {
    if (FromTrainer(message)) heard_trainer_ = env_->Now();
    if (wiring_ && server_)
      wiring_->OnReport(message.sender, message.load.service_s, message.load.queued);
    outbox_.OnReply(message);
    return;
  }
  if (message.run != run_ || state_ == State::kConnecting) return;
  if (message.epoch != epoch_) return;  // another trainer's reign
  Dispatch(message);
}

bool Peer::FromTrainer(const Message& message) const { return message.sender == trainer_; }

void Peer::Dispatch(const Message& message) {
  if (FromTrainer(message)) {
    heard_trainer_ = env_->Now();
    return DispatchFromTrainer(message);
  }
  if (const auto* fetch = std::get_if<Fetch>(&message.body)) return On(*fetch, message);
  if (message.era != era_) return;
  if (AddressOf(message.sender) == nullptr) {
    // Its View is on the way: the sender may have had it first.
    if (unknown_senders_.size() < kUnknownSenderBound) unknown_senders_.push_back(message);
    return;
  }
  wiring_->OnReport(message.sender, message.load.service_s, message.load.queued);
  if (const auto* forward = std::get_if<Forward>(&message.body)) {
    Reply(message, Ack{server_->OnForward(message.sender, *forward), ""});
  } else if (const auto* backward = std::get_if<Backward>(&message.body)) {
    Reply(message, Ack{server_->OnBackward(message.sender, *backward), ""});
  } else if (const auto* piece = std::get_if<Piece>(&message.body)) {
    On(*piece, message);
  } else if (const auto* result = std::get_if<Result>(&message.body)) {
    On(*result, message);
  }
}

void Peer::DispatchFromTrainer(const Message& message) {
  if (const auto* load = std::get_if<LoadState>(&message.body)) return On(*load, message);
  if (const auto* fetch = std::get_if<Fetch>(&message.body)) return On(*fetch, message);
  if (const auto* stop = std::get_if<Stop>(&message.body)) {
    return Exit(absl::OkStatus(), stop->reason);
  }
  if (const auto* refused = std::get_if<Refused>(&message.body)) {
    if (!refused->retry)
      return Exit(absl::FailedPreconditionError(refused->reason), refused->reason);
    return OnTrainerLost(refused->reason);
  }
  if (message.era != era_) return;
  if (const auto* view = std::get_if<View>(&message.body)) {
    On(*view);
    Reply(message, Ack{});
  } else if (const auto* forward = std::get_if<Forward>(&message.body)) {
    Reply(message, Ack{server_->OnForward(message.sender, *forward), ""});
  } else if (const auto* cancel = std::get_if<Cancel>(&message.body)) {
    server_->OnCancel(*cancel);
    Reply(message, Ack{});
  } else if (const auto* fence = std::get_if<Fence>(&message.body)) {
    On(*fence);
    Reply(message, server_->OnFence(*fence));
  } else if (const auto* seal = std::get_if<Seal>(&message.body)) {
    On(*seal, message);
  } else if (const auto* reduce = std::get_if<Reduce>(&message.body)) {
    On(*reduce, message);
  } else if (const auto* apply = std::get_if<Apply>(&message.body)) {
    On(*apply, message);
  }
}

// From the promise on nothing is sent to the fenced, though the View without them may come later.
void Peer::On(const Fence& fence) {
  for (Incarnation fenced : fence.fenced) {
    fenced_.insert(fenced);
    members_.erase(fenced);
    outbox_.CancelTo(fenced);
  }
  SetCandidates();
}

void Peer::SetCandidates() {
  std::vector<Incarnation> next;
  for (const auto& [incarnation, member] : members_) {
    if (member.stage == Next(stage_)) next.push_back(incarnation);
  }
  wiring_->SetCandidates(next);
}

void Peer::On(const View& view) {
  if (view.number <= view_number_) return;
  view_number_ = view.number;
  std::map<Incarnation, Member> members;
  for (const Member& member : view.members) {
    if (fenced_.count(member.incarnation) == 0) members[member.incarnation] = member;
    if (member.incarnation == self_) state_ = State::kServing;
  }
  for (const auto& [incarnation, member] : members_) {
    if (members.count(incarnation) == 0) {
      outbox_.CancelTo(incarnation);
      transport_->Disconnect(member.address);
    }
  }
  members_ = std::move(members);
  SetCandidates();
  std::deque<Message> waiting;
  waiting.swap(unknown_senders_);
  for (const Message& message : waiting) Dispatch(message);
  server_->RetrySends();
  for (auto& [id, round] : rounds_) RoundMoved(id, std::exchange(round.unsent, {}));
}

// --- state -----------------------------------------------------------------------------

void Peer::On(const LoadState& load, const Message& message) {
  if (load_request_ == message.request) return;  // being worked on
  load_request_ = message.request;
  fetcher_.reset();
  // From here on nothing of an earlier era or version is taken up any more.
  era_ = load.state.era;
  server_->Reset(load.state.version);
  ForgetStep();
  if (held_ && held_->era == load.state.era && held_->version == load.state.version &&
      held_->hash == load.state.hash) {
    compute_->FreeThrough(Step{Value(load.state.version) + 1});
    return AnswerLoaded(message.request, absl::OkStatus(), *held_);
  }
  FetchState(load, message.request);
}

void Peer::FetchState(const LoadState& load, uint64_t request) {
  StateFetcher::Want want;
  want.stage = stage_;
  want.era = load.state.era;
  want.version = load.state.version;
  want.elements = kStatePlanes * compute_->size();
  const Endpoint donor = load.donor;
  fetcher_ = std::make_unique<StateFetcher>(
      want, transport_->address(),
      [this, donor](Fetch fetch, std::function<void(const Chunk&)> reply) {
        outbox_.Send(donor, Incarnation{}, Make(std::move(fetch)), [reply](const Message& message) {
          if (const auto* chunk = std::get_if<Chunk>(&message.body)) reply(*chunk);
        });
      },
      [this, load, request](absl::StatusOr<Blob> state) {
        if (request != load_request_) return;
        if (absl::IsFailedPrecondition(state.status())) {
          // The donor has not applied that version yet.
          env_->Schedule(kFetchAgain, [this, load, request] {
            if (request == load_request_) FetchState(load, request);
          });
        } else if (!state.ok()) {
          AnswerLoaded(request, state.status(), load.state);
        } else {
          TakeState(load, request, *std::move(state));
        }
      });
  fetcher_->Start();
}

void Peer::TakeState(const LoadState& load, uint64_t request, Blob state) {
  held_.reset();
  compute_->Load(std::move(state), [this, load, request](absl::StatusOr<Hash128> hash) {
    if (request != load_request_ || state_ == State::kConnecting) return;
    if (!hash.ok()) return AnswerLoaded(request, hash.status(), load.state);
    if (*hash != load.state.hash) {
      return AnswerLoaded(request, absl::DataLossError("the state arrived with another hash"),
                          load.state);
    }
    held_ = load.state;
    snapshot_ = Blob();
    AnswerLoaded(request, absl::OkStatus(), *held_);
  });
}

void Peer::ForgetStep() {
  rounds_.clear();
  seals_.clear();
  sealed_.clear();
}

void Peer::AnswerLoaded(uint64_t request, absl::Status status, const StateName& state) {
  if (!status.ok()) Emit(Event("load_failed").With("reason", std::string(status.message())));
  load_request_ = 0;
  ReplyToTrainer(request, Loaded{status.code(), std::string(status.message()), state});
}

void Peer::On(const Fetch& fetch, const Message& message) {
  const auto refuse = [&](absl::StatusCode code, const char* why) {
    Chunk chunk;
    chunk.code = code;
    chunk.error = why;
    ReplyAt(fetch.reply_address, message.request, std::move(chunk));
  };
  if (!server_ || !held_ || fetch.stage != stage_ || fetch.era != era_) {
    return refuse(absl::StatusCode::kAborted, "this replica has no such state");
  }
  if (fetch.version > server_->version()) {
    return refuse(absl::StatusCode::kFailedPrecondition, "not at that version yet");
  }
  if (snapshot_version_ == fetch.version && !snapshot_.empty()) {
    return AnswerChunk(fetch, message.request);
  }
  if (fetch.version < server_->version()) {
    return refuse(absl::StatusCode::kAborted, "this replica is past that version");
  }
  waiting_fetches_.emplace_back(fetch, message.request);
  if (snapshot_pending_) return;
  snapshot_pending_ = true;
  compute_->Snapshot([this, version = fetch.version](absl::StatusOr<Blob> snapshot) {
    snapshot_pending_ = false;
    if (!snapshot.ok()) {
      waiting_fetches_.clear();
      if (!absl::IsCancelled(snapshot.status())) DeviceFailed(snapshot.status());
      return;
    }
    snapshot_version_ = version;
    snapshot_ = *std::move(snapshot);
    auto waiting = std::move(waiting_fetches_);
    waiting_fetches_.clear();
    for (const auto& [waiting_fetch, request] : waiting) AnswerChunk(waiting_fetch, request);
  });
}

void Peer::AnswerChunk(const Fetch& fetch, uint64_t request) {
  ReplyAt(fetch.reply_address, request, CutChunk(fetch, snapshot_));
}

// --- the end of a step -----------------------------------------------------------------

void Peer::On(const Seal& seal, const Message& message) {
  if (seal.step != Step{Value(server_->version()) + 1}) return;  // not there yet, or over
  const auto [entry, first] = seals_.try_emplace(seal.number);
  entry->second.first = message.request;
  if (entry->second.second) return ReplyToTrainer(message.request, *entry->second.second);
  if (!first) return;                                 // on its way through the device
  if (seals_.rbegin()->first != seal.number) return;  // an old one, late
  server_->OnSeal(seal.step, [this, seal](absl::StatusOr<std::vector<SegmentSummary>> segments) {
    const auto it = seals_.find(seal.number);
    if (!segments.ok() || it == seals_.end() || !held_) return;
    Sealed sealed;
    sealed.step = seal.step;
    sealed.number = seal.number;
    sealed.version = held_->version;
    sealed.state_hash = held_->hash;
    sealed.segments = *std::move(segments);
    sealed_ = sealed.segments;
    it->second.second = sealed;
    ReplyToTrainer(it->second.first, std::move(sealed));
  });
}

void Peer::On(const Reduce& reduce, const Message& message) {
  const RoundPlan& plan = reduce.plan;
  if (plan.id.step != Step{Value(server_->version()) + 1}) return;
  Round& round = rounds_[plan.id];
  const bool first = round.reduce_request == 0;
  round.reduce_request = message.request;
  if (!first) {
    round.answered = false;
    return RoundMoved(plan.id, {});
  }
  BeginRound(plan.id, plan);
}

void Peer::BeginRound(RoundId id, const RoundPlan& plan) {
  if (absl::Status status = CheckPlan(plan, compute_->size(), self_); !status.ok()) {
    return FailRound(id, status);
  }
  std::vector<SegmentId> segments;
  for (const RoundMemberPlan& member : plan.members) {
    if (member.incarnation != self_) continue;
    for (const SegmentRef& ref : member.segments) {
      const auto known = std::find_if(sealed_.begin(), sealed_.end(), [&ref](const auto& summary) {
        return summary.id == ref.id && summary.list_hash == ref.list_hash;
      });
      if (known == sealed_.end()) {
        return FailRound(id,
                         absl::AbortedError("the plan names a segment this replica never sealed"));
      }
      segments.push_back(ref.id);
    }
  }
  compute_->Read(id.step, std::move(segments), [this, id, plan](absl::StatusOr<SegmentSum> sum) {
    const auto it = rounds_.find(id);
    if (it == rounds_.end()) return;  // the step ended without it
    if (!sum.ok()) return FailRound(id, sum.status());
    Round& round = it->second;
    round.member = std::make_unique<RoundMember>(plan, self_, compute_->size());
    std::vector<RoundSend> sends = round.member->Contribute(*std::move(sum));
    for (auto& [from, piece] : round.early_pieces) {
      auto more = round.member->OnPiece(from, piece);
      if (!more.ok()) return FailRound(id, more.status());
      for (RoundSend& send : *more) sends.push_back(std::move(send));
    }
    for (auto& [from, result] : round.early_results) {
      const absl::Status status = round.member->OnResult(from, result);
      if (!status.ok()) return FailRound(id, status);
    }
    round.early_pieces.clear();
    round.early_results.clear();
    RoundMoved(id, std::move(sends));
  });
}

void Peer::On(const Piece& piece, const Message& message) {
  Reply(message, Ack{});
  if (piece.round.step != Step{Value(server_->version()) + 1}) return;
  Round& round = rounds_[piece.round];
  if (!round.member) {
    round.early_pieces.emplace_back(message.sender, piece);
    return;
  }
  auto sends = round.member->OnPiece(message.sender, piece);
  if (!sends.ok()) return FailRound(piece.round, sends.status());
  RoundMoved(piece.round, *std::move(sends));
}

void Peer::On(const Result& result, const Message& message) {
  Reply(message, Ack{});
  if (result.round.step != Step{Value(server_->version()) + 1}) return;
  Round& round = rounds_[result.round];
  if (!round.member) {
    round.early_results.emplace_back(message.sender, result);
    return;
  }
  const absl::Status status = round.member->OnResult(message.sender, result);
  if (!status.ok()) return FailRound(result.round, status);
  RoundMoved(result.round, {});
}

void Peer::RoundMoved(RoundId id, std::vector<RoundSend> sends) {
  for (RoundSend& send : sends) {
    const Endpoint* address = AddressOf(send.to);
    if (address == nullptr) {
      // A newcomer whose View is late, or one that is fenced and a new round is coming.
      rounds_[id].unsent.push_back(std::move(send));
      continue;
    }
    MessageBody body = std::visit([](auto& m) { return MessageBody(std::move(m)); }, send.message);
    outbox_.Send(*address, send.to, Make(std::move(body)), [](const Message&) {});
  }
  const auto it = rounds_.find(id);
  Round& round = it->second;
  if (!round.member || !round.member->complete() || round.answered) return;
  if (absl::Status status = round.member->status(); !status.ok()) return FailRound(id, status);
  round.answered = true;
  const RoundOutcome outcome = round.member->outcome();
  Reduced reduced;
  reduced.round = id;
  reduced.result_hash = outcome.result_hash;
  reduced.square_norm = outcome.square_norm;
  reduced.lane = outcome.lane;
  ReplyToTrainer(round.reduce_request, std::move(reduced));
}

void Peer::FailRound(RoundId id, const absl::Status& status) {
  Emit(Event("round_failed")
           .With("step", Value(id.step))
           .With("reason", std::string(status.message())));
  Reduced reduced;
  reduced.round = id;
  reduced.code = status.code();
  reduced.error = std::string(status.message());
  ReplyToTrainer(rounds_[id].reduce_request, std::move(reduced));
}

void Peer::On(const Apply& apply, const Message& message) {
  const Decision& decision = apply.decision;
  const Version target = VersionAfter(decision.step);
  if (decision.era != era_ || !held_) return;
  if (held_->version == target) return ReplyToTrainer(message.request, Applied{*held_});
  if (held_->version != VersionBefore(decision.step) || applying_ == target) return;
  if (decision.skip) {
    MoveTo(target);
    return Finished(decision, message.request, held_->hash);
  }
  const auto group =
      std::find_if(decision.groups.begin(), decision.groups.end(),
                   [this](const GroupOutcome& g) { return g.round.group == Value(stage_); });
  const auto round = group == decision.groups.end() ? rounds_.end() : rounds_.find(group->round);
  if (round == rounds_.end() || !round->second.member || !round->second.member->complete() ||
      round->second.member->outcome().result_hash != group->result_hash) {
    return OnTrainerLost("a decision was taken on a result this replica does not hold");
  }
  applying_ = target;
  compute_->Apply(decision.scalars, round->second.member->gradient(),
                  [this, decision, request = message.request](absl::StatusOr<Hash128> hash) {
                    applying_ = Version{0};
                    if (!hash.ok()) {
                      if (!absl::IsCancelled(hash.status())) DeviceFailed(hash.status());
                      return;
                    }
                    Finished(decision, request, *hash);
                  });
  // Posted behind the update: the next step's work need not wait for its answer.
  MoveTo(target);
}

// From here on every message is about the next step.
void Peer::MoveTo(Version version) {
  server_->OnVersion(version);
  rounds_.erase(rounds_.begin(),
                rounds_.lower_bound(RoundId{epoch_, Step{Value(version) + 1}, 0, 0}));
  seals_.clear();
  sealed_.clear();
  if (snapshot_version_ < version) snapshot_ = Blob();
}

void Peer::Finished(const Decision& decision, uint64_t request, Hash128 hash) {
  if (!held_ || decision.era != era_) return;
  held_ = StateName{era_, VersionAfter(decision.step), hash};
  ReplyToTrainer(request, Applied{*held_});
}

// --- StageLinks ------------------------------------------------------------------------

std::optional<Incarnation> Peer::ChooseNext() {
  std::optional<Incarnation> next = wiring_->Choose(env_->Now());
  if (!next) ScheduleRetry();
  return next;
}

void Peer::ScheduleRetry() {
  const absl::Duration delay =
      std::max(wiring_->NextTry(env_->Now()) - env_->Now(), absl::Milliseconds(10));
  env_->Cancel(retry_sends_);
  retry_sends_ = env_->Schedule(std::min(delay, absl::Seconds(1)), [this] {
    if (server_) server_->RetrySends();
  });
}

void Peer::SendForward(Incarnation to, Forward forward,
                       std::function<void(absl::StatusCode)> accepted) {
  const Endpoint* address = AddressOf(to);
  STARLING_CHECK(address != nullptr);  // wiring chooses among the members
  outbox_.Send(*address, to, Make(std::move(forward)), [this, to, accepted](const Message& reply) {
    const auto* ack = std::get_if<Ack>(&reply.body);
    const absl::StatusCode code = ack ? ack->code : absl::StatusCode::kAborted;
    if (code == absl::StatusCode::kResourceExhausted) wiring_->OnBusy(to, env_->Now());
    if (code == absl::StatusCode::kAborted) {
      wiring_->OnFinished(to);
      ScheduleRetry();
    }
    accepted(code);
  });
}

void Peer::NextFinished(Incarnation replica) { wiring_->OnFinished(replica); }

void Peer::SendBackward(Incarnation to, Backward backward) {
  const Endpoint* address = AddressOf(to);
  if (address == nullptr) return;  // gone: its own fence replays what it lost
  outbox_.Send(*address, to, Make(std::move(backward)), [](const Message&) {});
}

void Peer::Notify(Notice notice) { AskTrainer(std::move(notice)); }

void Peer::DeviceFailed(const absl::Status& status) {
  Emit(Event("device_failed").With("reason", std::string(status.message())));
  const std::string reason = absl::StrCat("device failed: ", status.message());
  if (state_ == State::kAdmitted || state_ == State::kServing) {
    outbox_.SendOnce(options_.trainer, Make(starling::Leave{reason})).IgnoreError();
  }
  Exit(status, reason);
}

// --- sending ---------------------------------------------------------------------------

const Endpoint* Peer::AddressOf(Incarnation incarnation) const {
  const auto it = members_.find(incarnation);
  return it == members_.end() ? nullptr : &it->second.address;
}

Message Peer::Make(MessageBody body) const {
  Message message;
  message.run = run_;
  message.era = era_;
  message.epoch = epoch_;
  message.sender = self_;
  if (server_) message.load = server_->load();
  message.body = std::move(body);
  return message;
}

void Peer::Reply(const Message& to, MessageBody body) {
  if (to.request == 0) return;
  if (FromTrainer(to)) return ReplyToTrainer(to.request, std::move(body));
  const Endpoint* address = AddressOf(to.sender);
  if (address != nullptr) ReplyAt(*address, to.request, std::move(body));
}

void Peer::ReplyToTrainer(uint64_t request, MessageBody body) {
  ReplyAt(options_.trainer, request, std::move(body));
}

void Peer::ReplyAt(const Endpoint& address, uint64_t request, MessageBody body) {
  Message reply = Make(std::move(body));
  reply.reply_to = request;
  outbox_.SendOnce(address, std::move(reply)).IgnoreError();
}

void Peer::AskTrainer(MessageBody body) {
  outbox_.Send(options_.trainer, trainer_, Make(std::move(body)), [](const Message&) {});
}

}  // namespace starling
