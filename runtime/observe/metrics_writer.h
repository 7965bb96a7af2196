// MetricsWriter: metrics.jsonl, one line per decided step.
//
//   {"step":7,"loss":3.1,"grad_norm":0.8,"lr":0.001,"tokens":4096,"tokens_per_s":9000.5,
//    "step_s":0.455,"replicas":[2,2,2],"retries":0,"replayed":0,"lane_ok":true,
//    "bytes_forward":262144,"bytes_backward":262144,
//    "time":[{"stage":0,"replica":"1.1","forward":0.101,"backward":0.213,"input":0.088,...},...]}
//
// `skipped` follows where the step was skipped. `time` says where each replica's time went, in
// seconds that add up to its whole step, seal to seal (runtime/base/step_times.h); parts of no time
// and replicas that did not take part in the whole step are left out. Beyond kMostReplicasInLine
// replicas there is one entry per stage, of means, with the number of its replicas. Numbers are
// printed so that reading them gives the same double; those that are not finite are null.
#ifndef STARLING_RUNTIME_OBSERVE_METRICS_WRITER_H_
#define STARLING_RUNTIME_OBSERVE_METRICS_WRITER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "runtime/observe/line_file.h"
#include "runtime/trainer/observer.h"

namespace starling {

constexpr size_t kMostReplicasInLine = 64;

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
