#include "runtime/trainer/return_plan.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"

namespace starling {
namespace {

// It holds what the decision summed for its stage, at the version before it.
bool CanFinish(const Returnee& returnee, const Decision& newest) {
  if (!returnee.held || returnee.held->era != newest.era ||
      returnee.held->version != VersionBefore(newest.step)) {
    return false;
  }
  if (newest.skip) return true;  // there is nothing to apply
  for (const GroupOutcome& group : newest.groups) {
    if (group.round.group != Value(returnee.stage)) continue;
    return std::any_of(returnee.results.begin(), returnee.results.end(),
                       [&group](const HeldResult& result) {
                         return result.round == group.round && result.hash == group.result_hash;
                       });
  }
  return false;
}

}  // namespace

ReturnPlan PlanReturn(const Decision& newest, uint32_t stages,
                      const std::vector<Returnee>& returnees) {
  ReturnPlan plan;
  for (uint32_t s = 0; s < stages; ++s) {
    std::map<Hash128, std::vector<Incarnation>> arrived;  // by the hash of their state
    std::vector<Incarnation> finishing;
    uint32_t reported = 0;
    for (const Returnee& returnee : returnees) {
      if (returnee.stage != StageId{s}) continue;
      ++reported;
      if (returnee.held && returnee.held->era == newest.era &&
          returnee.held->version == VersionAfter(newest.step)) {
        arrived[returnee.held->hash].push_back(returnee.incarnation);
      } else if (CanFinish(returnee, newest)) {
        finishing.push_back(returnee.incarnation);
      }
    }
    const auto majority =
        std::max_element(arrived.begin(), arrived.end(), [](const auto& a, const auto& b) {
          if (a.second.size() != b.second.size()) return a.second.size() < b.second.size();
          return b.second.front() < a.second.front();
        });
    if (majority != arrived.end()) {
      plan.serve.insert(majority->second.begin(), majority->second.end());
    }
    plan.serve.insert(finishing.begin(), finishing.end());
    plan.finish += static_cast<uint32_t>(finishing.size());
    if ((majority == arrived.end() && finishing.empty()) && !plan.missing) {
      plan.missing = StageId{s};
      plan.reason = absl::StrCat(
          "no replica of stage ", s, " has version ", Value(VersionAfter(newest.step)),
          " or the result of its round: ",
          reported == 0 ? std::string("none reported") : absl::StrCat(reported, " reported"));
    }
  }
  return plan;
}

}  // namespace starling
