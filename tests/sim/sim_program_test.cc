// `starling-sim` as users call it: what it prints, and that a seed is the same world everywhere.
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/sim/search.h"
#include "tests/testing/subprocess.h"

namespace starling::sim {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::StartsWith;

Finished Sim(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), STARLING_SIM_PROGRAM);
  return RunToEnd(std::move(arguments));
}

std::string HashLine(const std::string& output) {
  const size_t at = output.find("trace hash ");
  return at == std::string::npos ? "" : output.substr(at, output.find('\n', at) - at);
}

TEST(SimProgramTest, OneSeedHasOneHashInEveryProcessAndInASearchAndWithEveryTrace) {
  // Another world first: what ran before in a process must not matter.
  RunSeed({3});
  const std::string hash = ToHex(RunSeed({5}).trace_hash);
  for (const char* trace : {"none", "short", "full"}) {
    const Finished one = Sim({"--seed", "5", "--trace", trace});
    EXPECT_EQ(one.exit_code, 0) << one.output << one.errors;
    EXPECT_EQ(HashLine(one.output), "trace hash " + hash) << trace;
  }
  const Finished many = Sim({"--seeds", "3", "--first", "4", "--hashes"});
  EXPECT_EQ(many.exit_code, 0) << many.output;
  EXPECT_THAT(many.output, HasSubstr("seed 5 " + hash + "\n"));
  EXPECT_NE(ToHex(RunSeed({6}).trace_hash), hash);
}

TEST(SimProgramTest, AReplayPrintsWhatWasDrawnFirstThenTheTraceInColumnsThenTheVerdict) {
  const Finished run = Sim({"--seed", "2", "--stages", "2", "--replicas", "2", "--steps", "3",
                            "--microbatches", "3", "--faults", "none"});
  ASSERT_EQ(run.exit_code, 0) << run.output << run.errors;
  EXPECT_THAT(run.output, StartsWith("2 stages x 2, 3 microbatches, 3 steps"));
  EXPECT_THAT(run.output, ContainsRegex(" [0-9.]+ peer[0-9]/stage1 +added +2 +0  attempt="));
  EXPECT_THAT(run.output, ContainsRegex(" [0-9.]+ trainer +decided +3 +-  "));
  EXPECT_THAT(run.output, HasSubstr("verdict: seed 2 ok: "));
}

TEST(SimProgramTest, FaultsThatAreNotAllowedAreNotDrawn) {
  EXPECT_FALSE(FaultSet::Parse("all,-clog")->Has(FaultKind::kClog));
  EXPECT_TRUE(FaultSet::Parse("all,-clog")->Has(FaultKind::kJam));
  EXPECT_TRUE(absl::IsInvalidArgument(FaultSet::Parse("crash,quake").status()));
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    const SwarmOptions options = SwarmOptions::Drawn(seed, *FaultSet::Parse("clog"));
    EXPECT_EQ(options.faults, 0u);
    EXPECT_EQ(options.world.network.loss, 0);
    EXPECT_FALSE(options.kill_everything);
    for (FaultKind kind : options.more_faults) EXPECT_EQ(kind, FaultKind::kClog);
  }
}

TEST(SimProgramTest, WhatItDoesNotKnowIsSaidOnOneLineWithStatusTwo) {
  const Finished unknown = Sim({"--faults", "quake"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.errors, HasSubstr("no fault is called 'quake'"));
  EXPECT_EQ(Sim({"--seed", "1", "--seeds", "2"}).exit_code, 2);
}

}  // namespace
}  // namespace starling::sim
