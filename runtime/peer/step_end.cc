#include "runtime/peer/step_end.h"

#include <algorithm>
#include <string>

#include "runtime/base/planted.h"
#include "sync/plan.h"

namespace starling {
namespace {

// Of one step: more than any number of members, parts and deaths needs.
constexpr size_t kWaitingBound = 4096;
constexpr size_t kRoundsBound = 256;

}  // namespace

StepEnd::StepEnd(std::vector<GroupRange> groups, StateKeeper* state, Compute* compute,
                 PeerLinks* links)
    : groups_(std::move(groups)), state_(state), compute_(compute), links_(links) {}

void StepEnd::OnAdmitted(StageServer* server) {
  server_ = server;
  ClearPieces();
  seals_.clear();
  sealed_.clear();
  for (auto it = rounds_.begin(); it != rounds_.end();) {
    Round& round = it->second;
    const bool whole = round.member && round.member->complete() && round.member->status().ok();
    if (!whole || it->first.step != step()) {
      it = rounds_.erase(it);
      continue;
    }
    round.unsent.clear();
    round.answered = true;
    ++it;
  }
}

std::vector<HeldResult> StepEnd::HeldResults() const {
  std::vector<HeldResult> results;
  for (const auto& [id, round] : rounds_) {
    if (id.step != step() || !round.member || !round.member->complete()) continue;
    results.push_back({id, round.member->outcome().result_hash});
  }
  return results;
}

void StepEnd::OnSeal(const Seal& seal, uint64_t request) {
  if (seal.step != step()) return;  // not there yet, or over
  const auto [entry, first] = seals_.try_emplace(seal.number);
  entry->second.first = request;
  if (entry->second.second) return links_->ReplyToTrainer(request, *entry->second.second);
  if (!first) return;                                 // on its way through the device
  if (seals_.rbegin()->first != seal.number) return;  // an old one, late
  server_->OnSeal(seal.step, [this, seal, alive = std::weak_ptr<bool>(alive_)](
                                 absl::StatusOr<std::vector<SegmentSummary>> segments) {
    if (alive.expired()) return;
    const auto it = seals_.find(seal.number);
    if (!segments.ok() || it == seals_.end() || !state_->held()) return;
    Sealed sealed;
    sealed.step = seal.step;
    sealed.number = seal.number;
    sealed.version = state_->held()->version;
    sealed.state_hash = state_->held()->hash;
    sealed.segments = *std::move(segments);
    const StageServer::Sent sent = server_->sent(seal.step);
    sealed.bytes_forward = sent.forward;
    sealed.bytes_backward = sent.backward;
    sealed.times = links_->TimesAtSeal();
    if (!seal.verify) return AnswerSeal(std::move(sealed));
    compute_->Hash([this, sealed = std::move(sealed),
                    alive = std::weak_ptr<bool>(alive_)](absl::StatusOr<Hash128> hash) mutable {
      if (alive.expired() || !hash.ok() || sealed.step != step() || !state_->held()) return;
      sealed.state_hash = *hash;
      if (*hash != state_->held()->hash) state_->OnHashed(*hash);
      AnswerSeal(std::move(sealed));
    });
  });
}

void StepEnd::AnswerSeal(Sealed sealed) {
  const auto it = seals_.find(sealed.number);
  if (it == seals_.end()) return;  // a new admission came between
  sealed_ = sealed.segments;
  it->second.second = sealed;
  links_->ReplyToTrainer(it->second.first, std::move(sealed));
}

void StepEnd::OnReduce(const Reduce& reduce, uint64_t request) {
  const RoundPlan& plan = reduce.plan;
  if (plan.id.step != step()) return;
  Round& round = rounds_[plan.id];
  const bool first = round.reduce_request == 0;
  round.reduce_request = request;
  if (!first) {
    round.answered = false;
    return RoundMoved(plan.id, {});
  }
  BeginRound(plan.id, plan);
}

const GroupRange* StepEnd::RangeOf(uint32_t group) const {
  const auto found = std::find_if(groups_.begin(), groups_.end(), [group](const GroupRange& range) {
    return range.group == group;
  });
  return found == groups_.end() ? nullptr : &*found;
}

void StepEnd::BeginRound(RoundId id, const RoundPlan& plan) {
  const GroupRange* range = RangeOf(id.group);
  if (range == nullptr) {
    return FailRound(id, absl::InvalidArgumentError("a round of another stage's parameters"));
  }
  if (absl::Status status = CheckPlan(plan, range->count, links_->self()); !status.ok()) {
    return FailRound(id, status);
  }
  PieceStore::Contribution own;
  for (const RoundMemberPlan& member : plan.members) {
    if (member.incarnation == links_->self()) own = member.segments;
  }
  std::vector<SegmentId> segments;
  for (const SegmentRef& ref : own) {
    const auto known = std::find_if(sealed_.begin(), sealed_.end(), [&ref](const auto& summary) {
      return summary.id == ref.id && summary.list_hash == ref.list_hash;
    });
    if (known == sealed_.end()) {
      return FailRound(id,
                       absl::AbortedError("the plan names a segment this replica never sealed"));
    }
    segments.push_back(ref.id);
  }
  ReadFor(plan, own, std::move(segments));
}

// The groups' rounds name the same segments, so they are summed once.
void StepEnd::ReadFor(const RoundPlan& plan, const PieceStore::Contribution& own,
                      std::vector<SegmentId> segments) {
  if (own_sum_ && own_sum_->segments == own) {
    if (own_sum_->sum) return Contribute(plan, *own_sum_->sum);
    own_sum_->waiting.push_back(plan);
    return;
  }
  own_sum_ = std::make_shared<OwnSum>(OwnSum{own, std::nullopt, {plan}});
  compute_->Read(plan.id.step, std::move(segments),
                 [this, asked = own_sum_,
                  life = std::weak_ptr<bool>(step_life_)](const absl::StatusOr<SegmentSum>& sum) {
                   if (!life.expired()) OnRead(asked.get(), sum);  // else the step ended without it
                 });
}

void StepEnd::OnRead(OwnSum* own, const absl::StatusOr<SegmentSum>& sum) {
  if (sum.ok()) own->sum = *sum;
  if (!sum.ok() && own_sum_.get() == own) own_sum_.reset();
  for (const RoundPlan& plan : std::exchange(own->waiting, {})) {
    if (!sum.ok()) {
      FailRound(plan.id, sum.status());
    } else {
      Contribute(plan, *sum);
    }
  }
}

void StepEnd::Contribute(const RoundPlan& plan, const SegmentSum& sum) {
  const RoundId id = plan.id;
  const GroupRange& range = *RangeOf(id.group);
  const PieceStore& store = pieces_[id.group];
  Round& round = rounds_[id];
  round.member = std::make_unique<RoundMember>(plan, links_->self(), range.count);
  std::vector<RoundSend> sends = round.member->Contribute(
      SegmentSum{sum.gradient.Slice(range.begin, range.count), sum.lane}, &store);
  std::vector<std::pair<Incarnation, Piece>> pieces = std::exchange(round.early_pieces, {});
  // What came for an earlier round of the step and is the same in this one.
  for (uint32_t part = 0; part < plan.parts.size(); ++part) {
    if (plan.members[plan.parts[part].owner].incarnation != links_->self()) continue;
    for (const RoundMemberPlan& member : plan.members) {
      const Piece* kept = store.Find(member.incarnation, part, member.segments);
      if (kept == nullptr || member.segments.empty() || kept->round == id) continue;
      pieces.emplace_back(member.incarnation, *kept);
      pieces.back().second.round = id;
      ++round.reused;
    }
  }
  for (auto& [from, piece] : pieces) {
    auto more = round.member->OnPiece(from, piece);
    if (!more.ok()) return FailRound(id, more.status());
    for (RoundSend& send : *more) sends.push_back(std::move(send));
  }
  for (auto& [from, result] : std::exchange(round.early_results, {})) {
    const absl::Status status = round.member->OnResult(from, result);
    if (!status.ok()) return FailRound(id, status);
  }
  if (round.reused > 0) {
    links_->Emit(Event("pieces_reused")
                     .With("step", Value(id.step))
                     .With("round", id.number)
                     .With("pieces", round.reused));
  }
  RoundMoved(id, std::move(sends));
}

void StepEnd::OnPiece(Incarnation from, const Piece& piece) {
  if (piece.round.step != step()) return;
  pieces_[piece.round.group].Keep(from, piece);
  TakePiece(from, piece);
  // Its sender will not send it again in a newer round, which may be under way here already.
  std::vector<RoundId> newer;
  for (const auto& [id, round] : rounds_) {
    if (id.group != piece.round.group || !(piece.round < id) || !round.member) continue;
    if (Serves(round.member->plan(), from, piece)) newer.push_back(id);
  }
  for (const RoundId& id : newer) {
    Piece same = piece;
    same.round = id;
    TakePiece(from, same);
  }
}

// The plan has this replica add up that part, and `from` contribute just what the piece holds.
bool StepEnd::Serves(const RoundPlan& plan, Incarnation from, const Piece& piece) const {
  if (piece.part >= plan.parts.size()) return false;
  if (plan.members[plan.parts[piece.part].owner].incarnation != links_->self()) return false;
  return std::any_of(plan.members.begin(), plan.members.end(), [&](const RoundMemberPlan& member) {
    return member.incarnation == from && member.segments == piece.segments;
  });
}

void StepEnd::TakePiece(Incarnation from, const Piece& piece) {
  Round& round = rounds_[piece.round];
  if (!round.member) {
    round.early_pieces.emplace_back(from, piece);
    return;
  }
  auto sends = round.member->OnPiece(from, piece);
  if (!sends.ok()) return FailRound(piece.round, sends.status());
  RoundMoved(piece.round, *std::move(sends));
}

void StepEnd::OnResult(Incarnation from, const Result& result) {
  if (result.round.step != step()) return;
  Round& round = rounds_[result.round];
  if (!round.member) {
    round.early_results.emplace_back(from, result);
    return;
  }
  const absl::Status status = round.member->OnResult(from, result);
  if (!status.ok()) return FailRound(result.round, status);
  RoundMoved(result.round, {});
}

void StepEnd::RoundMoved(RoundId id, std::vector<RoundSend> sends) {
  for (RoundSend& send : sends) {
    // Not named: a newcomer whose View is late, or one that is fenced and a new round is coming.
    if (!Send(send)) rounds_[id].unsent.push_back(std::move(send));
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
  links_->ReplyToTrainer(round.reduce_request, std::move(reduced));
}

void StepEnd::ClearPieces() {
  pieces_.clear();
  own_sum_.reset();
  step_life_ = std::make_shared<bool>(true);
}

bool StepEnd::Send(const RoundSend& send) {
  const auto* piece = std::get_if<Piece>(&send.message);
  if (piece == nullptr) return links_->AskMember(send.to, std::get<Result>(send.message), nullptr);
  const uint32_t group = piece->round.group;
  if (pieces_[group].IsDelivered(send.to, piece->part, piece->segments)) return true;
  return links_->AskMember(send.to, *piece,
                           [this, group, to = send.to, part = piece->part,
                            segments = piece->segments, life = std::weak_ptr<bool>(step_life_)] {
                             if (!life.expired()) pieces_[group].Delivered(to, part, segments);
                           });
}

void StepEnd::FailRound(RoundId id, const absl::Status& status) {
  links_->Emit(Event("round_failed")
                   .With("step", Value(id.step))
                   .With("reason", std::string(status.message())));
  Reduced reduced;
  reduced.round = id;
  reduced.code = status.code();
  reduced.error = std::string(status.message());
  links_->ReplyToTrainer(rounds_[id].reduce_request, std::move(reduced));
}

std::optional<StepEnd::Total> StepEnd::TotalOf(const Decision& decision) {
  Total total;
  std::vector<Hash128> hashes;
  for (const GroupRange& range : groups_) {
    const auto group = std::find_if(
        decision.groups.begin(), decision.groups.end(),
        [&range](const GroupOutcome& outcome) { return outcome.round.group == range.group; });
    if (group == decision.groups.end()) return std::nullopt;
    auto round = rounds_.find(group->round);
    if (Planted(Bug::kApplyOtherRound)) {
      round = std::find_if(rounds_.begin(), rounds_.end(),
                           [&range](const auto& r) { return r.first.group == range.group; });
    }
    if (round == rounds_.end() || !round->second.member || !round->second.member->complete()) {
      return std::nullopt;
    }
    const RoundMember& member = *round->second.member;
    hashes.push_back(group->result_hash);
    if (member.outcome().result_hash != hashes.back() && !Planted(Bug::kApplyOtherRound)) {
      return std::nullopt;
    }
    if (Planted(Bug::kApplyWithoutTie) && range.begin > 0 && own_sum_ && own_sum_->sum) {
      total.pieces.push_back(own_sum_->sum->gradient.Slice(range.begin, range.count));
      continue;
    }
    for (Blob& piece : member.gradient()) total.pieces.push_back(std::move(piece));
  }
  total.hash = hashes.size() == 1 ? hashes.front()
                                  : HashBytes(hashes.data(), hashes.size() * sizeof(Hash128));
  return total;
}

void StepEnd::OnApply(const Apply& apply, uint64_t request) {
  const Decision& decision = apply.decision;
  const Version target = VersionAfter(decision.step);
  const std::optional<StateName>& held = state_->held();
  if (!held || decision.era != held->era) return;
  if (held->version == target) return links_->ReplyToTrainer(request, Applied{*held});
  if (held->version != VersionBefore(decision.step) || applying_ == target) return;
  if (decision.skip) {
    MoveTo(target, /*updated=*/false);
    return Finished(decision, request, held->hash, Hash128(), {});
  }
  const std::optional<Total> total = TotalOf(decision);
  if (!total) {
    return links_->TrainerLost("a decision was taken on a result this replica does not hold");
  }
  applying_ = target;
  compute_->Apply(decision.scalars, total->pieces,
                  [this, decision, request, pieces = total->pieces, result_hash = total->hash,
                   alive = std::weak_ptr<bool>(alive_)](absl::StatusOr<Hash128> hash) {
                    if (alive.expired()) return;
                    applying_ = Version{0};
                    if (!hash.ok()) {
                      if (!absl::IsCancelled(hash.status())) links_->DeviceFailed(hash.status());
                      return;
                    }
                    Finished(decision, request, *hash, result_hash, pieces);
                  });
  // Posted behind the update: the next step's work need not wait for its answer.
  MoveTo(target, /*updated=*/true);
}

// From here on every message is about the next step.
void StepEnd::MoveTo(Version version, bool updated) {
  links_->TimesMove();
  server_->OnVersion(version, updated);
  state_->OnVersion(version);
  for (auto it = rounds_.begin(); it != rounds_.end();) {
    it = it->first.step <= Step{Value(version)} ? rounds_.erase(it) : std::next(it);
  }
  ClearPieces();
  seals_.clear();
  sealed_.clear();
}

void StepEnd::Finished(const Decision& decision, uint64_t request, Hash128 hash,
                       Hash128 result_hash, std::vector<Blob> pieces) {
  if (!state_->held() || decision.era != state_->held()->era) return;
  ResultRecord record;
  record.decision = decision.number;
  record.skip = decision.skip;
  record.scalars = decision.scalars;
  record.result_hash = result_hash;
  state_->OnApplied({decision.era, VersionAfter(decision.step), hash}, record, std::move(pieces));
  links_->ReplyToTrainer(request, Applied{*state_->held()});
}

void StepEnd::RetrySends() {
  for (auto& [id, round] : rounds_) RoundMoved(id, std::exchange(round.unsent, {}));
}

void StepEnd::VisitBuffers(const BufferVisitor& visit) const {
  size_t waiting = 0;
  for (const auto& [id, round] : rounds_) {
    waiting += round.early_pieces.size() + round.early_results.size() + round.unsent.size();
  }
  visit("pieces and results that wait", waiting, kWaitingBound);
  visit("rounds of a step", rounds_.size(), kRoundsBound);
}

void StepEnd::Forget() {
  rounds_.clear();
  ClearPieces();
  seals_.clear();
  sealed_.clear();
}

}  // namespace starling
