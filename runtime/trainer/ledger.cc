#include "runtime/trainer/ledger.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "runtime/base/check.h"

namespace starling {
namespace {

const HeldWork* Find(const std::vector<HeldWork>& works, uint32_t index, AttemptId attempt) {
  for (const HeldWork& held : works) {
    if (held.work.id.index == index && held.work.attempt == attempt) return &held;
  }
  return nullptr;
}

struct Holder {
  uint32_t stage = 0;
  Incarnation incarnation;
  WorkId work;
};

// The live replica of the lowest stage in [begin, end) that accepted this attempt. A stage has one
// at most.
std::optional<Holder> FirstLive(const Ledger::FenceAnswers& answers, uint32_t begin, uint32_t end,
                                uint32_t index, AttemptId attempt) {
  std::optional<Holder> first;
  for (const auto& [incarnation, answer] : answers) {
    const uint32_t stage = Value(answer.stage);
    if (stage < begin || stage >= end || (first && first->stage <= stage)) continue;
    const HeldWork* held = Find(answer.held, index, attempt);
    if (held != nullptr) first = Holder{stage, incarnation, held->work};
  }
  return first;
}

// All live replicas of the stages in [begin, end). One of each has the work; the others will ignore
// what they are told of it.
void AppendLive(const Ledger::FenceAnswers& answers, uint32_t begin, uint32_t end,
                const WorkId& work, std::vector<Ledger::HolderWork>* works) {
  for (const auto& [incarnation, answer] : answers) {
    if (Value(answer.stage) >= begin && Value(answer.stage) < end) {
      works->push_back({incarnation, work});
    }
  }
}

}  // namespace

Ledger::Ledger(uint32_t stages, uint32_t microbatches)
    : stages_(stages),
      attempts_(microbatches),
      covered_(microbatches, std::vector<Cell>(stages)),
      missing_(static_cast<uint64_t>(stages) * microbatches) {}

void Ledger::OnSent(uint32_t index, AttemptId attempt, std::vector<StageId> add_at,
                    Incarnation first) {
  Attempt record;
  record.id = attempt;
  record.adds.assign(stages_, add_at.empty());
  for (StageId stage : add_at) record.adds[Value(stage)] = true;
  record.chains.push_back({0, stages_, first});
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
      Update(index, Value(stage), [&](Cell& cell) { cell[attempt] = by; });
    }
  }
}

bool Ledger::complete(uint32_t index) const {
  return std::all_of(covered_[index].begin(), covered_[index].end(),
                     [](const Cell& cell) { return !cell.empty(); });
}

template <typename Change>
bool Ledger::Update(uint32_t index, uint32_t stage, Change change) {
  Cell& cell = covered_[index][stage];
  const bool was_empty = cell.empty();
  change(cell);
  if (was_empty && !cell.empty()) --missing_;
  if (!was_empty && cell.empty()) ++missing_;
  return !was_empty && cell.empty();
}

void Ledger::Follow(const Chain& chain, const Attempt& attempt, uint32_t index,
                    const FenceAnswers& answers, std::vector<bool>* alive,
                    std::vector<Chain>* survivors, std::vector<HolderWork>* cancels) const {
  uint32_t begin = chain.begin;  // from here to `stage`, all wait for one gradient
  Incarnation first = chain.holder;
  std::vector<HolderWork> waiting;
  Incarnation holder = chain.holder;
  const auto survives_to = [&](uint32_t end) {
    std::fill(alive->begin() + begin, alive->begin() + end, true);
    survivors->push_back({begin, end, first});
    waiting.clear();
  };
  uint32_t stage = chain.begin;
  while (stage < chain.end) {
    const auto answer = answers.find(holder);
    if (answer == answers.end()) {
      // Gone, and with it all above that wait for its gradient. What had been passed on lives,
      // though replicas of several stages in a row may be gone.
      cancels->insert(cancels->end(), waiting.begin(), waiting.end());
      waiting.clear();
      const auto next = FirstLive(answers, stage + 1, chain.end, index, attempt.id);
      if (!next) return;
      holder = first = next->incarnation;
      begin = stage = next->stage;
      continue;
    }
    const HeldWork* held = Find(answer->second.held, index, attempt.id);
    if (held == nullptr || (held->state == HeldState::kOpen && !held->downstream)) {
      // When it answered it had not come there or had not gone on, which it will to a live one. It
      // may have since, to one that answered later: then that one knows more.
      const auto next = FirstLive(answers, held ? stage + 1 : stage, chain.end, index, attempt.id);
      if (!next) return survives_to(chain.end);
      AppendLive(answers, stage, next->stage, next->work, &waiting);
      holder = next->incarnation;
      stage = next->stage;
      continue;
    }
    if (held->state == HeldState::kAdded) {
      survives_to(stage + 1);
      if (!held->downstream) return;
      begin = stage + 1;
      first = *held->downstream;
    } else {
      waiting.push_back({holder, held->work});
    }
    holder = *held->downstream;
    ++stage;
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
      const bool lost = Update(index, stage, [&](Cell& cell) {
        for (auto it = cell.begin(); it != cell.end();) {
          const bool gone = !held[stage] || answers.count(it->second) == 0;
          it = gone ? cell.erase(it) : std::next(it);
        }
      });
      if (lost) ++repair.added_and_lost;
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
    Update(entry.index, Value(stage), [&](Cell& cell) { cell.erase(entry.attempt); });
  }
}

void Ledger::Lose(StageId stage, uint32_t index) {
  for (Attempt& attempt : attempts_[index]) {
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
