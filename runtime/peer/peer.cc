#include "runtime/peer/peer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "runtime/base/check.h"
#include "runtime/base/planted.h"
#include "runtime/config/run_file.h"
#include "runtime/peer/metered_compute.h"

namespace starling {
namespace {

constexpr absl::Duration kHelloAgain = absl::Milliseconds(500);
constexpr absl::Duration kLookAgain = absl::Milliseconds(20);  // whether an update is done
constexpr absl::Duration kLeaveWait = absl::Seconds(2);
constexpr size_t kUnknownSenderBound = 256;

// The same numbers are made of it, in the same groups.
bool SameStage(const RunConfig& a, const RunConfig& b, StageId stage) {
  const size_t s = Value(stage);
  const std::vector<LayerRange> before = StageRanges(a);
  const std::vector<LayerRange> after = StageRanges(b);
  if (s >= before.size() || before.size() != after.size() || before[s].begin != after[s].begin ||
      before[s].end != after[s].end) {
    return false;
  }
  return SameDevice(a, b);
}

}  // namespace

Peer::Peer(Options options, Env* env, Transport* transport, ComputeFactory make_compute,
           EventSink events, OnExit on_exit)
    : options_(std::move(options)),
      env_(env),
      transport_(transport),
      own_address_(transport->address()),
      make_compute_(std::move(make_compute)),
      events_(std::move(events)),
      on_exit_(std::move(on_exit)),
      outbox_(env, transport, Outbox::Options()),
      trainer_address_(options_.trainer),
      wanted_(options_.stage) {
  STARLING_CHECK(options_.layout_of != nullptr);
  transport_->SetHandler(this);
}

Peer::~Peer() {
  env_->Cancel(heartbeat_);
  env_->Cancel(hello_);
  env_->Cancel(retry_sends_);
  env_->Cancel(drain_limit_);
}

void Peer::Start() {
  connecting_since_ = env_->Now();
  SayHello();
}

void Peer::Drain(const std::string& reason) {
  if (draining_) return;
  if (state_ != State::kServing) return Leave(reason);
  draining_ = true;
  outbox_.Send(trainer_address_, trainer_, Make(starling::Leave{reason, true}),
               [this](const Message& reply) {
                 const auto* ack = std::get_if<Ack>(&reply.body);
                 if (ack != nullptr) Emit(Event("draining").With("reason", ack->text));
               });
  drain_limit_ = env_->Schedule(config_.swarm.drain_timeout, [this, reason] {
    Leave(absl::StrCat(reason, "; waited ", absl::FormatDuration(config_.swarm.drain_timeout),
                       " for a decision (swarm.drain_timeout)"));
  });
}

void Peer::Leave(const std::string& reason) {
  if (state_ == State::kLeaving || state_ == State::kExited) return;
  if (state_ == State::kConnecting) return Exit(absl::OkStatus(), reason);
  state_ = State::kLeaving;
  outbox_.Send(trainer_address_, trainer_, Make(starling::Leave{reason}),
               [this, reason](const Message&) { Exit(absl::OkStatus(), reason); });
  env_->Schedule(kLeaveWait, [this, reason] { Exit(absl::OkStatus(), reason); });
}

void Peer::Exit(absl::Status status, const std::string& reason) {
  if (state_ == State::kExited) return;
  state_ = State::kExited;
  outbox_.CancelAll();
  env_->Cancel(heartbeat_);
  env_->Cancel(hello_);
  env_->Cancel(drain_limit_);
  on_exit_(std::move(status), reason);
}

// --- admission -------------------------------------------------------------------------

void Peer::SayHello() {
  if (state_ != State::kConnecting && !calling_) return;
  const absl::Duration waited = env_->Now() - connecting_since_;
  if (!ever_admitted_ && waited >= options_.first_contact) {
    return Exit(
        absl::UnavailableError(absl::StrCat("no rendezvous answers at ", trainer_address_.control)),
        absl::StrCat("no rendezvous answers at ", trainer_address_.control, " (waited ",
                     absl::FormatDuration(options_.first_contact), "; --wait keeps trying)"));
  }
  if (ever_admitted_ && waited >= config_.swarm.orphan_timeout) {
    return Exit(absl::OkStatus(),
                absl::StrCat("no trainer for ", absl::FormatDuration(config_.swarm.orphan_timeout),
                             " (swarm.orphan_timeout)"));
  }
  env_->Cancel(hello_);
  if (step_end_ && step_end_->applying()) {  // what is held would be out of date
    hello_ = env_->Schedule(kLookAgain, [this] { SayHello(); });
    return;
  }
  Hello hello;
  hello.build = options_.build;
  hello.peer = options_.id;
  hello.address = transport_->address();
  hello.stage = wanted_;
  hello.pinned = options_.pinned;
  hello.host = options_.host;
  hello.pid = options_.pid;
  hello.device = options_.device;
  hello.threads = options_.threads;
  if (keeper_ && wanted_ == stage_) hello.held = keeper_->held();
  if (hello.held) hello.results = step_end_->HeldResults();
  hello.serving = calling_;
  if (calling_) {
    outbox_.Cancel(hello_request_);
  } else {
    outbox_.CancelAll();
  }
  hello_request_ = outbox_.Send(trainer_address_, Incarnation{}, Make(std::move(hello)),
                                [this](const Message& reply) { OnHelloReply(reply); });
  // Said again soon: a trainer that starts late, or again, should not have to wait for us.
  hello_ = env_->Schedule(kHelloAgain, [this] { SayHello(); });
}

void Peer::OnHelloReply(const Message& message) {
  if (state_ != State::kConnecting && !calling_) return;
  if (message.epoch < promised_) return;  // of a reign that is over
  if (const auto* welcome = std::get_if<Welcome>(&message.body)) {
    OnWelcome(*welcome, message);
  } else if (const auto* refused = std::get_if<Refused>(&message.body)) {
    if (!refused->retry) {
      Exit(absl::FailedPreconditionError(refused->reason), refused->reason);
    }
  } else if (calling_ && FromTrainer(message)) {
    calling_ = false;  // an Ack: nothing was lost
    env_->Cancel(hello_);
    HeardTrainer();
    Emit(Event("trainer_found"));
  }
}

void Peer::OnWelcome(const Welcome& welcome, const Message& message) {
  auto config = ParseRunFile(welcome.config_toml, "the swarm's configuration", {});
  if (!config.ok()) return Exit(config.status(), std::string(config.status().message()));
  env_->Cancel(hello_);
  outbox_.CancelAll();
  PeerLinks* const peer_links = this;  // private bases: make_unique cannot convert
  const bool same_trainer = message.sender == trainer_;
  const bool same_stage = compute_ != nullptr && welcome.stage == stage_ && message.run == run_ &&
                          SameStage(config_, *config, stage_);
  config_ = *std::move(config);
  run_ = message.run;
  era_ = message.era;
  epoch_ = promised_ = message.epoch;
  calling_ = false;
  trainer_ = message.sender;
  heard_trainer_ = env_->Now();
  self_ = welcome.incarnation;
  stage_ = welcome.stage;
  wanted_ = stage_;
  if (!same_stage) {
    step_end_.reset();
    server_.reset();
    shards_.reset();
    keeper_.reset();
    auto compute = make_compute_(config_, stage_);
    if (!compute.ok()) return Exit(compute.status(), std::string(compute.status().message()));
    compute_ = std::make_unique<MeteredCompute>(*std::move(compute), env_, &clock_);
    MakeKeeper();
    step_end_ = std::make_unique<StepEnd>(
        GroupRangesOf(options_.layout_of(config_, stage_), stage_, config_.stage_count()),
        keeper_.get(), compute_.get(), peer_links);
  }
  StageServer::Options serve;
  serve.stage = stage_;
  serve.stage_count = config_.stage_count();
  serve.slots = slots();
  serve.log_budget_bytes = static_cast<uint64_t>(config_.swarm.log_budget);
  serve.contested = static_cast<uint32_t>(config_.swarm.contested);
  serve.forward = {config_.codec.forward, config_.codec.rounding};
  serve.backward = {config_.codec.backward, config_.codec.rounding};
  serve.seed = config_.train.seed;
  serve.keeps_older = config_.train.delayed_commit;
  StageLinks* const links = this;
  server_ = std::make_unique<StageServer>(serve, compute_.get(), links);
  clock_.Stop();
  keeper_->GiveUpLoading(same_trainer);
  // The step under way starts anew; state and complete results stay.
  if (const std::optional<StateName>& held = keeper_->held()) {
    compute_->FreeThrough(Step{Value(held->version) + 2});  // delayed commit has two steps open
    // A version of an earlier era is none of this one: it is served again when it has been loaded.
    server_->Reset(held->era == era_ ? held->version : Version{0});
  }
  step_end_->OnAdmitted(server_.get());
  Wiring::Options wire;
  wire.seed = env_->Random();
  wiring_ = std::make_unique<Wiring>(wire);
  members_.clear();
  fenced_.clear();
  unknown_senders_.clear();
  view_number_ = 0;
  ever_admitted_ = true;
  state_ = State::kAdmitted;
  Emit(Event("admitted").With("incarnation", ToString(self_)).With("stage", Value(stage_)));
  env_->Cancel(heartbeat_);
  trainer_watch_.emplace(
      FailureDetector::Options{config_.swarm.dead_after, config_.swarm.heartbeat});
  HeardTrainer();
  next_beat_ = env_->Now();
  BeatHeart();
}

void Peer::MakeKeeper() {
  PeerLinks* const links = this;
  StateDonor::Options donor;
  donor.bytes_per_s = static_cast<double>(config_.swarm.join_rate);
  donor.result_budget = static_cast<uint64_t>(config_.swarm.result_budget);
  keeper_ = std::make_unique<StateKeeper>(stage_, donor, env_, compute_.get(), links);
  const bool writes = options_.files != nullptr && config_.checkpoint.store == StoreKind::kShared;
  shards_ = std::make_unique<ShardSaver>(
      stage_, writes ? options_.layout_of(config_, stage_) : StageLayout(), env_,
      writes ? options_.files : nullptr, keeper_->donor(), links);
}

uint32_t Peer::slots() const {
  return config_.swarm.slots > 0 ? static_cast<uint32_t>(config_.swarm.slots)
                                 : 2 * config_.train.microbatches() + 64;
}

void Peer::BeatHeart() {
  if (state_ != State::kAdmitted && state_ != State::kServing) return;
  // A loop that could not run did not hear the trainer either.
  const absl::Duration late = env_->Now() - next_beat_;
  if (late > config_.swarm.heartbeat) trainer_watch_->Extend(late);
  if (const auto suspects = trainer_watch_->Overdue(env_->Now()); !suspects.empty()) {
    LoseSight(absl::StrCat("the trainer is ", suspects.front().reason));
    if (state_ == State::kExited) return;
  }
  Heartbeat beat;
  beat.version = server_->version();
  outbox_.SendOnce(trainer_address_, Make(beat)).IgnoreError();
  keeper_->Tidy();
  shards_->Tidy();
  next_beat_ = env_->Now() + config_.swarm.heartbeat;
  heartbeat_ = env_->Schedule(config_.swarm.heartbeat, [this] { BeatHeart(); });
}

void Peer::HeardTrainer() {
  heard_trainer_ = env_->Now();
  if (trainer_watch_) trainer_watch_->OnHeard(trainer_, env_->Now());
}

void Peer::LoseSight(const std::string& why) {
  if (calling_ || (state_ != State::kAdmitted && state_ != State::kServing)) return;
  Emit(Event("trainer_lost").With("reason", why));
  calling_ = true;
  connecting_since_ = env_->Now();
  SayHello();
}

void Peer::TrainerLost(const std::string& why) {
  if (state_ != State::kAdmitted && state_ != State::kServing) return;
  Emit(Event("trainer_lost").With("reason", why));
  calling_ = false;
  if (draining_) return Exit(absl::OkStatus(), absl::StrCat("left: ", why));
  Reconnect();
}

void Peer::Reconnect() {
  state_ = State::kConnecting;
  connecting_since_ = env_->Now();
  env_->Cancel(heartbeat_);
  SayHello();
}

// --- what arrives ----------------------------------------------------------------------

void Peer::OnLinkLost(const Endpoint& peer) {
  if (keeper_) keeper_->OnLinkLost(peer);
  if (peer.control == trainer_address_.control) LoseSight("connection lost");
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
    if (FromTrainer(message)) HeardTrainer();
    if (wiring_ && server_)
      wiring_->OnReport(message.sender, message.load.service_s, message.load.queued);
    outbox_.OnReply(message);
    return;
  }
  if (message.run != run_) return;
  if (const auto* muster = std::get_if<Muster>(&message.body)) return On(*muster, message);
  if (state_ == State::kConnecting) return;
  if (message.epoch != epoch_) return;  // another trainer's reign
  if (FromTrainer(message)) {
    if (message.epoch < promised_) return;  // its reign is over
    // What it asks for may be meant for another incarnation, whose Welcome is on its way: it will
    // ask again.
    const bool final_word =
        std::holds_alternative<Refused>(message.body) || std::holds_alternative<Stop>(message.body);
    if (calling_ && !final_word) return;
  }
  Dispatch(message);
}

