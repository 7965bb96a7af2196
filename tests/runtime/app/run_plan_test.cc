#include "runtime/app/run_plan.h"

#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/config/run_file.h"
#include "runtime/reactor/posix_disk.h"
#include "runtime/trainer/decision_json.h"
#include "stages/initial_state.h"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/testing/subprocess.h"

namespace starling {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class RunPlanTest : public ::testing::Test {
 protected:
  RunPlanTest() : run_(folder_.path() + "/run"), file_(folder_.path() + "/run.toml") {
    WriteText("a little text. ");
    WriteFileText(file_,
                  "[model]\nlayers = 2\nwidth = 8\nheads = 2\ncontext = 8\n"
                  "[data]\ntext = [\"" +
                      folder_.path() +
                      "/text\"]\n"
                      "[train]\nsteps = 10\nglobal_batch = 4\nmicrobatch = 2\n"
                      "[swarm]\nstages = 2\n[checkpoint]\nevery = 5\n");
  }

  void WriteText(const std::string& piece) {
    std::string text;
    while (text.size() < 4000) text += piece;
    WriteFileText(folder_.path() + "/text", text);
  }
  absl::StatusOr<RunPlan> Plan() { return PlanNewRun(disk_, file_, {}, run_); }
  // The plan holds the lock of the run.
  RunPlan Make() {
    RunPlan plan = *Plan();
    const absl::Status status = MakeRunDirectory(disk_, &plan);
    EXPECT_TRUE(status.ok()) << status;
    return plan;
  }
  absl::StatusOr<RunPlan> Reopen(const std::vector<std::string>& overrides = {},
                                 bool accept_new_text = false) {
    return ReopenRun(disk_, run_, overrides, accept_new_text);
  }

  TemporaryFolder folder_;
  PosixDisk disk_;
  const std::string run_;
  const std::string file_;
};

TEST_F(RunPlanTest, PlanningMakesNothing) {
  ASSERT_TRUE(Plan().ok());
  EXPECT_FALSE(disk_.Exists(run_));
}

TEST_F(RunPlanTest, NewDirectoryHoldsVersionZeroAndTheResolvedFile) {
  const RunPlan plan = Make();
  EXPECT_EQ(plan.start.name, "step-00000000");
  EXPECT_EQ(FileText(run_ + "/run.toml"), ToToml(plan.config));
  EXPECT_TRUE(Verify(disk_, plan.start)->ok());
  EXPECT_NE(plan.run, RunId{0});
}

TEST_F(RunPlanTest, ExistingDirectoryIsRefusedAndResumeNamed) {
  Make();
  EXPECT_EQ(Plan().status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(Plan().status().message()), HasSubstr("starling resume " + run_));
}

TEST_F(RunPlanTest, DirectoryThatCannotBeFilledIsRemovedAgain) {
  RunPlan plan = *Plan();
  WriteFileText(run_, "in the way");
  EXPECT_FALSE(MakeRunDirectory(disk_, &plan).ok());
}

TEST_F(RunPlanTest, RelativeTextIsFoundFromElsewhereLater) {
  WriteFileText(file_,
                "[data]\ntext = [\"text*\"]\nvalidation = 0.5\n[model]\ncontext = 8\n"
                "[train]\nglobal_batch = 1\nmicrobatch = 1\n");
  const std::filesystem::path here = std::filesystem::current_path();
  std::filesystem::current_path(folder_.path());
  const auto plan = Plan();
  std::filesystem::current_path(here);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->config.data.text, ElementsAre(HasSubstr(folder_.path())));
}

