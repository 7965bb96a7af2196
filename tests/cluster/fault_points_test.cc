// A process dies at exactly the point that is named (fault_hook.h): of each role, in each phase.
// The steps stay those of one process, and exactly what the dead had accepted is computed again.
#include <signal.h>
#include <sys/stat.h>

#include <iostream>
#include <map>
#include <ostream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cluster/cluster_testing.h"

namespace starling {
namespace {

constexpr int kKilled = 128 + SIGKILL;

struct Faults {
  const char* name;
  std::vector<std::string> coordinates;
  std::vector<std::string> arguments = {"--swarm.stages=3", "--local.replicas=2"};
};

void PrintTo(const Faults& faults, std::ostream* out) { *out << faults.name; }

// The coordinates of one run, in a folder of their own.
class FaultRun {
 public:
  explicit FaultRun(const Faults& faults)
      : faults_(faults),
        folder_(ClusterFolder() + "/faults-" + faults.name),
        run_(ClusterFolder() + "/fault-points-" + faults.name) {
    mkdir(folder_.c_str(), 0755);
    std::string all;
    for (const std::string& coordinate : faults_.coordinates) {
      all += (all.empty() ? "" : ";") + coordinate;
      if (coordinate.rfind("trainer", 0) == 0) ++trainer_deaths_;
    }
    run_.SetEnvironment({"STARLING_FAULT=" + all, "STARLING_FAULT_FOLDER=" + folder_});
  }

  ClusterRun& run() { return run_; }

  // Resumes the run each time its trainer was to die, and did.
  void RunToEnd() {
    run_.Train(WriteRunFile(ClusterFolder(), kLongBatch), faults_.arguments);
    for (int death = 0; death < trainer_deaths_; ++death) {
      ASSERT_EQ(run_.trainer().WaitForExit(kRunLimit).value_or(-1), kKilled)
          << run_.trainer().Output() << run_.trainer().Errors();
      run_.Resume();
    }
    run_.ExpectSuccess();
  }

  // What the dead said, in the order of the coordinates. All of them died.
  std::vector<Json> Lines() const {
    std::vector<Json> lines;
    for (std::string name : faults_.coordinates) {
      for (char& c : name) c = c == ',' ? '-' : c;
      Json line = Json::parse(FileText(folder_ + "/" + name + ".json"), nullptr, false);
      EXPECT_TRUE(line.is_object()) << name << " never came";
      if (line.is_object()) lines.push_back(std::move(line));
    }
    return lines;
  }