bool Peer::FromTrainer(const Message& message) const { return message.sender == trainer_; }

void Peer::Dispatch(const Message& message) {
  if (FromTrainer(message)) {
    HeardTrainer();
    return DispatchFromTrainer(message);
  }
  if (Donates(message) || message.era != era_) return;
  if (AddressOf(message.sender) == nullptr && !Planted(Bug::kForgetPromise)) {
    // Its View is on the way: the sender may have had it first.
    if (unknown_senders_.size() < kUnknownSenderBound) unknown_senders_.push_back(message);
    return;
  }
  wiring_->OnReport(message.sender, message.load.service_s, message.load.queued);
  if (const auto* forward = std::get_if<Forward>(&message.body)) {
    Reply(message, Ack{server_->OnForward(message.sender, *forward), ""});
  } else if (const auto* backward = std::get_if<Backward>(&message.body)) {
    Reply(message, Ack{server_->OnBackward(message.sender, *backward), ""});
  } else if (const auto* claim = std::get_if<Claim>(&message.body)) {
    Reply(message, Ack{server_->OnClaim(message.sender, *claim), ""});
  } else if (const auto* piece = std::get_if<Piece>(&message.body)) {
    Reply(message, Ack{});
    InRound([&] { step_end_->OnPiece(message.sender, *piece); });
  } else if (const auto* result = std::get_if<Result>(&message.body)) {
    Reply(message, Ack{});
    InRound([&] { step_end_->OnResult(message.sender, *result); });
  }
}

