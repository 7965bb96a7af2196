// A checker that cannot fail is no checker: with each mistake of runtime/base/planted.h turned on,
// the search must find a violation within a stated number of seeds. docs/testing.md has the table.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/subprocess.h"

namespace starling::sim {
namespace {

struct Planting {
  const char* bug;
  int seeds;                             // within which it must be found
  const char* finding;                   // what a violation says
  std::vector<std::string> worlds = {};  // which worlds are drawn; empty: all kinds
};

void PrintTo(const Planting& planting, std::ostream* out) { *out << planting.bug; }

class PlantedBugTest : public ::testing::TestWithParam<Planting> {};

TEST_P(PlantedBugTest, IsFoundWithinTheStatedNumberOfSeeds) {
  const Planting planting = GetParam();
  std::vector<std::string> command = {
      STARLING_SIM_PLANTED_PROGRAM,   "--plant", planting.bug, "--seeds",
      std::to_string(planting.seeds), "--stop"};
  command.insert(command.end(), planting.worlds.begin(), planting.worlds.end());
  const Finished search = RunToEnd(command);
  ASSERT_NE(search.exit_code, 0) << "not found\n" << search.output;
  ASSERT_NE(search.exit_code, 2) << search.errors;
  EXPECT_THAT(search.output + search.errors, testing::HasSubstr(planting.finding));
}

INSTANTIATE_TEST_SUITE_P(
    Bugs, PlantedBugTest,
    ::testing::Values(Planting{"skip_fence_acks", 50, "I1: segment_voided"},
                      Planting{"forget_record", 50, "I3: a record number does not grow"},
                      Planting{"publish_before_sync", 20, "I7: "},
                      Planting{"act_before_sync", 50, "I2: "},
                      Planting{"sum_in_arrival_order", 50, "applied another sum"},
                      Planting{"apply_other_round", 200, "applied another sum"},
                      Planting{"forget_promise",
                               100,
                               "I1: segment_voided",
                               {"--faults", "clog,oneway", "--stages", "2", "--replicas", "3",
                                "--microbatches", "8"}},
                      Planting{"run_repeated_request", 50, "I1: segment_voided"},
                      Planting{"ignore_stage_mask", 100, "I1: segment_voided"},
                      Planting{"contested_as_baton", 400, "I1: segment_voided"},
                      Planting{"replay_on_newest", 50, "I1: ", {"--delayed"}},
                      Planting{"never_repeat", 50, "I6"}, Planting{"reuse_attempt_name", 100, "I6"},
                      Planting{"reuse_incarnation", 50, "I3: "},
                      Planting{"serve_before_caught_up", 50, "I6"},
                      Planting{"trust_notices", 50, "a microbatch was not counted exactly once"},
                      Planting{"add_after_seal",
                               500,
                               "a microbatch was not counted exactly once",
                               {"--faults", "hiccup", "--replicas", "2", "--microbatches", "8"}},
                      Planting{"forget_tied_stage", 50, "I1: step"},
                      Planting{"apply_without_tie", 50, "I2: what the tie"}),
    [](const auto& info) { return std::string(info.param.bug); });

// The same program with nothing turned on: what is found is the mistake, not the program.
TEST(PlantedProgramTest, NothingIsFoundWhereNothingIsPlanted) {
  const Finished search =
      RunToEnd({STARLING_SIM_PLANTED_PROGRAM, "--plant", "none", "--seeds", "50", "--stop"});
  EXPECT_EQ(search.exit_code, 0) << search.output << search.errors;
}

}  // namespace
}  // namespace starling::sim
