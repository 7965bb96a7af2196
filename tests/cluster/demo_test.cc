// The demo as users first see it: examples/tiny.toml keeps its promises.
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/config/run_file.h"
#include "runtime/data/bigram.h"
#include "runtime/data/text.h"
#include "runtime/reactor/posix_disk.h"
#include "tests/cluster/cluster_testing.h"

namespace starling {
namespace {

using testing::Contains;
using testing::HasSubstr;

// The status of the run as it trains, as scripts read it.
void ExpectDocumentedStatus(const ClusterRun& run, const std::string& address) {
  const Finished status = RunToEnd({STARLING_PROGRAM, "status", run.directory(), "--json"});
  ASSERT_EQ(status.exit_code, 0) << status.errors;
  const Json json = Json::parse(status.output, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(json.is_object()) << status.output;
  EXPECT_EQ(json.value("address", ""), address);
  EXPECT_GE(json.value("step", 0), 1);
  EXPECT_GE(json.value("version", 0), 1);
  EXPECT_EQ(json.value("state", ""), "training");
  ASSERT_EQ(json.at("stages").size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const Json& stage = json["stages"][i];
    EXPECT_EQ(stage.at("stage"), i);
    EXPECT_EQ(stage.at("layers"), Json({2 * i, 2 * i + 2}));
    ASSERT_EQ(stage.at("replicas").size(), 2u);
    for (const Json& replica : stage["replicas"]) {
      EXPECT_EQ(replica.at("peer").get<std::string>().size(), 16u) << replica;
      EXPECT_THAT(run.Processes(), Contains(replica.at("pid").get<pid_t>()));
      EXPECT_FALSE(replica.at("host").get<std::string>().empty());
      EXPECT_EQ(replica.at("state"), "serving");
      EXPECT_GE(replica.at("version"), 1);
      EXPECT_GT(replica.at("tokens_per_s"), 0);
      EXPECT_EQ(replica.at("hash").get<std::string>().size(), 32u) << replica;
    }
  }
}

// In nats per byte, of the byte-bigram model of the same text.
double BigramLossOf(const ClusterRun& run) {
  const std::string path = run.directory() + "/run.toml";
  const absl::StatusOr<RunConfig> config = ParseRunFile(FileText(path), path, {});
  EXPECT_TRUE(config.ok()) << config.status();
  PosixDisk disk;
  const absl::StatusOr<Text> text = LoadText(disk, config->data);
  EXPECT_TRUE(text.ok()) << text.status();
  return BigramLoss(text->train, text->validation);
}

TEST(DemoTest, LearnsBetterThanBigramsAndLosesAReplicaOnTheWay) {
  ClusterRun run(ClusterFolder() + "/demo");
  run.Train(STARLING_SOURCE_DIR "/examples/tiny.toml", {});
  const std::string address = run.Address();
  ASSERT_TRUE(run.WaitForStep(3)) << run.trainer().Output() << run.trainer().Errors();
  ExpectDocumentedStatus(run, address);
  run.ExpectSuccess();
  EXPECT_TRUE(run.Processes().empty());

  // Half-way one was killed, what it held was done again, and its successor came.
  const std::vector<Json> kills = run.EventsNamed("chaos_kill");
  ASSERT_EQ(kills.size(), 1u);
  ASSERT_EQ(run.EventsNamed("peer_lost").size(), 1u);
  EXPECT_EQ(run.EventsNamed("peer_lost")[0].at("pid"), kills[0].at("pid"));
  ASSERT_FALSE(run.EventsNamed("replayed").empty());
  EXPECT_EQ(run.EventsNamed("replayed")[0].at("step"), 100);
  const std::vector<Json> joined = run.EventsNamed("peer_joined");
  ASSERT_EQ(joined.size(), 7u);
  EXPECT_EQ(joined.back().at("stage"), kills[0].at("stage"));
  EXPECT_GE(joined.back().at("version"), 99);
  for (const char* said : {"killed", "replayed", "joined", "validation loss", "starling resume"}) {
    EXPECT_THAT(run.trainer().Output(), HasSubstr(said));
  }

  const std::map<int64_t, Json> steps = run.Steps();
  ASSERT_EQ(steps.size(), 200u);
  for (const auto& [step, line] : steps) EXPECT_EQ(line.at("lane_ok"), true) << line;
  EXPECT_EQ(steps.at(200).at("replicas"), Json({2, 2, 2}));
  ExpectOneHashPerState(run);

  ASSERT_FALSE(run.EventsNamed("evaluated").empty());
  const Json evaluated = run.EventsNamed("evaluated").back();
  EXPECT_EQ(evaluated.at("step"), 200);
  const double bigram = BigramLossOf(run);
  const double loss = evaluated.at("validation_loss");
  EXPECT_LE(loss, bigram - 0.2) << "bigram " << bigram;
  std::cout << "validation loss " << loss << ", bigram model " << bigram << "\n";

  const Finished verify = RunToEnd({STARLING_PROGRAM, "checkpoint", "verify", run.directory()});
  EXPECT_EQ(verify.exit_code, 0) << verify.output << verify.errors;
  const Finished sample = RunToEnd(
      {STARLING_PROGRAM, "generate", run.directory(), "--prompt", "namespace ", "--tokens", "40"});
  EXPECT_EQ(sample.exit_code, 0) << sample.errors;
  EXPECT_GE(sample.output.size(), 40u) << sample.output;
}

}  // namespace
}  // namespace starling