TEST_F(RunPlanTest, ReopenedRunHasGreaterEpochAndEraAndTheSameName) {
  RunPlan made = Make();
  made.lock.reset();
  const auto plan = Reopen({"train.steps=20", "swarm.stages=1"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->run, made.run);
  EXPECT_EQ(plan->epoch, Epoch{2});
  EXPECT_EQ(plan->era, Era{1});
  EXPECT_EQ(plan->config.train.steps, 20);
  EXPECT_EQ(plan->layouts.size(), 1u);  // the same checkpoint under another cut
}

// Where a replica would make its device anew, what it holds is lost: nobody is asked.
TEST_F(RunPlanTest, LiveReplicasAreAskedUnlessTheyWouldNeedOtherDevices) {
  Make().lock.reset();
  Decision joins;
  joins.number = 1;
  joins.epoch = Epoch{1};
  joins.era = Era{1};
  joins.joins = {Member{Incarnation{Epoch{1}, 1}, PeerId{7}, StageId{0}, {"tcp://a", "tcp://b"}}};
  Decision step = joins;
  step.number = 2;
  step.joins.clear();
  step.step = Step{1};
  const std::string log = run_ + "/decisions.jsonl";
  WriteFileText(log, *disk_.Read(log) + ToJsonLine(joins) + "\n" + ToJsonLine(step) + "\n");
  EXPECT_TRUE(Reopen()->live.has_value());
  EXPECT_TRUE(Reopen({"train.steps=20"})->live.has_value());
  for (const char* other :
       {"train.delayed_commit=true", "train.seed=2", "train.precision=bf16", "swarm.stages=1"}) {
    EXPECT_FALSE(Reopen({other})->live.has_value()) << other;
  }
}

TEST_F(RunPlanTest, RunInUseIsUnavailable) {
  const RunPlan plan = Make();
  const absl::Status status = Reopen().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("in use"));
}

TEST_F(RunPlanTest, OtherModelShapeIsInvalid) {
  Make().lock.reset();
  EXPECT_EQ(Reopen({"model.width=16"}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(RunPlanTest, ChangedTextIsRefusedUnlessAccepted) {
  Make().lock.reset();
  WriteText("another text, that was not there. ");
  EXPECT_EQ(Reopen().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Reopen({}, true).ok());
}

TEST_F(RunPlanTest, DamagedOnlyCheckpointIsDataLossThatNamesIt) {
  RunPlan plan = Make();
  plan.lock.reset();
  WriteFileText(plan.start.path + "/manifest.json", "{}");
  const absl::Status status = Reopen().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(plan.start.path));
}

TEST_F(RunPlanTest, DamagedNewestCheckpointGivesWayToTheOneBefore) {
  RunPlan plan = Make();
  plan.lock.reset();
  const std::string newer = run_ + "/checkpoints/step-00000005";
  std::filesystem::copy(plan.start.path, newer);
  WriteFileText(newer + "/manifest.json", "{}");
  const auto reopened = Reopen();
  ASSERT_TRUE(reopened.ok()) << reopened.status();
  EXPECT_EQ(reopened->start.version, Version{0});
  EXPECT_THAT(reopened->notices, ElementsAre(HasSubstr("step-00000005")));

  // A damaged one that counts among the newest to keep would cost a whole one.
  ASSERT_TRUE(SetDamagedAside(disk_, *reopened).ok());
  CheckpointStore store(run_ + "/checkpoints");
  ASSERT_TRUE(store.Prune(disk_, 1).ok());
  EXPECT_EQ(store.Newest(disk_)->version, Version{0});
  EXPECT_TRUE(disk_.Exists(run_ + "/checkpoints/damaged-step-00000005"));
}

TEST_F(RunPlanTest, CheckpointOfAnotherRunIsRefusedByName) {
  RunPlan plan = Make();
  plan.lock.reset();
  CheckpointMeta foreign = plan.start_meta;
  foreign.run = RunId{Value(plan.run) ^ 2};
  foreign.version = Version{5};
  std::vector<StagePart> parts;
  for (const StageLayout& layout : plan.layouts) parts.push_back({layout, InitialState(layout, 1)});
  CheckpointStore store(run_ + "/checkpoints");
  ASSERT_TRUE(store.Save(disk_, foreign, parts).ok());
  const absl::Status status = Reopen().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(run_ + "/checkpoints/step-00000005 is of another run"),
                    HasSubstr("move it away")));
  // Moved away, the run goes on from its own.
  ASSERT_TRUE(disk_.RemoveTree(run_ + "/checkpoints/step-00000005").ok());
  EXPECT_TRUE(Reopen().ok());
}

TEST_F(RunPlanTest, FolderThatIsNoRunIsNotFound) {
  EXPECT_EQ(ReopenRun(disk_, folder_.path() + "/none", {}, false).status().code(),
            absl::StatusCode::kNotFound);
  std::filesystem::create_directory(run_);
  EXPECT_EQ(Reopen().status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace starling
