// `starling bench` as users call it: that it measures what it says. No speed is looked at.
#include <string>

#include "codec/kernels.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/testing/subprocess.h"

namespace starling {
namespace {

using testing::HasSubstr;

constexpr absl::Duration kLimit = absl::Minutes(10);

TEST(BenchProgramTest, ShortFormMeasuresEachPartBesideWhatItIsComparedWith) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/bench.json";
  const Finished run = RunToEnd(
      {STARLING_PROGRAM, "bench", "codecs", "transfer", "hop", "commit", "--short", "--json", path},
      kLimit);
  ASSERT_EQ(run.exit_code, 0) << run.output << run.errors;
  const auto json = nlohmann::json::parse(FileText(path));
  // Three sizes of four codecs both ways, two of them rounded at random too, memcpy and its
  // control; and four of each kind of loops that this machine has better ones than.
  const size_t loops = codec::AllKernels().size();  // the plain and the best ones among them
  const size_t others = loops > 2 ? loops - 2 : 0;
  ASSERT_EQ(json.at("codecs").at("rows").size(), 3 * (12 + 4 * others));
  for (const auto& row : json.at("codecs").at("rows")) {
    EXPECT_GT(row.at("of_memcpy").get<double>(), 0) << row;
  }
  ASSERT_EQ(json.at("transfer").size(), 8u);  // four sizes, two wires
  for (const auto& row : json.at("transfer")) {
    for (const char* key : {"plain_gb_s", "frames_gb_s", "tensor_gb_s"}) {
      ASSERT_EQ(row.at(key).size(), 1u) << row;
      EXPECT_GT(row.at(key).at(0).get<double>(), 0) << row;
    }
  }
  // Two steps count, of 100 microbatches that hop 3 times each way.
  ASSERT_EQ(json.at("hop").at("rounds").size(), 2u);  // as it is, and with cores awake
  for (const auto& row : json.at("hop").at("rounds")) EXPECT_EQ(row.at("hops"), 1200) << row;
  const auto& commit = json.at("commit").at("rounds").at(0);
  EXPECT_GE(commit.at("steps").get<int>(), 1);
  for (const char* key : {"commit_ms", "add_ms", "adamw_ms", "bytes_ms"}) {
    EXPECT_GT(commit.at(key).get<double>(), 0) << key;
  }
  EXPECT_FALSE(json.at("about").at("version").get<std::string>().empty());
}

TEST(BenchProgramTest, ShortFormMeasuresPureCodeBesideTheOrdersStated) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/bench.json";
  const Finished run =
      RunToEnd({STARLING_PROGRAM, "bench", "hot", "scale", "--short", "--json", path}, kLimit);
  ASSERT_EQ(run.exit_code, 0) << run.output << run.errors;
  const auto json = nlohmann::json::parse(FileText(path));
  if (json.at("hot").is_null()) {  // no Google Benchmark here
    EXPECT_TRUE(json.at("scale").is_null());
    EXPECT_THAT(run.output, HasSubstr("Left out"));
    return;
  }
  EXPECT_EQ(json.at("hot").size(), 12u);  // ten paths, two of them at two sizes
  for (const auto& row : json.at("hot")) {
    ASSERT_EQ(row.at("cpu_us").size(), 1u) << row;
    EXPECT_GT(row.at("cpu_us").at(0).get<double>(), 0) << row;
  }
  EXPECT_EQ(json.at("scale").size(), 10u);
  size_t timed = 0;
  for (const auto& row : json.at("scale")) {
    for (const auto& us : row.at("cpu_us")) EXPECT_GT(us.at(0).get<double>(), 0) << row;
    timed += row.at("cpu_us").size();
    EXPECT_EQ(row.contains("off_order"), row.at("order") != "") << row;
  }
  EXPECT_EQ(timed, 31u);
  EXPECT_EQ(json.at("scale").at(0).at("cpu_us").size(), 4u);  // wiring, for 10 to 10,000
}

TEST(BenchProgramTest, OtherProgramsAreTakenInTurnWithTheBaselineAndItsControl) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/bench.json";
  const Finished run =
      RunToEnd({STARLING_PROGRAM, "bench", "training", "--short", "--shapes", "2x1", "--peer",
                R"(other=for s in 1 2 3; do echo '{"step_s": 0.5}'; done)", "--set",
                "model.width=48", "--set", "model.layers=2", "--json", path},
               kLimit);
  ASSERT_EQ(run.exit_code, 0) << run.output << run.errors;
  const auto training = nlohmann::json::parse(FileText(path)).at("training");
  EXPECT_EQ(training.at("contenders").size(), 4u);
  for (const char* name : {"single", "2x1", "other", "control"}) {
    EXPECT_GT(training.at("contenders").at(name).at("tokens_per_s").get<double>(), 0) << name;
  }
  EXPECT_EQ(training.at("contenders").at("other").at("tokens_per_s"), 32 * 128 / 0.5);
  // Three steps of two replicas count; a command that is no swarm tells nothing of its steps' end.
  const auto& swarm = training.at("contenders").at("2x1");
  EXPECT_EQ(swarm.at("ends"), 6);
  EXPECT_GT(swarm.at("end_share").get<double>(), 0);
  EXPECT_LT(swarm.at("end_share").get<double>(), 1);
  EXPECT_FALSE(training.at("contenders").at("other").contains("end_share"));
  EXPECT_TRUE(training.contains("control_spread"));
}

TEST(BenchProgramTest, WhatItDoesNotKnowIsSaidOnOneLineWithStatusTwo) {
  const Finished unknown = RunToEnd({STARLING_PROGRAM, "bench", "everything"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.errors, HasSubstr("starling: "));
  const Finished failed =
      RunToEnd({STARLING_PROGRAM, "bench", "training", "--short", "--shapes", "2x1", "--peer",
                "broken=exit 3", "--set", "model.width=48", "--set", "model.layers=2"},
               kLimit);
  EXPECT_EQ(failed.exit_code, 1);
  EXPECT_THAT(failed.errors, HasSubstr("broken failed"));
}

}  // namespace
}  // namespace starling
