// Which sealed segments make up a step: per stage, disjoint ones that cover every microbatch.
//
// Decides from sealed lists alone, never from notices. Pure.
#ifndef STARLING_RUNTIME_TRAINER_SEGMENT_PICKER_H_
#define STARLING_RUNTIME_TRAINER_SEGMENT_PICKER_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "runtime/wire/messages.h"

namespace starling {

struct SegmentName {
  Incarnation incarnation;
  SegmentId id{0};

  friend bool operator<(const SegmentName& a, const SegmentName& b) {
    return a.incarnation != b.incarnation ? a.incarnation < b.incarnation : a.id < b.id;
  }
};

struct SegmentPick {
  struct Voided {
    SegmentName name;
    std::vector<SegmentEntry> entries;
    std::string reason;
  };
  // Members in order, each with its picked segments; members without any are there too.
  std::vector<RoundMemberPlan> members;
  std::vector<Voided> voided;     // new ones; `already_void` ones are not repeated
  std::vector<uint32_t> missing;  // indices no picked segment holds
};

// `sealed`: what each member of one stage has frozen. Main segments come first: of two that
// overlap, the later in order of (incarnation, id) is voided whole; what only it had is missing
// then, unless a contested segment has it. Contested segments are picked for indices that nobody
// else has; the others are left alone.
SegmentPick PickSegments(const std::map<Incarnation, std::vector<SegmentSummary>>& sealed,
                         uint32_t microbatches, const std::set<SegmentName>& already_void);

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_SEGMENT_PICKER_H_