 private:
  const Faults faults_;
  const std::string folder_;
  int trainer_deaths_ = 0;
  ClusterRun run_;
};

// By step, from the records of the decisions: whose gradients were summed.
std::map<int64_t, std::set<std::string>> Contributors(const ClusterRun& run) {
  std::map<int64_t, std::set<std::string>> contributors;
  std::istringstream records(FileText(run.directory() + "/decisions.jsonl"));
  for (std::string line; std::getline(records, line);) {
    const Json record = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!record.is_object() || record.value("step", 0) == 0) continue;
    for (const Json& group : record.at("groups")) {
      for (const Json& member : group.at("members")) {
        contributors[record.at("step")].insert(member.at("replica").get<std::string>());
      }
    }
  }
  return contributors;
}

// By step: how many pairs (stage, microbatch) the dead had accepted, where the decision counts
// nothing of theirs.
std::map<int64_t, int64_t> LostPairs(const std::vector<Json>& lines, const ClusterRun& run) {
  const std::map<int64_t, std::set<std::string>> contributors = Contributors(run);
  std::map<int64_t, int64_t> lost;
  for (const Json& line : lines) {
    if (!line.contains("accepted")) continue;
    for (const auto& [step, indices] : line.at("accepted").items()) {
      const auto of_step = contributors.find(std::stoll(step));
      EXPECT_TRUE(of_step != contributors.end()) << "no decision of step " << step;
      if (of_step == contributors.end()) continue;
      if (of_step->second.count(line.at("incarnation").get<std::string>()) > 0) continue;
      lost[std::stoll(step)] += static_cast<int64_t>(indices.size());
    }
  }
  return lost;
}

class FaultPointsTest : public ::testing::TestWithParam<Faults> {};

TEST_P(FaultPointsTest, EveryStepIsOneProcesssAndJustWhatTheDeadHadIsComputedAgain) {
  FaultRun faults(GetParam());
  ASSERT_NO_FATAL_FAILURE(faults.RunToEnd());
  const ClusterRun& run = faults.run();
  const std::vector<Json> lines = faults.Lines();
  ASSERT_EQ(lines.size(), GetParam().coordinates.size());
  ExpectEqualToReference(run, kLongBatch);
  ExpectOneHashPerState(run);
  EXPECT_TRUE(run.Processes().empty());
  EXPECT_EQ(run.EventsNamed("era_began").size(), 1u) << "a stage's state was lost";
  for (const Json& line : lines) std::cout << line << "\n";
  std::map<int64_t, int64_t> lost = LostPairs(lines, run);
  for (const auto& [step, metrics] : run.Steps()) {
    EXPECT_EQ(metrics.at("replayed"), lost[step]) << metrics;
  }
}

// In the first, a middle and the last stage.
std::vector<std::string> EachStage(const std::string& phase, int first_step) {
  std::vector<std::string> coordinates;
  for (int stage = 0; stage < 3; ++stage) {
    coordinates.push_back("replica," + std::to_string(stage) + "," + phase + "," +
                          std::to_string(first_step + 12 * stage));
  }
  return coordinates;
}

std::vector<std::string> Both(std::vector<std::string> first,
                              const std::vector<std::string>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

// Checkpoints are made every 20 steps: while the next step runs.
std::vector<std::string> GivingToCheckpoints() {
  return {"replica,0,giving_to_checkpoint,41", "replica,1,giving_to_checkpoint,61",
          "replica,2,giving_to_checkpoint,81"};
}

INSTANTIATE_TEST_SUITE_P(
    Replica, FaultPointsTest,
    ::testing::Values(
        Faults{"QueuedAndForward", Both(EachStage("queued", 5), EachStage("forward", 41))},
        Faults{"BetweenAndBackward",
               Both(EachStage("between_forward_and_backward", 5), EachStage("backward", 41))},
        Faults{"AddedAndNotified", Both(EachStage("added", 5), EachStage("notified", 41))},
        Faults{"SealedAndInRound",
               Both(EachStage("sealed", 5), EachStage("before_sending_pieces", 41))},
        Faults{"PiecesSentAndDecided", Both(EachStage("after_sending_pieces", 5),
                                            EachStage("between_decision_and_apply", 41))},
        Faults{"ApplyingAndGivingToCheckpoint",
               Both(EachStage("applying", 5), GivingToCheckpoints())}),
    [](const ::testing::TestParamInfo<Faults>& faults) { return faults.param.name; });

// One of three dies; the one started in its place dies while it fetches the state, the next one
// while it puts it in; then one of those who give it to the third.
INSTANTIATE_TEST_SUITE_P(JoinerAndDonor, FaultPointsTest,
                         ::testing::Values(Faults{"FirstStage",
                                                  {"replica,0,notified,5", "replica,0,joining,2",
                                                   "replica,0,loading,2", "replica,0,donating,2"},
                                                  {"--swarm.stages=2", "--local.replicas=[3,2]"}},
                                           Faults{"LastStage",
                                                  {"replica,1,notified,5", "replica,1,joining,2",
                                                   "replica,1,loading,2", "replica,1,donating,2"},
                                                  {"--swarm.stages=2", "--local.replicas=[2,3]"}}),
                         [](const ::testing::TestParamInfo<Faults>& faults) {
                           return faults.param.name;
                         });

INSTANTIATE_TEST_SUITE_P(
    Trainer, FaultPointsTest,
    ::testing::Values(Faults{
        "StepAndRound",
        {"trainer,-,running,5", "trainer,-,sealing,15", "trainer,-,in_round,25",
         "trainer,-,before_record,35", "trainer,-,record_not_synced,45",
         "trainer,-,between_decision_and_apply,55", "trainer,-,applying,65",
         "trainer,-,in_checkpoint,75"},
        {"--swarm.stages=3", "--local.replicas=2"}}),
    [](const ::testing::TestParamInfo<Faults>& faults) { return faults.param.name; });

}  // namespace
}  // namespace starling
