#include "checkpoint/result_log.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace starling {

bool ResultLog::Continues(Era era, const ResultRecord& record) const {
  return !results_.empty() && era == era_ && record.version == Next(Last().version) &&
         record.before == Last().after;
}

void ResultLog::Put(Era era, const ResultRecord& record, std::vector<Blob> pieces) {
  if (!results_.empty() && era == era_ && record.version <= Last().version &&
      record.version >= oldest()) {
    return;
  }
  if (!Continues(era, record)) Clear();
  era_ = era;
  results_.emplace_back(std::move(pieces), options_.chunk_bytes, record);
  held_bytes_ += results_.back().size_bytes();
  while (!results_.empty() &&
         (held_bytes_ > options_.bytes || results_.size() > options_.results)) {
    DropOldest();
  }
}

void ResultLog::KeepNewest(size_t count) {
  while (results_.size() > count) DropOldest();
}

void ResultLog::DropOldest() {
  held_bytes_ -= results_.front().size_bytes();
  results_.pop_front();
}

absl::StatusOr<ChunkedBytes*> ResultLog::Find(Era era, Version version) {
  if (results_.empty()) return absl::AbortedError("no results are kept here");
  if (era != era_) {
    return absl::AbortedError(
        absl::StrCat("the results kept here are of era ", Value(era_), ", not ", Value(era)));
  }
  if (version > newest()) {
    return absl::FailedPreconditionError(
        absl::StrCat("version ", Value(version), " is not made yet: this is ", Value(newest())));
  }
  if (version < oldest()) {
    return absl::AbortedError(absl::StrCat("the result that made version ", Value(version),
                                           " is gone: the oldest kept made ", Value(oldest())));
  }
  return &results_[Value(version) - Value(oldest())];
}

void ResultLog::Clear() {
  results_.clear();
  held_bytes_ = 0;
}

Version ResultLog::oldest() const {
  return results_.empty() ? Version{0} : results_.front().result()->version;
}

Version ResultLog::newest() const { return results_.empty() ? Version{0} : Last().version; }

absl::Status CheckChain(const StateName& state, const ResultRecord& record) {
  if (record.version != Next(state.version)) {
    return absl::DataLossError(absl::StrCat("a result that makes version ", Value(record.version),
                                            " does not follow version ", Value(state.version)));
  }
  if (record.before != state.hash || (record.skip && record.after != record.before)) {
    return absl::DataLossError(absl::StrCat("the result that makes version ", Value(record.version),
                                            " was applied to another state than this one: ",
                                            ToHex(record.before), ", not ", ToHex(state.hash)));
  }
  return absl::OkStatus();
}

}  // namespace starling
