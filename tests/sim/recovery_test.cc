// Recovery costs the lost work and nothing more: a death of each role in each phase, two at once,
// full logs, slow replicas, and messages that are lost without a death.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/wire/wire.h"
#include "tests/sim/swarm_testing.h"

namespace starling::sim {
namespace {

constexpr Step kStep{3};  // in which things happen

SwarmOptions WithoutEvaluation(uint32_t stages = 3, uint32_t replicas = 2) {
  SwarmOptions options = Calm(stages, replicas);
  options.eval_every = 0;
  return options;
}

uint32_t Replayed(const SwarmWorld& swarm) {
  uint32_t replayed = 0;
  for (const StepReport& step : swarm.steps()) replayed += step.replayed;
  return replayed;
}

// Everything that is said, and what is to happen then.
class Watch {
 public:
  explicit Watch(SwarmWorld* swarm) : swarm_(swarm) {
    swarm->world().network().SetTap([this](const PacketInfo& packet) {
      const auto message = DecodeMessage(packet.packet, WireLimits());
      if (!message.ok()) return;
      if (const auto* forward = std::get_if<Forward>(&message->body)) {
        if (forward->work.id.step == kStep)
          forwards_[message->request] = {packet.to, forward->work.id.index};
      } else if (const auto forward = forwards_.find(message->reply_to);
                 forward != forwards_.end()) {
        accepted_[forward->second.first].insert(forward->second.second);
      }
      if (saw_) saw_(packet.from, packet.to, *message);
    });
  }
  // The microbatches of kStep that `node` has accepted.
  size_t Accepted(NodeId node) { return accepted_[node].size(); }
  void OnMessage(std::function<void(NodeId from, NodeId to, const Message&)> saw) {
    saw_ = std::move(saw);
  }
  // The first time `node` has run this operation in kStep.
  void OnOperation(NodeId node, std::string operation, std::function<void()> then) {
    auto armed = std::make_shared<bool>(true);
    swarm_->world().faults(node).fail = [armed, operation, then](const char* what, StageId,
                                                                 const WorkId& work) {
      if (*armed && operation == what && work.id.step == kStep) {
        *armed = false;
        then();
      }
      return absl::OkStatus();
    };
  }

