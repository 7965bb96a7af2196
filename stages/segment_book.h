// SegmentBook: a replica's gradient segments, each with the list of what is in it.
//
// A segment is a gradient sum, the list of the microbatches added to it in order of addition, and
// the integer lane. The three can only change together: Add() runs the caller's addition and, in
// the same place, writes the list entry and adds the lane. An addition that fails has spoiled its
// segment, for part of it may be in the sum; what it held must be computed again.
//
//   SegmentBook<at::Tensor> book(stage, [&] { return at::zeros({size}); });
//   status = book.Add(step, segment, entry, [&](at::Tensor& sum) { ...sum += gradient...; });
//   std::vector<SegmentSummary> lists = book.Seal(step);
//
// `Sum` is whatever holds the gradient: a tensor here, a few integers in the virtual world.
// Not thread-safe; owned by one executor.
#ifndef STARLING_STAGES_SEGMENT_BOOK_H_
#define STARLING_STAGES_SEGMENT_BOOK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/hash.h"
#include "runtime/base/ids.h"
#include "runtime/base/lane.h"
#include "runtime/base/planted.h"
#include "runtime/env/compute.h"

namespace starling {

// The hash of (index, attempt) of each entry, in order. Names what a segment holds in a reduce
// plan.
Hash128 ListHash(const std::vector<SegmentEntry>& entries);

template <typename Sum>
class SegmentBook {
 public:
  struct Segment {
    SegmentSummary summary;  // list_hash is filled in when the segment freezes
    bool frozen = false;
    Sum sum;
  };

  // `make_zero` makes the sum of a new segment.
  SegmentBook(StageId stage, std::function<Sum()> make_zero)
      : stage_(stage), make_zero_(std::move(make_zero)) {}

  // Adds one microbatch to (step, id), which is made on first use. `add` is a function of `Sum&`
  // that returns an absl::Status, and must not throw. Its failure is handed back and spoils the
  // segment; the entry is then not listed.
  //   failed precondition: the segment is frozen; `add` was not called.
  template <typename AddFunction>
  absl::Status Add(Step step, SegmentId id, const SegmentEntry& entry, AddFunction add) {
    auto& segments = steps_[step];
    auto found = segments.find(id);
    if (found == segments.end()) {
      Segment fresh{SegmentSummary(), false, make_zero_()};
      fresh.summary.id = id;
      found = segments.emplace(id, std::move(fresh)).first;
    }
    Segment& segment = found->second;
    if (segment.frozen) {
      return absl::FailedPreconditionError("segment " + std::to_string(Value(id)) + " of step " +
                                           std::to_string(Value(step)) + " is sealed");
    }
    const absl::Status added = add(segment.sum);
    if (!added.ok()) {
      segment.summary.spoiled = true;
      return added;
    }
    segment.summary.entries.push_back(entry);
    segment.summary.lane += LaneTerm(step, entry.index, stage_);
    return absl::OkStatus();
  }

  // True if (step, id) exists and takes no more.
  bool IsFrozen(Step step, SegmentId id) const {
    const Segment* segment = Find(step, id);
    return segment != nullptr && segment->frozen;
  }

  // Freezes all segments of `step` that exist and describes them in the order of their ids. Asked
  // again it includes segments made since.
  std::vector<SegmentSummary> Seal(Step step) {
    std::vector<SegmentSummary> summaries;
    auto found = steps_.find(step);
    if (found == steps_.end()) return summaries;
    for (auto& [id, segment] : found->second) {
      if (!segment.frozen) segment.summary.list_hash = ListHash(segment.summary.entries);
      segment.frozen = !Planted(Bug::kAddAfterSeal);
      summaries.push_back(segment.summary);
    }
    return summaries;
  }

  // The named frozen segments, in the order given. The pointers last until the segments are freed.
  //   failed precondition: one does not exist or is not frozen.
  absl::StatusOr<std::vector<const Segment*>> Frozen(Step step,
                                                     const std::vector<SegmentId>& ids) const {
    std::vector<const Segment*> result;
    for (SegmentId id : ids) {
      const Segment* segment = Find(step, id);
      if (segment == nullptr || !(segment->frozen || Planted(Bug::kAddAfterSeal))) {
        return absl::FailedPreconditionError("no sealed segment " + std::to_string(Value(id)) +
                                             " of step " + std::to_string(Value(step)));
      }
      result.push_back(segment);
    }
    return result;
  }

  // Frees the segments of all steps up to and including `step`.
  void FreeThrough(Step step) { steps_.erase(steps_.begin(), steps_.upper_bound(step)); }
  void Clear() { steps_.clear(); }

 private:
  const Segment* Find(Step step, SegmentId id) const {
    auto at_step = steps_.find(step);
    if (at_step == steps_.end()) return nullptr;
    auto found = at_step->second.find(id);
    return found == at_step->second.end() ? nullptr : &found->second;
  }

  const StageId stage_;
  const std::function<Sum()> make_zero_;
  std::map<Step, std::map<SegmentId, Segment>> steps_;
};

}  // namespace starling

#endif  // STARLING_STAGES_SEGMENT_BOOK_H_