void Peer::DispatchFromTrainer(const Message& message) {
  if (const auto* load = std::get_if<LoadState>(&message.body)) return On(*load, message);
  if (Donates(message)) return;
  if (const auto* save = std::get_if<SaveShard>(&message.body)) {
    return shards_->OnSaveShard(*save, message.request);
  }
  if (const auto* stop = std::get_if<Stop>(&message.body)) {
    return Exit(absl::OkStatus(), stop->reason);
  }
  if (const auto* refused = std::get_if<Refused>(&message.body)) {
    if (!refused->retry)
      return Exit(absl::FailedPreconditionError(refused->reason), refused->reason);
    return TrainerLost(refused->reason);
  }
  if (const auto* move = std::get_if<MoveTo>(&message.body)) return On(*move);
  if (message.era != era_) return;
  if (const auto* view = std::get_if<View>(&message.body)) {
    On(*view);
    Reply(message, Ack{});
  } else if (const auto* forward = std::get_if<Forward>(&message.body)) {
    Reply(message, Ack{server_->OnForward(message.sender, *forward), ""});
  } else if (const auto* cancel = std::get_if<Cancel>(&message.body)) {
    server_->OnCancel(*cancel);
    Reply(message, Ack{});
  } else if (const auto* resend = std::get_if<Resend>(&message.body)) {
    Reply(message, Ack{server_->OnResend(*resend), ""});
  } else if (const auto* fence = std::get_if<Fence>(&message.body)) {
    On(*fence);
    Reply(message, server_->OnFence(*fence));
  } else if (const auto* seal = std::get_if<Seal>(&message.body)) {
    step_end_->OnSeal(*seal, message.request);
  } else if (const auto* reduce = std::get_if<Reduce>(&message.body)) {
    InRound([&] { step_end_->OnReduce(*reduce, message.request); });
  } else if (const auto* apply = std::get_if<Apply>(&message.body)) {
    step_end_->OnApply(*apply, message.request);
  }
}