 private:
  SwarmWorld* const swarm_;
  std::map<uint64_t, std::pair<NodeId, uint32_t>> forwards_;  // by request
  std::map<NodeId, std::set<uint32_t>> accepted_;
  std::function<void(NodeId, NodeId, const Message&)> saw_;
};

enum class Phase { kQueued, kForward, kBetween, kBackward, kAdded, kSealed };
constexpr std::pair<Phase, const char*> kPhases[] = {
    {Phase::kQueued, "queued"},
    {Phase::kForward, "in forward"},
    {Phase::kBetween, "between forward and backward"},
    {Phase::kBackward, "in backward"},
    {Phase::kAdded, "after adding"},
    {Phase::kSealed, "sealed"}};

// `then` happens once `victim` is in this phase of kStep.
void When(SwarmWorld& swarm, Watch& watch, NodeId victim, Phase phase, std::function<void()> then) {
  const auto later = [&swarm, then](absl::Duration delay) {
    return [&swarm, then, delay] { swarm.world().At(delay, then); };
  };
  switch (phase) {
    case Phase::kQueued: {
      auto armed = std::make_shared<bool>(true);
      watch.OnMessage([&watch, armed, victim, soon = later(absl::Milliseconds(3))](
                          NodeId, NodeId to, const Message&) {
        if (!*armed || to != victim || watch.Accepted(victim) < 2) return;
        *armed = false;
        soon();
      });
      return;
    }
    case Phase::kForward:
      return watch.OnOperation(victim, "forward", later(absl::ZeroDuration()));
    case Phase::kBetween:
      return watch.OnOperation(victim, "forward", later(absl::Milliseconds(1)));
    case Phase::kBackward:
      return watch.OnOperation(victim, "backward", later(absl::ZeroDuration()));
    case Phase::kAdded:
      return watch.OnOperation(victim, "backward", later(absl::Microseconds(1500)));
    case Phase::kSealed: {
      auto armed = std::make_shared<bool>(true);
      watch.OnMessage([armed, victim, soon = later(absl::ZeroDuration())](NodeId from, NodeId,
                                                                          const Message& message) {
        const auto* sealed = std::get_if<Sealed>(&message.body);
        if (!*armed || from != victim || sealed == nullptr || sealed->step != kStep) return;
        *armed = false;
        soon();
      });
      return;
    }
  }
}

// A death in `phase` at `stage`: the lost pairs are what the dead had accepted, and no more.
void ExpectExactRecovery(uint32_t stages, uint32_t stage, Phase phase, const std::string& what) {
  SwarmWorld swarm(WithoutEvaluation(stages));
  Watch watch(&swarm);
  const NodeId victim = swarm.peer_node(stage, 1);
  bool died = false;
  When(swarm, watch, victim, phase, [&] {
    died = true;
    swarm.world().Crash(victim);
    swarm.world().Restart(victim, absl::Seconds(20), true);
  });
  ExpectGoodEnd(swarm, what);
  ASSERT_TRUE(died) << what;
  EXPECT_EQ(Replayed(swarm), watch.Accepted(victim)) << what << "\n" << swarm.Report();
  EXPECT_GT(watch.Accepted(victim), 0u) << what;
  EXPECT_EQ(swarm.checkers().count("segment_voided"), 0u) << what;
  EXPECT_EQ(swarm.checkers().count("contested"), 0u) << what;
}

TEST(RecoveryTest, DeathOfAnyRoleInAnyPhaseCostsExactlyWhatTheDeadHad) {
  for (const auto& [phase, name] : kPhases) {
    for (uint32_t stage : {0u, 1u, 2u}) {
      ExpectExactRecovery(3, stage, phase, absl::StrCat("stage ", stage, " of 3, ", name));
    }
  }
}

TEST(RecoveryTest, DeathInAPipelineOfOneAndOfFiveStagesCostsExactlyWhatTheDeadHad) {
  for (const auto& [phase, name] : kPhases) {
    ExpectExactRecovery(1, 0, phase, absl::StrCat("the only stage, ", name));
    ExpectExactRecovery(5, 3, phase, absl::StrCat("stage 3 of 5, ", name));
  }
}

void ExpectTwoDeathsEndWell(uint32_t replicas, std::pair<uint32_t, uint32_t> first,
                            std::pair<uint32_t, uint32_t> second, const std::string& what) {
  for (const auto& [phase, name] : kPhases) {
    SwarmWorld swarm(WithoutEvaluation(3, replicas));
    Watch watch(&swarm);
    const NodeId a = swarm.peer_node(first.first, first.second);
    const NodeId b = swarm.peer_node(second.first, second.second);
    When(swarm, watch, a, phase, [&] {
      for (NodeId victim : {a, b}) {
        swarm.world().Crash(victim);
        swarm.world().Restart(victim, absl::Seconds(20), true);
      }
    });
    ExpectGoodEnd(swarm, absl::StrCat(what, ", ", name));
    EXPECT_EQ(swarm.checkers().count("peer_lost"), 2u) << what << ", " << name;
    EXPECT_LE(Replayed(swarm), watch.Accepted(a) + watch.Accepted(b)) << what << ", " << name;
    EXPECT_EQ(swarm.checkers().count("era_began"), 1u);
  }
}

TEST(RecoveryTest, TwoDeathsAtOnceInOneStageCostWhatTheyHad) {
  ExpectTwoDeathsEndWell(3, {1, 0}, {1, 1}, "two of stage 1");
  ExpectTwoDeathsEndWell(3, {2, 0}, {2, 2}, "two of the last stage");
}

TEST(RecoveryTest, TwoDeathsAtOnceInNeighbouringStagesCostWhatTheyHad) {
  ExpectTwoDeathsEndWell(2, {0, 1}, {1, 1}, "stages 0 and 1");
  ExpectTwoDeathsEndWell(2, {1, 1}, {2, 1}, "stages 1 and 2");
}

TEST(RecoveryTest, ReplacementDiesInItsTurn) {
  SwarmWorld swarm(WithoutEvaluation(3, 3));
  Watch watch(&swarm);
  const NodeId first = swarm.peer_node(1, 0);
  const NodeId second = swarm.peer_node(1, 1);
  When(swarm, watch, first, Phase::kBetween, [&] {
    swarm.world().Crash(first);
    swarm.world().Restart(first, absl::Seconds(20), true);
    watch.OnMessage([&](NodeId, NodeId to, const Message& message) {
      const auto* forward = std::get_if<Forward>(&message.body);
      if (forward == nullptr || !forward->replay || to != second) return;
      swarm.world().At(absl::Milliseconds(3), [&] {
        swarm.world().Crash(second);
        swarm.world().Restart(second, absl::Seconds(20), true);
      });
      watch.OnMessage(nullptr);
    });
  });
  ExpectGoodEnd(swarm, "the replacement dies");
  EXPECT_EQ(swarm.checkers().count("peer_lost"), 2u);
  EXPECT_EQ(swarm.checkers().count("segment_voided"), 0u);
}

TEST(RecoveryTest, WithoutLogsLostWorkGoesDownTheWholePipeline) {
  for (const auto& [phase, name] : kPhases) {
    SwarmOptions options = WithoutEvaluation();
    options.log_budget = 0;
    SwarmWorld swarm(options);
    Watch watch(&swarm);
    const NodeId victim = swarm.peer_node(1, 1);
    When(swarm, watch, victim, phase, [&] {
      swarm.world().Crash(victim);
      swarm.world().Restart(victim, absl::Seconds(20), true);
    });
    ExpectGoodEnd(swarm, name);
    EXPECT_GE(Replayed(swarm), watch.Accepted(victim)) << name;
    EXPECT_EQ(swarm.checkers().count("segment_voided"), 0u) << name;
  }
}

// --- slow, silent, unreachable ---------------------------------------------------------

TEST(RecoveryTest, StalledReplicaIsWorkedAroundAndServesOnWhenItReturns) {
  for (uint32_t stage : {0u, 1u, 2u}) {
    SwarmOptions options = WithoutEvaluation();
    options.dead_after = absl::Seconds(60);
    options.steps = 40;
    SwarmWorld swarm(options);
    Watch watch(&swarm);
    const NodeId victim = swarm.peer_node(stage, 1);
    absl::Time stalled;
    When(swarm, watch, victim, Phase::kBetween, [&] {
      stalled = swarm.world().Now();
      swarm.world().Stall(victim, absl::Seconds(20));
    });
    ExpectGoodEnd(swarm, absl::StrCat("stage ", stage));
    EXPECT_GE(swarm.checkers().count("contested"), 1u) << swarm.Report();
    EXPECT_EQ(swarm.checkers().count("segment_voided"), 0u) << swarm.Report();
  }
}

TEST(RecoveryTest, ReplicaWhoseDeviceHangsWhileItsHeartGoesOnHoldsNoStepOpenForEver) {
  for (uint32_t stage : {0u, 1u, 2u}) {
    SwarmWorld swarm(WithoutEvaluation());
    Watch watch(&swarm);
    const NodeId victim = swarm.peer_node(stage, 1);
    When(swarm, watch, victim, Phase::kBetween,
         [&] { swarm.world().faults(victim).slowdown = 1e9; });
    ExpectGoodEnd(swarm, absl::StrCat("stage ", stage));
    EXPECT_EQ(swarm.steps().size(), 6u);
    EXPECT_LT(swarm.world().Now() - swarm.world().start(), absl::Minutes(5));
  }
}

TEST(RecoveryTest, SlowReplicaThatIsAliveIsHelped) {
  SwarmWorld swarm(WithoutEvaluation());
  Watch watch(&swarm);
  const NodeId victim = swarm.peer_node(1, 1);
  When(swarm, watch, victim, Phase::kBetween,
       [&] { swarm.world().faults(victim).slowdown = 2000; });
  ExpectGoodEnd(swarm, "2000 times slower");
  EXPECT_GE(swarm.checkers().count("contested"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("segment_voided"), 0u) << swarm.Report();
}

TEST(RecoveryTest, ReplicaThatItsNeighboursCannotReachHoldsNoStepOpenForEver) {
  for (const bool gradients : {false, true}) {
    SwarmWorld swarm(WithoutEvaluation());
    Watch watch(&swarm);
    const NodeId victim = swarm.peer_node(1, 1);
    When(swarm, watch, victim, Phase::kBetween, [&] {
      for (uint32_t replica : {0u, 1u}) {
        const NodeId neighbour = swarm.peer_node(0, replica);
        if (gradients) {
          swarm.world().network().Partition(victim, neighbour);
        } else {
          swarm.world().network().Partition(neighbour, victim);
        }
      }
    });
    ExpectGoodEnd(swarm, gradients ? "gradients do not arrive" : "activations do not arrive");
    EXPECT_LT(swarm.world().Now() - swarm.world().start(), absl::Minutes(8));
  }
}

// Drops the first message in kStep for which `matches`.
void ExpectLossIsHarmless(const std::string& what,
                          const std::function<bool(const Message&)>& matches) {
  SwarmWorld swarm(WithoutEvaluation());
  bool dropped = false;
  swarm.world().network().SetFilter([&](const PacketInfo& packet) {
    PacketFate fate;
    const auto message = DecodeMessage(packet.packet, WireLimits());
    if (!dropped && message.ok() && matches(*message)) dropped = fate.drop = true;
    return fate;
  });
  ExpectGoodEnd(swarm, what);
  EXPECT_TRUE(dropped) << what;
  EXPECT_EQ(Replayed(swarm), 0u) << what;
  EXPECT_EQ(swarm.checkers().count("peer_lost"), 0u) << what;
}

TEST(RecoveryTest, LostNoticeGradientOrActivationWithoutADeathIsRepeatedAndNothingIsLost) {
  ExpectLossIsHarmless("a notice", [](const Message& message) {
    const auto* notice = std::get_if<Notice>(&message.body);
    return notice != nullptr && notice->work.id.step == kStep;
  });
  ExpectLossIsHarmless("a gradient", [](const Message& message) {
    const auto* backward = std::get_if<Backward>(&message.body);
    return backward != nullptr && backward->work.id.step == kStep;
  });
  ExpectLossIsHarmless("an activation", [](const Message& message) {
    const auto* forward = std::get_if<Forward>(&message.body);
    return forward != nullptr && forward->work.id.step == kStep;
  });
}

}  // namespace
}  // namespace starling::sim
