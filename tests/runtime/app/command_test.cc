// The command as users call it, on one small run that is trained once for all tests here. Numbers,
// and replicas that die, are the business of tests/cluster.
#include <signal.h>

#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/testing/subprocess.h"

namespace starling {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

constexpr int kSteps = 4;

Finished Starling(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), STARLING_PROGRAM);
  return RunToEnd(std::move(arguments));
}

std::vector<nlohmann::json> Lines(const std::string& path) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(FileText(path));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

class CommandTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    std::string text;
    while (text.size() < 20000) text += "The quick brown fox jumps over the lazy dog. ";
    WriteFileText(folder_->path() + "/text", text);
    WriteFileText(RunFile(), "[data]\ntext = [\"" + folder_->path() +
                                 "/text\"]\n[model]\nlayers = 2\nwidth = 16\nheads = 2\n"
                                 "context = 16\n[train]\nsteps = " +
                                 std::to_string(kSteps) +
                                 "\nglobal_batch = 4\nmicrobatch = 2\neval_every = 2\n"
                                 "[swarm]\nstages = 2\n[local]\nreplicas = 1\n"
                                 "[checkpoint]\nevery = 2\n");
    trained_ = std::make_unique<Finished>(Starling({"train", RunFile(), "--run-dir", Trained()}));
  }
  static void TearDownTestSuite() {
    trained_.reset();
    folder_.reset();
  }

  static std::string RunFile() { return folder_->path() + "/small.toml"; }
  static std::string Trained() { return folder_->path() + "/run"; }
  // A copy of the trained run, to be spoiled.
  static std::string CopyOfRun(const std::string& name) {
    const std::string copy = folder_->path() + "/" + name;
    std::filesystem::copy(Trained(), copy, std::filesystem::copy_options::recursive);
    return copy;
  }

  static std::unique_ptr<TemporaryFolder> folder_;
  static std::unique_ptr<Finished> trained_;
};

std::unique_ptr<TemporaryFolder> CommandTest::folder_;
std::unique_ptr<Finished> CommandTest::trained_;

TEST_F(CommandTest, TrainSaysWhatAUserNeedsAtItsStartAndEnd) {
  ASSERT_EQ(trained_->exit_code, 0) << trained_->output << trained_->errors;
  EXPECT_THAT(trained_->output,
              AllOf(HasSubstr("run " + Trained()), HasSubstr(" parameters"),
                    HasSubstr("stage 1: layer 1"), HasSubstr("stage --join tcp://"),
                    HasSubstr("step 4/4"), HasSubstr("checkpoint saved: ")));
  EXPECT_THAT(trained_->output,
              AllOf(HasSubstr("A sample from the model"), HasSubstr("validation loss  "),
                    HasSubstr(" resume " + Trained() + " --train.steps=8"),
                    HasSubstr(" generate " + Trained())));
  EXPECT_THAT(trained_->errors, IsEmpty());
  EXPECT_THAT(
      ProcessesMentioning(
          FileText(Trained() + "/address").substr(0, FileText(Trained() + "/address").find('\n'))),
      IsEmpty());
}

TEST_F(CommandTest, RunDirectoryHoldsALineForEachStepAndTheEvents) {
  const auto metrics = Lines(Trained() + "/metrics.jsonl");
  ASSERT_EQ(metrics.size(), static_cast<size_t>(kSteps));
  for (int step = 1; step <= kSteps; ++step) {
    const nlohmann::json& line = metrics[static_cast<size_t>(step - 1)];
    EXPECT_EQ(line["step"], step);
    EXPECT_EQ(line["replicas"], nlohmann::json({1, 1}));
    EXPECT_EQ(line["tokens"], 4 * 16);
    EXPECT_EQ(line["lane_ok"], true);
  }
  int evaluations = 0;
  int hashes = 0;
  for (const nlohmann::json& event : Lines(Trained() + "/events.jsonl")) {
    if (event["event"] == "evaluated") ++evaluations;
    if (event["event"] != "state_hash") continue;
    ++hashes;
    for (const char* key : {"time", "era", "stage", "peer", "version", "hash"}) {
      EXPECT_TRUE(event.contains(key)) << event << " lacks " << key;
    }
  }
  EXPECT_EQ(evaluations, 2);
  EXPECT_GE(hashes, 2 * (kSteps - 1));  // the last ones may come when the run has ended
}