// What adds up or encodes gradients, and so takes the reactor's time.
template <typename Function>
void Peer::InRound(Function function) {
  const absl::Duration before = env_->InThisCallback();
  function();
  clock_.OnReactorReduced(env_->Now(), env_->InThisCallback() - before);
}

void Peer::On(const Muster& muster, const Message& message) {
  if (message.epoch <= epoch_ || message.epoch < promised_) return;
  MusterReply reply;
  reply.hears = !calling_ && (state_ == State::kAdmitted || state_ == State::kServing);
  reply.heard_ago_s = absl::ToDoubleSeconds(env_->Now() - heard_trainer_);
  ReplyAt(muster.trainer, message.request, reply);
  if (reply.hears) return;
  promised_ = message.epoch;
  trainer_address_ = muster.trainer;
  SayHello();
}

// From the promise on nothing is sent to the fenced, though the View without them may come later.
void Peer::On(const Fence& fence) {
  if (Planted(Bug::kForgetPromise)) return;
  for (Incarnation fenced : fence.fenced) {
    fenced_.insert(fenced);
    members_.erase(fenced);
    outbox_.CancelTo(fenced);
  }
  SetCandidates();
}

// Those that are about to leave get nothing new, if there are others.
void Peer::SetCandidates() {
  std::vector<Incarnation> next;
  std::vector<Incarnation> draining;
  for (const auto& [incarnation, member] : members_) {
    if (member.stage != Next(stage_)) continue;
    (member.draining ? draining : next).push_back(incarnation);
  }
  wiring_->SetCandidates(next.empty() ? draining : next);
}

