#include "runtime/trainer/time_table.h"

#include <utility>

namespace starling {
namespace {

constexpr double kKeep = 0.875;  // of older steps with each newer one
constexpr double kNanoseconds = 1e-9;

}  // namespace

void TimeTable::Sum::Add(const StepTimes& times, double keep) {
  steps = keep * steps + 1;
  for (size_t i = 0; i < kStepParts; ++i) {
    ns[i] = keep * ns[i] + static_cast<double>(times.parts[i]);
  }
  microbatches = keep * microbatches + times.microbatches;
  sent = keep * sent + times.sent;
  sending_ns = keep * sending_ns + static_cast<double>(times.sending_ns);
}

void TimeTable::Facts::Add(const StepFacts& facts, double keep) {
  steps = keep * steps + 1;
  feeding_s = keep * feeding_s + facts.feeding_s;
  bytes = keep * bytes + static_cast<double>(facts.bytes_forward);
  outputs = keep * outputs + static_cast<double>(facts.outputs);
}

void TimeTable::OnStep(const std::vector<ReplicaTimes>& times, const StepFacts& facts) {
  std::map<Incarnation, Row> rows;
  for (const ReplicaTimes& replica : times) {
    Row row;
    const auto known = rows_.find(replica.replica);
    if (known != rows_.end()) row = std::move(known->second);
    row.stage = replica.stage;
    if (replica.times.total() > 0) {
      row.recent.Add(replica.times, kKeep);
      row.whole.Add(replica.times, 1);
    }
    rows.emplace(replica.replica, std::move(row));
  }
  rows_ = std::move(rows);
  recent_.Add(facts, kKeep);
  whole_.Add(facts, 1);
}

TimePicture TimeTable::Picture(TimeSpan span) const {
  TimePicture picture;
  for (const auto& [incarnation, row] : rows_) {
    const Sum& sum = span == TimeSpan::kRecent ? row.recent : row.whole;
    MeanTimes mean;
    mean.replica = incarnation;
    mean.stage = row.stage;
    if (sum.steps > 0) {
      for (size_t i = 0; i < kStepParts; ++i) {
        mean.seconds[i] = kNanoseconds * sum.ns[i] / sum.steps;
      }
      mean.microbatches = sum.microbatches / sum.steps;
    }
    if (sum.sent > 0) mean.sending_s = kNanoseconds * sum.sending_ns / sum.sent;
    picture.replicas.push_back(std::move(mean));
  }
  const Facts& facts = span == TimeSpan::kRecent ? recent_ : whole_;
  if (facts.steps > 0) picture.feeding_s = facts.feeding_s / facts.steps;
  if (facts.outputs > 0) picture.boundary_bytes = facts.bytes / facts.outputs;
  return picture;
}

}  // namespace starling
