#include "runtime/trainer/ledger.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "runtime/base/planted.h"

namespace starling {
namespace {

// What the answers say of each microbatch.
std::vector<std::vector<Holding>> ByIndex(const Ledger::FenceAnswers& answers, size_t indices) {
  std::vector<std::vector<Holding>> holdings(indices);
  for (const auto& [incarnation, answer] : answers) {
    for (const HeldWork& held : answer.held) {
      const uint32_t index = held.work.id.index;
      if (index < indices) holdings[index].push_back({incarnation, Value(answer.stage), &held});
    }
  }
  return holdings;
}

Liveness LivenessOf(const Ledger::FenceAnswers& answers) {
  Liveness liveness;
  for (const auto& [incarnation, answer] : answers) {
    liveness.answered[incarnation] = Value(answer.stage);
  }
  return liveness;
}

// Those of them that may be alive.
std::set<Incarnation> Living(const std::set<Incarnation>& replicas, const Liveness& liveness) {
  std::set<Incarnation> living;
  for (Incarnation replica : replicas) {
    if (liveness.answered.count(replica) > 0 || liveness.silent.count(replica) > 0) {
      living.insert(replica);
    }
  }
  return living;
}

}  // namespace

Ledger::Ledger(uint32_t stages, uint32_t microbatches)
    : stages_(stages),
      attempts_(microbatches),
      covered_(microbatches, std::vector<Cell>(stages)),
      rivals_(microbatches, std::vector<std::set<Incarnation>>(stages)),
      missing_(static_cast<uint64_t>(stages) * microbatches) {}

void Ledger::Issue(uint32_t index, AttemptId attempt, const Splice* splice,
                   std::optional<Incarnation> first) {
  IssuedAttempt issued;
  issued.id = attempt;
  issued.begin = splice == nullptr ? 0 : splice->begin;
  issued.end = splice == nullptr ? stages_ : splice->end;
  issued.adds.assign(stages_, splice == nullptr);
  if (splice != nullptr) {
    for (StageId stage : splice->add_at) issued.adds[Value(stage)] = true;
    issued.until = splice->until;
    issued.contested = splice->contested;
  }
  issued.first = first;
  attempts_[index].push_back(std::move(issued));
}

void Ledger::OnSent(uint32_t index, AttemptId attempt, Incarnation first, const Splice* splice) {
  Issue(index, attempt, splice, first);
}

void Ledger::OnSpliced(const Splice& splice, AttemptId attempt) {
  Issue(splice.index, attempt, &splice, std::nullopt);
}

void Ledger::OnAccepted(uint32_t index, AttemptId attempt) {
  for (IssuedAttempt& known : attempts_[index]) {
    if (known.id != attempt || known.begun) continue;
    known.begun = true;
    known.reached = known.begin;
  }
}

void Ledger::OnRefused(uint32_t index, AttemptId attempt) {
  auto& attempts = attempts_[index];
  attempts.erase(std::remove_if(attempts.begin(), attempts.end(),
                                [&](const IssuedAttempt& a) { return a.id == attempt; }),
                 attempts.end());
}

void Ledger::OnAdded(uint32_t index, AttemptId attempt, StageId stage, Incarnation by) {
  if (index >= attempts_.size() || Value(stage) >= stages_) return;
  for (IssuedAttempt& known : attempts_[index]) {
    if (known.id != attempt || known.voided.count(Value(stage)) > 0) continue;
    known.reached = known.begun ? std::max(known.reached, Value(stage)) : Value(stage);
    known.begun = true;
    Update(index, Value(stage), [&](Cell& cell) { cell[attempt] = by; });
  }
}

bool Ledger::complete(uint32_t index) const {
  return std::all_of(covered_[index].begin(), covered_[index].end(),
                     [](const Cell& cell) { return !cell.empty(); });
}

template <typename Change>
void Ledger::Update(uint32_t index, uint32_t stage, Change change) {
  Cell& cell = covered_[index][stage];
  const bool was_empty = cell.empty();
  change(cell);
  if (was_empty && !cell.empty()) --missing_;
  if (!was_empty && cell.empty()) ++missing_;
}

Ledger::Repair Ledger::Resolve(const FenceAnswers& answers) {
  Repair repair;
  const auto holdings = ByIndex(answers, attempts_.size());
  Liveness liveness = LivenessOf(answers);
  for (uint32_t index = 0; index < attempts_.size(); ++index) {
    for (uint32_t stage = 0; stage < stages_; ++stage) {
      Update(index, stage, [&](Cell& cell) {
        for (auto it = cell.begin(); it != cell.end();) {
          const bool gone = answers.count(it->second) == 0 && !Planted(Bug::kTrustNotices);
          it = gone ? cell.erase(it) : std::next(it);
        }
      });
    }
    if (!was_sent(index)) continue;
    Describe(index, &liveness);
    Add(index, liveness, PlanRepair(stages_, holdings[index], liveness, &attempts_[index]),
        &repair);
  }
  return repair;
}

void Ledger::Describe(uint32_t index, Liveness* liveness) const {
  const auto doubted = doubted_.find(index);
  liveness->doubted = doubted == doubted_.end() ? std::set<Incarnation>() : doubted->second;
  liveness->contested.clear();
  liveness->noted.clear();
  for (uint32_t stage = 0; stage < stages_; ++stage) {
    liveness->contested.push_back(!Living(rivals_[index][stage], *liveness).empty());
    liveness->noted.push_back(!covered_[index][stage].empty());
  }
}

Ledger::Repair Ledger::ResolveSlow(const FenceAnswers& answers, const Suspicion& suspicion) {
  Repair repair;
  const auto holdings = ByIndex(answers, attempts_.size());
  Liveness liveness = LivenessOf(answers);
  liveness.impatient = true;
  liveness.stuck = suspicion.stuck;
  liveness.silent = suspicion.silent;
  for (uint32_t index : suspicion.overdue) {
    if (index >= attempts_.size() || !was_sent(index)) continue;
    // Done, though its notice has not arrived.
    for (const Holding& holding : holdings[index]) {
      for (const IssuedAttempt& attempt : attempts_[index]) {
        if (attempt.id == holding.work->work.attempt && attempt.adds[holding.stage] &&
            holding.work->state == HeldState::kDone) {
          OnAdded(index, attempt.id, StageId{holding.stage}, holding.holder);
          break;
        }
      }
    }
    liveness.again = suspicion.again.count(index) > 0;
    Describe(index, &liveness);
    for (const auto& rivals : rivals_[index]) repair.rivals.merge(Living(rivals, liveness));
    RepairPlan plan = PlanRepair(stages_, holdings[index], liveness, &attempts_[index]);
    if (!plan.stretches.empty()) {
      for (const auto& [silent, stage] : suspicion.silent) doubted_[index].insert(silent);
      for (const Holding& slow : plan.avoided) doubted_[index].insert(slow.holder);
    }
    Add(index, liveness, std::move(plan), &repair);
  }
  return repair;
}

void Ledger::Add(uint32_t index, const Liveness& liveness, RepairPlan plan, Repair* repair) {
  repair->lost_pairs += plan.lost_pairs;
  repair->ask_again = repair->ask_again || plan.unclear;
  if (plan.hopeless) repair->hopeless.push_back(index);
  for (Stretch& stretch : plan.stretches) {
    Splice splice;
    splice.index = index;
    if (stretch.from) splice.from = {stretch.from->holder, stretch.from->work->work};
    splice.begin = stretch.begin;
    splice.end = stretch.end;
    splice.add_at = std::move(stretch.add_at);
    splice.until = stretch.until;
    for (uint32_t stage = stretch.begin; stage < stretch.end; ++stage) {
      std::set<Incarnation>& rivals = rivals_[index][stage];
      rivals.insert(stretch.rivals.begin(), stretch.rivals.end());
      splice.contested = splice.contested || !Living(rivals, liveness).empty();
    }
    repair->rivals.insert(stretch.rivals.begin(), stretch.rivals.end());
    splice.avoid_first = liveness.impatient;
    repair->splices.push_back(std::move(splice));
  }
  for (const Holding& waiting : plan.cancels) {
    repair->cancels.push_back({waiting.holder, waiting.work->work});
  }
  for (const Holding& slow : plan.avoided) {
    repair->give_up[index].push_back({slow.holder, slow.work->work});
  }
}

void Ledger::Void(StageId stage, const std::vector<SegmentEntry>& entries) {
  for (const SegmentEntry& entry : entries) {
    if (entry.index >= attempts_.size()) continue;
    for (IssuedAttempt& attempt : attempts_[entry.index]) {
      if (attempt.id == entry.attempt) attempt.voided.insert(Value(stage));
    }
    Update(entry.index, Value(stage), [&](Cell& cell) { cell.erase(entry.attempt); });
  }
}

void Ledger::Lose(StageId stage, uint32_t index) {
  for (IssuedAttempt& attempt : attempts_[index]) {
    if (covered_[index][Value(stage)].count(attempt.id) > 0) attempt.voided.insert(Value(stage));
  }
  Update(index, Value(stage), [](Cell& cell) { cell.clear(); });
}

std::map<uint32_t, std::vector<StageId>> Ledger::MissingStages() const {
  std::map<uint32_t, std::vector<StageId>> missing;
  for (uint32_t index = 0; index < covered_.size(); ++index) {
    for (uint32_t stage = 0; stage < stages_; ++stage) {
      if (covered_[index][stage].empty()) missing[index].push_back(StageId{stage});
    }
  }
  return missing;
}

}  // namespace starling
