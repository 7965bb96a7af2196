// MetricsWriter: metrics.jsonl, one line per decided step.
//
//   {"step":7,"loss":3.1,"grad_norm":0.8,"lr":0.001,"tokens":4096,"tokens_per_s":9000.5,
//    "step_s":0.455,"replicas":[2,2,2],"retries":0,"replayed":0,"lane_ok":true}
//
// `skipped` follows where the step was skipped. Numbers are printed so that reading them gives the
// same double; those that are not finite are null.
#ifndef STARLING_RUNTIME_OBSERVE_METRICS_WRITER_H_
#define STARLING_RUNTIME_OBSERVE_METRICS_WRITER_H_

#include <memory>
#include <string>
#include <utility>

#include "runtime/observe/line_file.h"
#include "runtime/trainer/observer.h"

namespace starling {

std::string ToMetricsLine(const StepReport& report);  // without the newline

class MetricsWriter {
 public:
  explicit MetricsWriter(std::unique_ptr<LineFile> file) : file_(std::move(file)) {}

  void Write(const StepReport& report) { file_->Write(ToMetricsLine(report)); }

 private:
  const std::unique_ptr<LineFile> file_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_OBSERVE_METRICS_WRITER_H_
