// checkpoint.store = "shared": replicas write their parts of a checkpoint themselves. Writers die
// at every write, the trainer before it publishes, the disk is full, a replica's disk is another.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint_store.h"
#include "runtime/wire/wire.h"
#include "tests/sim/swarm_testing.h"

namespace starling::sim {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kCheckpoints[] = "run/checkpoints";

SwarmOptions Shared(uint32_t stages = 2, uint32_t replicas = 2) {
  SwarmOptions options = Calm(stages, replicas);
  options.shared_store = true;
  return options;
}

// How often messages of this kind were sent.
std::shared_ptr<uint64_t> CountSent(SwarmWorld& swarm, const std::string& kind) {
  auto count = std::make_shared<uint64_t>(0);
  swarm.world().network().SetTap([count, kind](const PacketInfo& packet) {
    const auto message = DecodeMessage(packet.packet, WireLimits());
    if (message.ok() && KindOf(*message) == kind) ++*count;
  });
  return count;
}

TEST(SharedStoreTest, ReplicasWriteEveryCheckpointAndNoStateTravelsToTheTrainer) {
  SwarmWorld swarm(Shared(3, 2));
  RunTo(swarm, 1);
  const auto chunks = CountSent(swarm, "Chunk");
  ExpectSixSteps(swarm);
  EXPECT_EQ(swarm.checkers().count("checkpoint_saved"), 3u) << swarm.Report();
  EXPECT_EQ(*chunks, 0u);
}

TEST(SharedStoreTest, WriterDiesAtEveryWriteAndAnotherWritesThePartAnew) {
  int died = 0;
  for (uint64_t changes = 0; changes < 60; ++changes) {
    for (uint32_t replica : {0u, 1u}) {
      SwarmWorld swarm(Shared());
      RunTo(swarm, 1);
      swarm.KillAsItWrites(swarm.peer_node(1, replica), changes);
      ExpectSixSteps(swarm, absl::StrCat("replica ", replica, " after ", changes, " changes"));
      EXPECT_EQ(swarm.checkers().count("checkpoint_saved"), 3u) << swarm.Report();
      EXPECT_EQ(swarm.checkers().count("era_began"), 1u) << swarm.Report();
      died += static_cast<int>(swarm.checkers().count("peer_lost"));
    }
  }
  EXPECT_GT(died, 40);
}

TEST(SharedStoreTest, OnlyReplicaOfAStageDiesAtEveryWriteAndEveryoneReturnsToAWholeCheckpoint) {
  int died = 0;
  for (uint64_t changes = 0; changes < 40; ++changes) {
    SwarmWorld swarm(Shared(2, 1));
    RunTo(swarm, 1);
    swarm.KillAsItWrites(swarm.peer_node(1, 0), changes);
    ExpectSixSteps(swarm, absl::StrCat("after ", changes, " changes"));
    died += static_cast<int>(swarm.checkers().count("peer_lost"));
  }
  EXPECT_GT(died, 20);
}

TEST(SharedStoreTest, TrainerDiesBeforeItPublishesAndTheNextOneRemovesWhatIsLeft) {
  for (int at_ms = 0; at_ms < 200; at_ms += 4) {
    for (const bool power_cut : {false, true}) {
      SwarmOptions options = Shared();
      options.checkpoint_every = 1;
      options.world.disk_delay = absl::Milliseconds(30);
      SwarmWorld swarm(options);
      RunTo(swarm, 2);
      swarm.world().At(absl::Milliseconds(at_ms), [&] {
        swarm.RestartTrainer(absl::Milliseconds(200), {false, power_cut, false});
      });
      const std::string what = absl::StrCat(at_ms, " ms, power cut ", power_cut);
      ExpectSixSteps(swarm, what);
      EXPECT_EQ(swarm.checkers().count("era_began"), 1u) << what << swarm.Report();
      CheckpointStore store(kCheckpoints);
      const auto leftovers = store.Leftovers(swarm.world().disk(swarm.trainer_node()));
      ASSERT_TRUE(leftovers.ok());
      EXPECT_THAT(*leftovers, IsEmpty()) << what;
    }
  }
}

TEST(SharedStoreTest, DiskIsFullAtTheReplicasAndTheEventNamesOneAndTrainingGoesOn) {
  SwarmOptions options = Shared();
  options.steps = 12;
  options.checkpoint_every = 1;
  SwarmWorld swarm(options);
  RunTo(swarm, 2);
  SimDisk& disk = swarm.world().disk(swarm.trainer_node());
  disk.SetBudget(disk.used_bytes() + 500, kCheckpoints);
  RunTo(swarm, 6);
  EXPECT_GE(swarm.checkers().count("checkpoint_failed"), 2u) << swarm.Report();
  EXPECT_THAT(swarm.Report(),
              ContainsRegex("checkpoint_failed.*replica [0-9.]+ of stage .*no space left"));
  disk.LiftBudget();
  ExpectGoodEnd(swarm);
  EXPECT_GE(swarm.checkers().count("checkpoint_saved"), 4u) << swarm.Report();
}

TEST(SharedStoreTest, ReplicaWithoutTheFolderRefusesAndTheEventNamesItAndTrainingGoesOn) {
  SwarmOptions options = Shared();
  options.stray = SwarmOptions::Stray::kOwnDisk;
  SwarmWorld swarm(options);
  RunTo(swarm, 6);
  swarm.RunToEnd();
  EXPECT_EQ(swarm.checkers().count("checkpoint_saved"), 0u) << swarm.Report();
  EXPECT_THAT(swarm.Report(),
              ContainsRegex("checkpoint_failed.*replica [0-9.]+ of stage 0 cannot: .*does not "
                            "exist here"));
  // The last one counts: a run whose result is not saved does not end well.
  EXPECT_FALSE(swarm.checkers().ended_well());
}

TEST(SharedStoreTest, ReplicaThatWritesToAnotherDiskIsFoundOutByNameAndNothingIsPublished) {
  SwarmOptions options = Shared();
  options.stray = SwarmOptions::Stray::kOwnDiskWithSameFolders;
  SwarmWorld swarm(options);
  RunTo(swarm, 6);
  swarm.RunToEnd();
  EXPECT_EQ(swarm.checkers().count("checkpoint_saved"), 0u) << swarm.Report();
  EXPECT_THAT(swarm.Report(), ContainsRegex("checkpoint_failed.*replica [0-9.]+ of stage 0 says "
                                            "that its part is written, but it is not to be seen"));
  EXPECT_THAT(swarm.Report(), HasSubstr("parameters-00000.safetensors"));
  CheckpointStore store(kCheckpoints);
  const auto newest = store.Newest(swarm.world().disk(swarm.trainer_node()));
  ASSERT_TRUE(newest.ok()) << newest.status();
  EXPECT_EQ(Value(newest->version), 0u);
}

// All have gone on to the next step when the writer dies: the one beside it held a snapshot too.
TEST(SharedStoreTest, WriterDiesWhenItsStageIsVersionsFurtherAndTheOldVersionIsSavedAllTheSame) {
  SwarmOptions options = Shared();
  options.world.disk_delay = absl::Milliseconds(500);  // the file threads are far behind
  options.steps = 20;
  options.checkpoint_every = 10;
  SwarmWorld swarm(options);
  RunTo(swarm, 9);
  swarm.KillAsItWrites(swarm.peer_node(0, 0), 5);
  swarm.KillAsItWrites(swarm.peer_node(1, 0), 9);
  RunTo(swarm, 20);
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.checkers().count("checkpoint_failed"), 0u) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("checkpoint_saved"), 2u) << swarm.Report();
  EXPECT_GE(swarm.checkers().count("peer_lost"), 1u) << swarm.Report();
}

}  // namespace
}  // namespace starling::sim
