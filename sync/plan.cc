#include "sync/plan.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "runtime/base/check.h"

namespace starling {
namespace {

constexpr int kMostExponent = 62;

int64_t CeilDiv(int64_t a, int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

absl::Status CheckParts(const RoundPlan& plan, int64_t size) {
  if (size <= 0) return absl::InvalidArgumentError("a round over no elements");
  int64_t next = 0;
  for (size_t i = 0; i < plan.parts.size(); ++i) {
    const RoundPart& part = plan.parts[i];
    if (part.begin != next || part.count <= 0 || part.count > size - next) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "part %d of the plan is %d elements from %d, expected some from %d within %d", i,
          part.count, part.begin, next, size));
    }
    if (part.owner >= plan.members.size()) {
      return absl::InvalidArgumentError(absl::StrFormat("part %d is owned by member %d of %d", i,
                                                        part.owner, plan.members.size()));
    }
    next += part.count;
  }
  if (next != size) {
    return absl::InvalidArgumentError(
        absl::StrFormat("the parts cover %d of %d elements", next, size));
  }
  return absl::OkStatus();
}

absl::Status CheckMembers(const RoundPlan& plan, Incarnation self) {
  std::set<Incarnation> seen;
  bool contributes = false;
  for (const RoundMemberPlan& member : plan.members) {
    if (!seen.insert(member.incarnation).second) {
      return absl::InvalidArgumentError("member " + ToString(member.incarnation) +
                                        " is in the plan twice");
    }
    std::set<SegmentId> segments;
    for (const SegmentRef& segment : member.segments) {
      if (!segments.insert(segment.id).second) {
        return absl::InvalidArgumentError(absl::StrFormat("segment %d of member %s is summed twice",
                                                          Value(segment.id),
                                                          ToString(member.incarnation)));
      }
      contributes = true;
    }
  }
  if (seen.count(self) == 0) {
    return absl::InvalidArgumentError(ToString(self) + " is no member of the round");
  }
  if (!contributes) return absl::InvalidArgumentError("no member of the round contributes");
  return absl::OkStatus();
}

}  // namespace

std::vector<RoundPart> EqualParts(int64_t size, uint32_t owners) {
  STARLING_CHECK_GE(size, 0);
  STARLING_CHECK_GT(owners, 0u);
  const int64_t share = CeilDiv(size, owners);
  const int64_t of_owner = std::clamp<int64_t>(CeilDiv(share, kPartElements), 1, kMostPartsOfOwner);
  const int64_t count = of_owner * owners;
  const int64_t blocks = CeilDiv(size, kPartAlignment);
  std::vector<RoundPart> parts;
  int64_t begin = 0;
  for (int64_t part = 0; part < count && begin < size; ++part) {
    const int64_t elements = (blocks / count + (part < blocks % count ? 1 : 0)) * kPartAlignment;
    parts.push_back(
        {begin, std::min(elements, size - begin), static_cast<uint32_t>(part % owners)});
    begin += parts.back().count;
  }
  return parts;
}

std::vector<RoundPart> KeepParts(const RoundPlan& before,
                                 const std::vector<RoundMemberPlan>& members) {
  STARLING_CHECK(!members.empty());
  std::map<Incarnation, uint32_t> numbers;
  for (uint32_t i = 0; i < members.size(); ++i) numbers.emplace(members[i].incarnation, i);
  std::vector<int64_t> elements(members.size(), 0);
  std::vector<RoundPart> parts = before.parts;
  std::vector<RoundPart*> orphans;
  for (RoundPart& part : parts) {
    const auto now = numbers.find(before.members.at(part.owner).incarnation);
    if (now == numbers.end()) {
      orphans.push_back(&part);
      continue;
    }
    part.owner = now->second;
    elements[part.owner] += part.count;
  }
  if (orphans.empty()) return parts;
  std::set<std::pair<int64_t, uint32_t>> by_elements;
  for (uint32_t i = 0; i < elements.size(); ++i) by_elements.emplace(elements[i], i);
  for (RoundPart* part : orphans) {
    const auto [summed, least] = *by_elements.begin();
    by_elements.erase(by_elements.begin());
    part->owner = least;
    by_elements.emplace(summed + part->count, least);
  }
  return parts;
}

int MeanExponent(int64_t tokens) {
  STARLING_CHECK_GT(tokens, 0);
  int exponent = 0;
  while (exponent > -kMostExponent && (tokens >> -exponent) > 1) --exponent;
  return exponent;
}

absl::Status CheckPlan(const RoundPlan& plan, int64_t size, Incarnation self) {
  const bool known = plan.encoding == Encoding::kRaw || plan.encoding == Encoding::kF16 ||
                     plan.encoding == Encoding::kBF16;
  if (!known || plan.scale_exponent < -kMostExponent || plan.scale_exponent > kMostExponent) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a round in %s times 2^%d", ToString(plan.encoding), plan.scale_exponent));
  }
  if (absl::Status status = CheckParts(plan, size); !status.ok()) return status;
  return CheckMembers(plan, self);
}

}  // namespace starling