// Our stage goes on without us.
void Peer::On(const MoveTo& move) {
  const bool still_loads = state_ == State::kAdmitted && move.stage != stage_;
  if (state_ != State::kServing && !still_loads) return;
  Emit(Event("moves")
           .With("to_stage", Value(move.stage))
           .With("version", Value(move.left_at))
           .With("reason", move.reason));
  if (draining_)
    return Exit(absl::OkStatus(), absl::StrCat("left at version ", Value(move.left_at)));
  wanted_ = move.stage;
  Reconnect();
}

// Or served before, and has loaded the state of a new era.
void Peer::BeginToServe() {
  state_ = State::kServing;
  const std::optional<StateName>& held = keeper_->held();
  if (held && held->version == server_->version()) server_->SetOlder(keeper_->older());
}

void Peer::On(const View& view) {
  if (view.number <= view_number_) return;
  view_number_ = view.number;
  std::map<Incarnation, Member> members;
  for (const Member& member : view.members) {
    if (fenced_.count(member.incarnation) == 0) members[member.incarnation] = member;
    if (member.incarnation == self_) BeginToServe();
  }
  if (state_ == State::kServing && !clock_.running()) clock_.Start(env_->Now());
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
  RetrySends();
  step_end_->RetrySends();
}

// --- state -----------------------------------------------------------------------------

void Peer::On(const LoadState& load, const Message& message) {
  if (!keeper_->Begins(message.request)) return;  // being worked on
  // From here on nothing of an earlier era or version is taken up any more.
  era_ = load.state.era;
  clock_.Stop();
  server_->Reset(load.state.version);
  step_end_->Forget();
  keeper_->OnLoad(load, message.request);
}

bool Peer::Donates(const Message& message) {
  if (const auto* index = std::get_if<FetchIndex>(&message.body)) {
    keeper_->OnFetchIndex(*index, message.request);
  } else if (const auto* fetch = std::get_if<Fetch>(&message.body)) {
    keeper_->OnFetch(*fetch, message.request);
  } else {
    return false;
  }
  return true;
}

// --- StageLinks ------------------------------------------------------------------------

std::optional<Incarnation> Peer::ChooseNext(std::optional<Incarnation> avoid) {
  std::optional<Incarnation> next = wiring_->Choose(env_->Now());
  const auto other = [&](const auto& member) {
    return member.second.stage == Next(stage_) && member.first != avoid;
  };
  if (avoid && next == avoid && std::any_of(members_.begin(), members_.end(), other)) {
    // Left out for a while, as one that is busy is.
    wiring_->OnBusy(*next, env_->Now());
    next = wiring_->Choose(env_->Now());
  }
  if (!next) {
    clock_.SetNoTaker(env_->Now(), true);
    ScheduleRetry();
  }
  return next;
}

void Peer::RetrySends() {
  clock_.SetNoTaker(env_->Now(), false);  // ChooseNext says so again where that is how it is
  server_->RetrySends();
}

