#include "runtime/trainer/segment_picker.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace starling {
namespace {

// Why a segment cannot be counted; empty if it can. `holder` maps an index to who has it.
std::string Objection(const SegmentSummary& segment, const std::vector<bool>& covered) {
  if (segment.spoiled) return "a backward failed while it was being added to";
  std::set<uint32_t> own;
  for (const SegmentEntry& entry : segment.entries) {
    if (entry.index >= covered.size())
      return absl::StrCat("no microbatch ", entry.index, " exists");
    if (!own.insert(entry.index).second) {
      return absl::StrCat("microbatch ", entry.index, " is in it twice");
    }
    if (covered[entry.index]) {
      return absl::StrCat("microbatch ", entry.index, " is in another segment too");
    }
  }
  return "";
}

}  // namespace

SegmentPick PickSegments(const std::map<Incarnation, std::vector<SegmentSummary>>& sealed,
                         uint32_t microbatches, const std::set<SegmentName>& already_void) {
  SegmentPick pick;
  std::vector<bool> covered(microbatches, false);
  std::map<Incarnation, std::vector<SegmentRef>> picked;
  const auto pick_all = [&](bool contested) {
    for (const auto& [incarnation, segments] : sealed) {
      for (const SegmentSummary& segment : segments) {
        if (segment.contested != contested || segment.entries.empty()) continue;
        const SegmentName name{incarnation, segment.id};
        if (already_void.count(name) > 0) continue;
        std::string objection = Objection(segment, covered);
        if (!objection.empty()) {
          if (!contested) pick.voided.push_back({name, segment.entries, std::move(objection)});
          continue;
        }
        for (const SegmentEntry& entry : segment.entries) covered[entry.index] = true;
        picked[incarnation].push_back({segment.id, segment.list_hash});
      }
    }
  };
  pick_all(false);
  pick_all(true);
  for (const auto& [incarnation, segments] : sealed) {
    pick.members.push_back({incarnation, picked[incarnation]});
  }
  for (uint32_t index = 0; index < microbatches; ++index) {
    if (!covered[index]) pick.missing.push_back(index);
  }
  return pick;
}

}  // namespace starling
