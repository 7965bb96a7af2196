#include "runtime/observe/metrics_writer.h"

#include <cmath>
#include <map>
#include <utility>

#include "nlohmann/json.hpp"

namespace starling {
namespace {

using Json = nlohmann::ordered_json;

// The parts that took any time, in seconds.
void AddParts(const StepTimes& times, double replicas, Json* to) {
  for (size_t i = 0; i < kStepParts; ++i) {
    if (times.parts[i] == 0) continue;
    // To the microsecond: shorter lines.
    const double seconds = std::round(1e-3 * static_cast<double>(times.parts[i]) / replicas) / 1e6;
    (*to)[ToString(static_cast<StepPart>(i))] = seconds;
  }
}

Json PerReplica(const std::vector<ReplicaTimes>& times) {
  Json list = Json::array();
  for (const ReplicaTimes& replica : times) {
    Json entry = {{"stage", Value(replica.stage)}, {"replica", ToString(replica.replica)}};
    AddParts(replica.times, 1, &entry);
    list.push_back(std::move(entry));
  }
  return list;
}

Json PerStage(const std::vector<ReplicaTimes>& times) {
  std::map<StageId, std::pair<uint32_t, StepTimes>> stages;
  for (const ReplicaTimes& replica : times) {
    auto& [count, sum] = stages[replica.stage];
    ++count;
    for (size_t i = 0; i < kStepParts; ++i) sum.parts[i] += replica.times.parts[i];
  }
  Json list = Json::array();
  for (const auto& [stage, mean] : stages) {
    Json entry = {{"stage", Value(stage)}, {"replicas", mean.first}};
    AddParts(mean.second, mean.first, &entry);
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace

std::string ToMetricsLine(const StepReport& report) {
  Json line = {{"step", Value(report.step)},
               {"loss", report.loss},
               {"grad_norm", report.gradient_norm},
               {"lr", report.learning_rate},
               {"tokens", report.tokens},
               {"tokens_per_s", report.tokens_per_s},
               {"step_s", report.step_s},
               {"replicas", report.replicas},
               {"retries", report.retries},
               {"replayed", report.replayed},
               {"lane_ok", report.lane_ok},
               {"bytes_forward", report.bytes_forward},
               {"bytes_backward", report.bytes_backward}};
  if (report.skipped) line["skipped"] = true;
  if (!report.times.empty()) {
    line["time"] = report.times.size() <= kMostReplicasInLine ? PerReplica(report.times)
                                                              : PerStage(report.times);
  }
  return line.dump();
}

}  // namespace starling
