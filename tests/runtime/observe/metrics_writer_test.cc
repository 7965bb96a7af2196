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

ReplicaTimes Times(uint32_t counter, uint32_t stage, uint64_t forward_ms) {
  ReplicaTimes times;
  times.replica = {Epoch{1}, counter};
  times.stage = StageId{stage};
  times.times[StepPart::kForward] = forward_ms * 1'000'000;
  times.times[StepPart::kIdle] = 2'000'400;
  return times;
}

TEST(MetricsWriterTest, TimesAreInSecondsPerReplicaWithoutPartsOfNoTime) {
  StepReport report = Report();
  report.times = {Times(1, 0, 10), Times(2, 1, 20)};
  const std::string line = ToMetricsLine(report);
  EXPECT_EQ(line.substr(line.find("\"time\"")),
            R"("time":[{"stage":0,"replica":"1.1","forward":0.01,"idle":0.002},)"
            R"({"stage":1,"replica":"1.2","forward":0.02,"idle":0.002}]})");
}

TEST(MetricsWriterTest, LargeSwarmsHaveMeansPerStage) {
  StepReport report = Report();
  for (uint32_t i = 0; i <= kMostReplicasInLine; ++i) {
    report.times.push_back(Times(i + 1, i % 2, i % 2 == 0 ? 10 : 30));
  }
  const auto time = nlohmann::json::parse(ToMetricsLine(report))["time"];
  ASSERT_EQ(time.size(), 2u);
  EXPECT_EQ(time[0].dump(), R"({"forward":0.01,"idle":0.002,"replicas":33,"stage":0})");
  EXPECT_EQ(time[1].dump(), R"({"forward":0.03,"idle":0.002,"replicas":32,"stage":1})");
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