TEST_F(CommandTest, SingleProcessGivesTheSameNumbersOnTheSameData) {
  const std::string run = folder_->path() + "/single";
  const Finished end = Starling({"train", RunFile(), "--run-dir", run, "--single-process"});
  ASSERT_EQ(end.exit_code, 0) << end.errors;
  const auto swarm = Lines(Trained() + "/metrics.jsonl");
  const auto single = Lines(run + "/metrics.jsonl");
  ASSERT_EQ(single.size(), swarm.size());
  for (size_t i = 0; i < swarm.size(); ++i) {
    const double loss = swarm[i]["loss"];
    const double norm = swarm[i]["grad_norm"];
    EXPECT_NEAR(single[i]["loss"].get<double>(), loss, 1e-5 * loss);
    EXPECT_NEAR(single[i]["grad_norm"].get<double>(), norm, 1e-4 * norm);
    EXPECT_EQ(single[i]["lr"], swarm[i]["lr"]);
    EXPECT_EQ(single[i]["tokens"], swarm[i]["tokens"]);
    EXPECT_EQ(single[i]["replicas"], nlohmann::json({1}));
  }
  EXPECT_EQ(Starling({"checkpoint", "verify", run}).exit_code, 0);
}

TEST_F(CommandTest, CheckpointsAreListedAndVerified) {
  const Finished list = Starling({"checkpoint", "ls", Trained()});
  EXPECT_EQ(list.exit_code, 0);
  EXPECT_THAT(list.output, AllOf(HasSubstr("step-00000000"), HasSubstr("step-00000002"),
                                 HasSubstr("step-00000004")));
  EXPECT_EQ(Starling({"checkpoint", "verify", Trained()}).exit_code, 0);
  const std::string one = Trained() + "/checkpoints/step-00000004";
  EXPECT_THAT(Starling({"checkpoint", "verify", one}).output, HasSubstr(one + ": ok"));
}

TEST_F(CommandTest, GenerateBeginsWithThePromptAndRepeatsItself) {
  const std::vector<std::string> arguments = {"generate",   Trained(),  "--prompt",
                                              "The quick ", "--tokens", "20"};
  const Finished first = Starling(arguments);
  EXPECT_EQ(first.exit_code, 0) << first.errors;
  EXPECT_THAT(first.output, StartsWith("The quick "));
  EXPECT_EQ(first.output.size(), std::string("The quick ").size() + 20 + 1);
  EXPECT_EQ(Starling(arguments).output, first.output);
}

TEST_F(CommandTest, ConfigPrintGivesBackTheResolvedFile) {
  const Finished print = Starling({"config", "print", Trained() + "/run.toml"});
  EXPECT_EQ(print.exit_code, 0);
  EXPECT_EQ(print.output, FileText(Trained() + "/run.toml"));
  EXPECT_THAT(Starling({"config", "print", RunFile(), "--train.steps=9"}).output,
              HasSubstr("steps = 9\n"));
  EXPECT_EQ(Starling({"config", "validate", RunFile()}).exit_code, 0);
}

