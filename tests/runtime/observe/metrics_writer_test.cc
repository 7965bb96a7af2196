#include "runtime/observe/metrics_writer.h"

#include <limits>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace starling {
namespace {

StepReport Report() {
  StepReport report;
  report.step = Step{7};
  report.loss = 0.1 + 0.2;
  report.gradient_norm = 1.0 / 3;
  report.learning_rate = 3e-3;
  report.tokens = 4096;
  report.tokens_per_s = 9000.5;
  report.step_s = 0.455;
  report.replicas = {2, 1, 3};
  report.retries = 4;
  report.replayed = 5;
  report.bytes_forward = 1000;
  report.bytes_backward = 600;
  return report;
}

TEST(MetricsWriterTest, LineHasExactlyTheKeysThatScriptsRelyOn) {
  EXPECT_EQ(ToMetricsLine(Report()),
            R"({"step":7,"loss":0.30000000000000004,"grad_norm":0.3333333333333333,"lr":0.003,)"
            R"("tokens":4096,"tokens_per_s":9000.5,"step_s":0.455,"replicas":[2,1,3],"retries":4,)"
            R"("replayed":5,"lane_ok":true,"bytes_forward":1000,"bytes_backward":600})");
}

TEST(MetricsWriterTest, DoublesAreReadBackToTheBit) {
  const auto line = nlohmann::json::parse(ToMetricsLine(Report()));
  EXPECT_EQ(line["loss"].get<double>(), 0.1 + 0.2);
  EXPECT_EQ(line["grad_norm"].get<double>(), 1.0 / 3);
}

TEST(MetricsWriterTest, SkippedStepSaysSoAndItsLossIsNull) {
  StepReport report = Report();
  report.skipped = true;
  report.loss = std::numeric_limits<double>::quiet_NaN();
  const auto line = nlohmann::json::parse(ToMetricsLine(report));
  EXPECT_TRUE(line["loss"].is_null());
  EXPECT_TRUE(line["skipped"].get<bool>());
}

}  // namespace
}  // namespace starling
