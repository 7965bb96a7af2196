#include "runtime/trainer/return_plan.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "runtime/trainer/state_judge.h"

namespace starling {
namespace {

bool Holds(const Returnee& returnee, const GroupOutcome& group) {
  return std::any_of(returnee.results.begin(), returnee.results.end(),
                     [&group](const HeldResult& result) {
                       return result.round == group.round && result.hash == group.result_hash;
                     });
}

// It holds all that the decision summed for its stage, at the version before it.
bool CanFinish(const Returnee& returnee, const std::vector<ParameterGroup>& groups,
               const Decision& newest) {
  if (!returnee.held || returnee.held->era != newest.era ||
      returnee.held->version != VersionBefore(newest.step)) {
    return false;
  }
  if (newest.skip) return true;  // there is nothing to apply
  bool any = false;
  for (const GroupOutcome& group : newest.groups) {
    const uint32_t number = group.round.group;
    if (number >= groups.size() || !Concerns(groups[number], returnee.stage)) continue;
    if (!Holds(returnee, group)) return false;
    any = true;
  }
  return any;
}

}  // namespace

ReturnPlan PlanReturn(const LiveState& live, uint32_t stages,
                      const std::vector<ParameterGroup>& groups,
                      const std::vector<Returnee>& returnees) {
  const Decision& newest = live.newest;
  ReturnPlan plan;
  for (uint32_t s = 0; s < stages; ++s) {
    std::map<Incarnation, Hash128> arrived;  // at the decided version
    std::set<Incarnation> members;
    std::vector<Incarnation> serve;
    uint32_t reported = 0;
    for (const Returnee& returnee : returnees) {
      if (returnee.stage != StageId{s}) continue;
      ++reported;
      if (returnee.held && returnee.held->era == newest.era &&
          returnee.held->version == VersionAfter(newest.step)) {
        arrived[returnee.incarnation] = returnee.held->hash;
        members.insert(returnee.incarnation);
      } else if (CanFinish(returnee, groups, newest)) {
        serve.push_back(returnee.incarnation);
        ++plan.finish;
      }
    }
    const auto known = live.hashes.find(StageId{s});
    const std::optional<StateVerdict> verdict = JudgeStates(
        known == live.hashes.end() ? std::nullopt : std::optional<Hash128>(known->second), arrived,
        members);
    if (verdict && !verdict->right) serve.clear();  // who finishes could not be compared either
    for (const auto& [incarnation, hash] : arrived) {
      if (verdict->right && hash == *verdict->right) serve.push_back(incarnation);
    }
    plan.serve.insert(serve.begin(), serve.end());
    if (!serve.empty() || plan.missing) continue;
    plan.missing = StageId{s};
    plan.reason = absl::StrCat("no replica of stage ", s, " has version ",
                               Value(VersionAfter(newest.step)), " or the result of its round: ",
                               reported == 0     ? std::string("none reported")
                               : arrived.empty() ? absl::StrCat(reported, " reported")
                                                 : std::string("their states differ"));
  }
  return plan;
}

}  // namespace starling
