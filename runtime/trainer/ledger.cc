#include "runtime/trainer/ledger.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"

namespace starling {
namespace {

const HeldWork* Find(const Ledger::FenceAnswers& answers, Incarnation holder, uint32_t index,
                     AttemptId attempt) {
  const auto it = answers.find(holder);
  if (it == answers.end()) return nullptr;
  for (const HeldWork& held : it->second) {
    if (held.work.id.index == index && held.work.attempt == attempt) return &held;
  }
  return nullptr;
}

// The live replica that accepted this attempt from `upstream`, which is gone.
std::optional<Incarnation> AcceptedFrom(const Ledger::FenceAnswers& answers, Incarnation upstream,
                                        uint32_t index, AttemptId attempt) {
  for (const auto& [holder, works] : answers) {
    for (const HeldWork& held : works) {
      if (held.work.id.index == index && held.work.attempt == attempt &&
          held.upstream == upstream) {
        return holder;
      }
    }
  }
  return std::nullopt;
}

}  // namespace

Ledger::Ledger(uint32_t stages, uint32_t microbatches)
    : stages_(stages),
      attempts_(microbatches),
      covered_(microbatches, std::vector<std::optional<Incarnation>>(stages)),
      missing_(static_cast<uint64_t>(stages) * microbatches) {}

void Ledger::OnSent(uint32_t index, AttemptId attempt, std::vector<StageId> add_at,
                    Incarnation first) {
  Attempt record;
  record.id = attempt;
  record.adds.assign(stages_, add_at.empty());
  for (StageId stage : add_at) record.adds[Value(stage)] = true;
  record.chains.push_back({0, first});
  attempts_[index].push_back(std::move(record));
}

void Ledger::OnRefused(uint32_t index, AttemptId attempt) {
  auto& attempts = attempts_[index];
  attempts.erase(std::remove_if(attempts.begin(), attempts.end(),
                                [&](const Attempt& a) { return a.id == attempt; }),
                 attempts.end());
}

void Ledger::OnAdded(uint32_t index, AttemptId attempt, StageId stage, Incarnation by) {
  if (index >= attempts_.size() || Value(stage) >= stages_) return;
  for (const Attempt& known : attempts_[index]) {
    if (known.id == attempt && known.voided.count(Value(stage)) == 0) {
      Cover(Value(stage), index, by);
    }
  }
}

bool Ledger::complete(uint32_t index) const {
  return std::all_of(covered_[index].begin(), covered_[index].end(),
                     [](const auto& holder) { return holder.has_value(); });
}

void Ledger::Cover(uint32_t stage, uint32_t index, std::optional<Incarnation> by) {
  std::optional<Incarnation>& cell = covered_[index][stage];
  if (cell.has_value() && !by.has_value()) ++missing_;
  if (!cell.has_value() && by.has_value()) --missing_;
  cell = by;
}

void Ledger::Follow(const Chain& chain, const Attempt& attempt, uint32_t index,
                    const FenceAnswers& answers, std::vector<bool>* alive,
                    std::vector<Chain>* survivors, std::vector<HolderWork>* cancels) const {
  Chain stretch = chain;  // from here to `stage`, all wait for one gradient
  std::vector<HolderWork> waiting;
  Incarnation holder = chain.holder;
  const auto survives_to = [&](uint32_t end) {
    std::fill(alive->begin() + stretch.stage, alive->begin() + end, true);
    survivors->push_back(stretch);
    waiting.clear();
  };
  for (uint32_t stage = chain.stage; stage < stages_; ++stage) {
    if (answers.count(holder) == 0) {
      // Gone, and with it all above that wait for its gradient. What it had passed on lives.
      cancels->insert(cancels->end(), waiting.begin(), waiting.end());
      waiting.clear();
      const auto next = AcceptedFrom(answers, holder, index, attempt.id);
      if (!next) return;
      holder = *next;
      stretch = Chain{stage + 1, holder};
      continue;
    }
    const HeldWork* held = Find(answers, holder, index, attempt.id);
    if (held == nullptr) return survives_to(stages_);  // on its way between two live replicas
    if (held->state == HeldState::kAdded) {
      survives_to(stage + 1);
      if (!held->downstream) return;
      stretch = Chain{stage + 1, *held->downstream};
    } else if (!held->downstream) {
      return survives_to(stages_);  // not passed on yet; it will be, to a live replica
    } else {
      waiting.push_back({holder, held->work});
    }
    holder = *held->downstream;
  }
}

Ledger::Repair Ledger::Resolve(const FenceAnswers& answers) {
  Repair repair;
  for (uint32_t index = 0; index < attempts_.size(); ++index) {
    std::vector<bool> held(stages_, false);
    for (Attempt& attempt : attempts_[index]) {
      std::vector<bool> alive(stages_, false);
      std::vector<Chain> survivors;
      for (const Chain& chain : attempt.chains) {
        Follow(chain, attempt, index, answers, &alive, &survivors, &repair.cancels);
      }
      attempt.chains = std::move(survivors);
      for (uint32_t stage = 0; stage < stages_; ++stage) {
        if (alive[stage] && attempt.adds[stage] && attempt.voided.count(stage) == 0) {
          held[stage] = true;
        }
      }
    }
    for (uint32_t stage = 0; stage < stages_; ++stage) {
      const auto& by = covered_[index][stage];
      if (by && (answers.count(*by) == 0 || !held[stage])) {
        ++repair.added_and_lost;
        Cover(stage, index, std::nullopt);
      }
      if (!held[stage] && was_sent(index)) repair.replays[index].push_back(StageId{stage});
    }
  }
  return repair;
}

void Ledger::Void(StageId stage, const std::vector<SegmentEntry>& entries) {
  for (const SegmentEntry& entry : entries) {
    if (entry.index >= attempts_.size()) continue;
    for (Attempt& attempt : attempts_[entry.index]) {
      if (attempt.id == entry.attempt) attempt.voided.insert(Value(stage));
    }
    Cover(Value(stage), entry.index, std::nullopt);
  }
}

void Ledger::Lose(StageId stage, uint32_t index) { Cover(Value(stage), index, std::nullopt); }

std::map<uint32_t, std::vector<StageId>> Ledger::MissingStages() const {
  std::map<uint32_t, std::vector<StageId>> missing;
  for (uint32_t index = 0; index < covered_.size(); ++index) {
    for (uint32_t stage = 0; stage < stages_; ++stage) {
      if (!covered_[index][stage]) missing[index].push_back(StageId{stage});
    }
  }
  return missing;
}

}  // namespace starling
