#include "runtime/trainer/state_judge.h"

#include <cstddef>

namespace starling {

std::optional<Hash128> MajorityOf(const std::vector<Hash128>& hashes) {
  std::map<Hash128, size_t> counts;
  for (const Hash128& hash : hashes) ++counts[hash];
  std::optional<Hash128> most;
  size_t votes = 0;
  for (const auto& [hash, count] : counts) {
    if (count == votes) most.reset();
    if (count <= votes) continue;
    most = hash;
    votes = count;
  }
  return most;
}

std::optional<StateVerdict> JudgeStates(const std::optional<Hash128>& known,
                                        const std::map<Incarnation, Hash128>& reported,
                                        const std::set<Incarnation>& members) {
  std::vector<Hash128> hashes;
  for (const Incarnation& member : members) {
    const auto report = reported.find(member);
    if (report != reported.end()) hashes.push_back(report->second);
  }
  if (hashes.empty() || (!known && hashes.size() < members.size())) return std::nullopt;
  StateVerdict verdict;
  verdict.right = known ? known : MajorityOf(hashes);
  for (const Incarnation& member : members) {
    const auto report = reported.find(member);
    if (report == reported.end()) continue;
    if (!verdict.right || report->second != *verdict.right) verdict.wrong.push_back(member);
  }
  return verdict;
}

}  // namespace starling
