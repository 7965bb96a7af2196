#include "runtime/observe/metrics_writer.h"

#include "nlohmann/json.hpp"

namespace starling {

std::string ToMetricsLine(const StepReport& report) {
  nlohmann::ordered_json line = {{"step", Value(report.step)},
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
  return line.dump();
}

}  // namespace starling
