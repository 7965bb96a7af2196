// Links between processes are slow, stand still and break; the steps stay those of one process.
//
// In each run one replica of stage 0 and one of stage 1 were started by hand and are reached
// through a relay (tests/testing/relay.h); their siblings are the run's own.
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cluster/cluster_testing.h"
#include "tests/testing/relay.h"

namespace starling {
namespace {

// A replica that is reached through a relay.
struct Linked {
  Linked(const std::string& folder, const std::string& address, int stage)
      : link(folder + "-" + std::to_string(stage)),
        process({STARLING_PROGRAM, "stage", "--join", address, "--stage", std::to_string(stage),
                 "--threads", "1", "--listen", link.listen(), "--advertise", link.advertise()}) {}
  Relay link;
  Subprocess process;
};

class LinksTest : public testing::Test {
 protected:
  // Two stages of two replicas, one of each behind a link; waits until all four serve.
  void Start(const std::string& name, const std::vector<std::string>& more = {}) {
    const std::string folder = ClusterFolder() + "/" + name;
    run_ = std::make_unique<ClusterRun>(folder);
    std::vector<std::string> arguments = {"--swarm.stages=2", "--local.replicas=1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    run_->Train(WriteRunFile(ClusterFolder(), kLongBatch), arguments);
    const std::string address = run_->Address();
    for (int stage : {0, 1}) linked_.push_back(std::make_unique<Linked>(folder, address, stage));
    ASSERT_TRUE(run_->WaitUntilRunning([this] {
      const std::vector<Json> lines = run_->Metrics();
      return !lines.empty() && lines.back().at("replicas") == Json({2, 2});
    })) << run_->trainer().Output()
        << linked_[0]->process.Errors() << linked_[1]->process.Errors();
  }

  Relay& link(size_t stage) { return linked_[stage]->link; }

  // Ends as a run without trouble does, and those behind the links with it.
  void ExpectGoodEnd() {
    run_->ExpectSuccess();
    ExpectEqualToReference(*run_, kLongBatch);
    ExpectOneHashPerState(*run_);
    for (const auto& linked : linked_) {
      EXPECT_EQ(linked->process.WaitForExit().value_or(-1), 0) << linked->process.Errors();
      EXPECT_GT(linked->link.bytes_passed(), 0u);
    }
  }

  std::unique_ptr<ClusterRun> run_;
  std::vector<std::unique_ptr<Linked>> linked_;
};

TEST_F(LinksTest, SlowLinksOfTwoReplicasLeaveEveryStepAsItWas) {
  Start("slow-links");
  for (size_t stage : {0, 1}) {
    link(stage).SetDelay(absl::Milliseconds(20));
    link(stage).SetBandwidth(4'000'000);
  }
  ExpectGoodEnd();
}

TEST_F(LinksTest, StalledLinkIsGoneAroundWithoutHarm) {
  Start("stalled-link");
  link(1).SetStalled(true);
  const int64_t stalled_at = run_->LastStep();
  EXPECT_TRUE(run_->WaitForStep(stalled_at + 3)) << "the others do not go on without it";
  EXPECT_GE(run_->EventsNamed("contested").size(), 1u);
  link(1).SetStalled(false);
  ExpectGoodEnd();
}

TEST_F(LinksTest, CutLinkIsNoticedAndTheReplicaServesAgainWhenItIsMended) {
  Start("cut-link");
  const size_t joined = run_->EventsNamed("peer_joined").size();
  link(0).SetCut(true);
  const int64_t cut_at = run_->LastStep();
  EXPECT_TRUE(run_->WaitForStep(cut_at + 3)) << "the others do not go on without it";
  EXPECT_GE(run_->EventsNamed("peer_lost").size(), 1u);
  link(0).SetCut(false);
  EXPECT_TRUE(run_->WaitUntilRunning([&] {
    return run_->EventsNamed("peer_joined").size() > joined;
  })) << linked_[0]->process.Output();
  ExpectGoodEnd();
}

}  // namespace
}  // namespace starling
