#include "tests/sim/journal.h"

#include <algorithm>
#include <utility>

namespace starling::sim {

std::string ToString(const ReplicaName& name) {
  return "node " + std::to_string(Value(name.node)) + " life " + std::to_string(name.life) +
         " stage " + std::to_string(Value(name.stage));
}

void Journal::Record(Addition addition) {
  // The process served this stage before, went elsewhere and came back: what it had then is gone.
  const ReplicaName& now = addition.replica;
  additions_.erase(std::remove_if(additions_.begin(), additions_.end(),
                                  [&now](const Addition& a) {
                                    const ReplicaName& then = a.replica;
                                    return then.node == now.node && then.life == now.life &&
                                           then.stage == now.stage && then.executor < now.executor;
                                  }),
                   additions_.end());
  additions_.push_back(std::move(addition));
}

void Journal::Record(StateSeen state) { states_.push_back(std::move(state)); }

std::vector<Addition> Journal::InSegment(const ReplicaName& replica, uint32_t load, Step step,
                                         SegmentId segment) const {
  std::vector<Addition> found;
  for (const Addition& addition : additions_) {
    if (addition.replica == replica && addition.load == load && addition.step == step &&
        addition.segment == segment) {
      found.push_back(addition);
    }
  }
  return found;
}

std::vector<Addition> Journal::Of(Step step, StageId stage) const {
  std::vector<Addition> found;
  for (const Addition& addition : additions_) {
    if (addition.step == step && addition.replica.stage == stage) found.push_back(addition);
  }
  return found;
}

void Journal::Freed(const ReplicaName& replica, Step through) {
  additions_.erase(
      std::remove_if(additions_.begin(), additions_.end(),
                     [&](const Addition& a) { return a.replica == replica && a.step <= through; }),
      additions_.end());
}

void Journal::ForgetThrough(Step step) {
  additions_.erase(std::remove_if(additions_.begin(), additions_.end(),
                                  [step](const Addition& a) { return a.step <= step; }),
                   additions_.end());
}

void Journal::ForgetStatesBefore(uint32_t updates) {
  states_.erase(std::remove_if(states_.begin(), states_.end(),
                               [updates](const StateSeen& s) { return s.updates < updates; }),
                states_.end());
}

}  // namespace starling::sim
