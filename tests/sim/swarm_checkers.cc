#include "tests/sim/swarm_checkers.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/lane.h"

namespace starling::sim {

SwarmCheckers::SwarmCheckers(World* world, std::vector<SimStage> stages, const DataFeed* feed)
    : world_(world), stages_(std::move(stages)), feed_(feed) {
  std::vector<Blob> states;
  for (const SimStage& stage : stages_) states.push_back(SimInitialState(stage.layout, 1));
  reference_ = std::make_unique<SimReference>(stages_, states);
}

void SwarmCheckers::OnAdmitted(const std::string& incarnation, NodeId node, uint32_t life) {
  admitted_[incarnation] = {node, life};
}

void SwarmCheckers::OnEvent(const Event& event) {
  ++events_[event.name];
  if (event.name != "state_hash") world_->trace().Line("trainer", ToString(event));
}

uint64_t SwarmCheckers::count(const std::string& event) const {
  const auto it = events_.find(event);
  return it == events_.end() ? 0 : it->second;
}

void SwarmCheckers::OnStep(const StepReport& report) {
  world_->trace().Line("trainer", absl::StrCat("step ", Value(report.step), " decided, retries ",
                                               report.retries, ", replayed ", report.replayed));
  steps_.push_back(report);
}

void SwarmCheckers::OnEvaluation(Version version, double loss) {
  world_->trace().Line("trainer", absl::StrCat("evaluated version ", Value(version), ": ", loss));
}

void SwarmCheckers::OnFinished(const absl::Status& status, const std::string& summary) {
  finished_ = true;
  status_ = status;
  world_->trace().Line("trainer", absl::StrCat("finished: ", status.ToString(), ": ", summary));
  if (!status.ok()) Violation(absl::StrCat("the run failed: ", status.ToString()));
}

const SwarmCheckers::Expected& SwarmCheckers::At(Step step) {
  while (expected_.size() < Value(step)) {
    const Step next{expected_.size() + 1};
    std::vector<SimMicrobatch> microbatches;
    for (uint32_t i = 0; i < feed_->train_microbatches(); ++i) {
      MicrobatchData data = feed_->Train(next, i);
      microbatches.push_back({data.tokens, data.targets, data.first_sequence});
    }
    const SimStepResult result = reference_->Advance(next, microbatches);
    expected_.push_back(
        {result.loss_sum / static_cast<double>(result.tokens), result.tokens, result.square_norms});
  }
  return expected_[Value(step) - 1];
}

void SwarmCheckers::OnDecision(const Decision& decision) {
  CheckMembership(decision);
  if (Value(decision.step) == 0) return;
  CheckNumbers(decision);
  CheckAdditions(decision);
  world_->journal().ForgetThrough(Step{Value(decision.step) < 3 ? 0 : Value(decision.step) - 3});
}

void SwarmCheckers::CheckMembership(const Decision& decision) {
  const auto& [number, epoch, era, step] = newest_;
  if (decision.number <= number) Violation("I3: a record number does not grow");
  if (decision.epoch < epoch || decision.era < era) Violation("I3: epoch or era went back");
  if (decision.step != Step{0} && decision.era == era && decision.step <= step) {
    Violation(absl::StrCat("I3: step ", Value(decision.step), " decided twice in an era"));
  }
  const Step newest_step = decision.era != era ? decision.step : std::max(step, decision.step);
  newest_ = {decision.number, decision.epoch, decision.era, newest_step};
  // Those that depart in order leave at this very decision: their work counts in it.
  std::set<Incarnation> departing;
  for (const Departure& departure : decision.departures) departing.insert(departure.incarnation);
  for (const Incarnation& leaver : decision.leaves) {
    if (departing.count(leaver) == 0) left_.insert(leaver);
  }
  for (const Member& member : decision.joins) {
    if (!joined_.insert(member.incarnation).second && left_.count(member.incarnation) > 0) {
      Violation(absl::StrCat("I3: incarnation ", ToString(member.incarnation), " came back"));
    }
  }
  for (const GroupOutcome& group : decision.groups) {
    for (const RoundMemberPlan& member : group.members) {
      if (left_.count(member.incarnation) > 0) {
        Violation(absl::StrCat("I4: step ", Value(decision.step), " counts ",
                               ToString(member.incarnation), ", which had left"));
      }
    }
  }
  left_.insert(departing.begin(), departing.end());
}

void SwarmCheckers::CheckNumbers(const Decision& decision) {
  const Expected& expected = At(decision.step);
  if (decision.loss != expected.loss || decision.tokens != expected.tokens) {
    Violation(absl::StrCat("I1: step ", Value(decision.step), " has loss ", decision.loss,
                           ", one machine ", expected.loss));
  }
  for (const GroupOutcome& group : decision.groups) {
    const uint32_t stage = group.round.group;
    if (group.square_norm != expected.square_norms[stage]) {
      Violation(absl::StrCat("I1: step ", Value(decision.step), " stage ", stage,
                             " has square norm ", group.square_norm, ", one machine ",
                             expected.square_norms[stage]));
    }
    if (group.lane != LaneTotal(decision.step, StageId{stage}, feed_->train_microbatches())) {
      Violation(absl::StrCat("I1: step ", Value(decision.step), " stage ", stage, " lane wrong"));
    }
  }
}

void SwarmCheckers::CheckAdditions(const Decision& decision) {
  for (const GroupOutcome& group : decision.groups) {
    const StageId stage{group.round.group};
    std::vector<int> times(feed_->train_microbatches(), 0);
    for (const RoundMemberPlan& member : group.members) {
      const auto who = admitted_.find(ToString(member.incarnation));
      if (who == admitted_.end()) continue;
      const auto& [node, life] = who->second;
      const std::vector<Addition> additions = world_->journal().Of(decision.step, stage);
      for (const Addition& addition : additions) {
        const bool named =
            std::any_of(member.segments.begin(), member.segments.end(),
                        [&](const SegmentRef& ref) { return ref.id == addition.segment; });
        if (addition.replica.node == node && addition.replica.life == life && named) {
          times[addition.index] += addition.times;
        }
      }
    }
    for (size_t index = 0; index < times.size(); ++index) {
      if (times[index] == 1) continue;
      Violation(absl::StrCat("I1: step ", Value(decision.step), " stage ", Value(stage),
                             " counts microbatch ", index, " ", times[index], " times"));
    }
  }
}

void SwarmCheckers::CheckStates() {
  const std::vector<StateSeen>& states = world_->journal().states();
  for (; states_checked_ < states.size(); ++states_checked_) {
    const StateSeen& seen = states[states_checked_];
    const auto key = std::make_pair(Value(seen.replica.stage), seen.updates);
    const auto [entry, first] = hashes_.emplace(key, seen.hash);
    if (!first && entry->second != seen.hash) {
      Violation(absl::StrCat("I2: stage ", key.first, " after ", key.second, " updates is ",
                             ToHex(seen.hash), " at ", sim::ToString(seen.replica), ", was ",
                             ToHex(entry->second)));
    }
  }
}

}  // namespace starling::sim