TEST_F(CommandTest, VersionHelpAndDoctor) {
  EXPECT_THAT(Starling({"--version"}).output, StartsWith("starling "));
  const Finished help = Starling({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, AllOf(HasSubstr("Examples:"), HasSubstr("resume")));
  const Finished doctor = Starling({"doctor"});
  EXPECT_EQ(doctor.exit_code, 0) << doctor.output;
  EXPECT_THAT(doctor.output, AllOf(HasSubstr("LibTorch"), HasSubstr("BLAS")));
}

TEST_F(CommandTest, FinishedRunIsNotResumedAndSaysHow) {
  const Finished end = Starling({"resume", Trained()});
  EXPECT_NE(end.exit_code, 0);
  EXPECT_THAT(end.errors, HasSubstr("--train.steps"));
  EXPECT_THAT(Starling({"status", Trained()}).errors, HasSubstr("starling resume " + Trained()));
}

TEST_F(CommandTest, ResumeGoesOnBehindADamagedCheckpointAndSigtermStopsItCleanly) {
  const std::string run = CopyOfRun("damaged");
  const std::string newest = run + "/checkpoints/step-00000004";
  const std::string manifest = FileText(newest + "/manifest.json");
  WriteFileText(newest + "/manifest.json", manifest.substr(0, manifest.size() / 2));
  EXPECT_NE(Starling({"checkpoint", "verify", run}).exit_code, 0);
  EXPECT_THAT(Starling({"resume", run, "--train.steps=1000000", "--model.width=32"}).errors,
              HasSubstr("model shape"));

  Subprocess resume({STARLING_PROGRAM, "resume", run, "--train.steps=1000000",
                     "--checkpoint.every=0", "--swarm.stages=1"});
  ASSERT_TRUE(resume.WaitForOutput("step       5/")) << resume.Output() << resume.Errors();
  EXPECT_THAT(resume.Output(), AllOf(HasSubstr("skipped a damaged checkpoint"), HasSubstr(newest),
                                     HasSubstr("resumed at step 2 from " + run)));
  const Finished second = Starling({"resume", run, "--train.steps=1000000"});
  EXPECT_NE(second.exit_code, 0);
  EXPECT_THAT(second.errors, HasSubstr("in use"));
  const Finished status = Starling({"status", run, "--json"});
  ASSERT_EQ(status.exit_code, 0) << status.errors;
  const auto json = nlohmann::json::parse(status.output);
  EXPECT_EQ(json["state"], "training");
  ASSERT_EQ(json["stages"].size(), 1u);
  EXPECT_EQ(json["stages"][0]["layers"], nlohmann::json({0, 2}));
  const pid_t child = json["stages"][0]["replicas"][0]["pid"];
  EXPECT_EQ(kill(child, 0), 0);
  EXPECT_THAT(Starling({"status", json["address"]}).output, HasSubstr("nothing is missing"));

  resume.Signal(SIGTERM);
  EXPECT_EQ(resume.WaitForExit(), 0) << resume.Errors();
  EXPECT_THAT(resume.Output(), HasSubstr("checkpoint saved: " + run));
  EXPECT_NE(kill(child, 0), 0);
  EXPECT_EQ(Starling({"checkpoint", "verify", run}).exit_code,
            0);  // the damaged one has been replaced
}

TEST_F(CommandTest, RepeatedInterruptAbortsAtOnceAndLeavesNoChild) {
  const std::string run = folder_->path() + "/aborted";
  Subprocess train({STARLING_PROGRAM, "train", RunFile(), "--run-dir", run, "--train.steps=1000000",
                    "--swarm.listen=tcp://127.0.0.1:*"});
  ASSERT_TRUE(train.WaitForOutput("step       3/")) << train.Output() << train.Errors();
  const auto json = nlohmann::json::parse(Starling({"status", run, "--json"}).output);
  // Stopped children make the first interrupt wait.
  for (const auto& stage : json["stages"]) {
    for (const auto& replica : stage["replicas"]) kill(replica["pid"].get<pid_t>(), SIGSTOP);
  }
  train.Signal(SIGINT);
  EXPECT_TRUE(train.WaitForOutput("again aborts at once"));
  train.Signal(SIGINT);
  EXPECT_EQ(train.WaitForExit(), 130);
  for (const auto& stage : json["stages"]) {
    for (const auto& replica : stage["replicas"]) {
      EXPECT_NE(kill(replica["pid"].get<pid_t>(), 0), 0);
    }
  }
}

}  // namespace
}  // namespace starling