void Peer::ScheduleRetry() {
  const absl::Duration delay =
      std::max(wiring_->NextTry(env_->Now()) - env_->Now(), absl::Milliseconds(10));
  env_->Cancel(retry_sends_);
  retry_sends_ = env_->Schedule(std::min(delay, absl::Seconds(1)), [this] {
    if (server_) RetrySends();
  });
}

void Peer::SendForward(Incarnation to, Forward forward, Answered accepted) {
  const Endpoint* address = AddressOf(to);
  STARLING_CHECK(address != nullptr);  // wiring chooses among the members
  outbox_.Send(*address, to, Make(std::move(forward)),
               [this, to, accepted, sent = env_->Now()](const Message& reply) {
                 const auto* ack = std::get_if<Ack>(&reply.body);
                 const absl::StatusCode code = ack ? ack->code : absl::StatusCode::kAborted;
                 if (code == absl::StatusCode::kOk) clock_.OnAccepted(env_->Now() - sent);
                 if (code == absl::StatusCode::kResourceExhausted) wiring_->OnBusy(to, env_->Now());
                 if (code == absl::StatusCode::kAborted) {
                   wiring_->OnFinished(to);
                   ScheduleRetry();
                 }
                 accepted(code);
               });
}

bool Peer::SendClaim(Incarnation to, const Claim& claim, Answered answered) {
  const Endpoint* address = AddressOf(to);
  if (address == nullptr) return false;  // its View is on the way
  outbox_.Send(*address, to, Make(claim), [answered](const Message& reply) {
    const auto* ack = std::get_if<Ack>(&reply.body);
    answered(ack ? ack->code : absl::StatusCode::kAborted);
  });
  return true;
}

void Peer::NextFinished(Incarnation replica) { wiring_->OnFinished(replica); }

void Peer::SendBackward(Incarnation to, Backward backward) {
  AskMember(to, std::move(backward), nullptr);  // if it is gone, its own fence replays what it lost
}

void Peer::Notify(Notice notice) { AskTrainer(std::move(notice)); }

void Peer::DeviceFailed(const absl::Status& status) {
  Emit(Event("device_failed").With("reason", std::string(status.message())));
  const std::string reason = absl::StrCat("device failed: ", status.message());
  if (state_ == State::kAdmitted || state_ == State::kServing) {
    outbox_.SendOnce(trainer_address_, Make(starling::Leave{reason})).IgnoreError();
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
  ReplyAt(trainer_address_, request, std::move(body));
}

void Peer::ReplyAt(const Endpoint& address, uint64_t request, MessageBody body) {
  Message reply = Make(std::move(body));
  reply.reply_to = request;
  outbox_.SendOnce(address, std::move(reply)).IgnoreError();
}

bool Peer::AskMember(Incarnation to, MessageBody body, std::function<void()> answered) {
  const Endpoint* address = AddressOf(to);
  if (address == nullptr) return false;
  outbox_.Send(*address, to, Make(std::move(body)), [answered](const Message&) {
    if (answered) answered();
  });
  return true;
}

uint64_t Peer::AskAt(const Endpoint& to, MessageBody body, Outbox::OnReplyFn on_reply) {
  return outbox_.Send(to, Incarnation{}, Make(std::move(body)), std::move(on_reply));
}

void Peer::AskTrainer(MessageBody body) {
  outbox_.Send(trainer_address_, trainer_, Make(std::move(body)), [](const Message&) {});
}

// --- for checks
// -----------------------------------------------------------------------------------

Peer::Look Peer::Inspect() const {
  Look look;
  look.self = self_;
  look.epoch = epoch_;
  look.era = era_;
  look.stage = stage_;
  look.serving = state_ == State::kServing;
  if (server_) look.version = server_->version();
  if (keeper_) look.held = keeper_->held();
  return look;
}

void Peer::VisitBuffers(const BufferVisitor& visit) const {
  visit("messages of unknown senders", unknown_senders_.size(), kUnknownSenderBound);
  if (!server_) return;
  server_->VisitBuffers(visit);
  step_end_->VisitBuffers(visit);
  keeper_->VisitBuffers(visit);
  // Of each microbatch at most an output, a gradient and a notice; of a round pieces and results.
  visit("requests under way", outbox_.pending(), size_t{6} * slots() + 4096);
}

}  // namespace starling
