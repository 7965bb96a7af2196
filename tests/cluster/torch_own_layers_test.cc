// Layers of the user's own in real processes: TorchScript files and linked layers train in a swarm,
// through kills, restarts and joiners, to the steps of one process; what cannot be is one line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "runtime/base/rng.h"
#include "runtime/reactor/posix_disk.h"
#include "tests/cluster/cluster_testing.h"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/stages/torch_own_layers_testing.h"
#include "tests/testing/sample_file.h"

namespace starling {
namespace {

using ::testing::AllOf;
using testing::BlobOf;
using ::testing::HasSubstr;
using testing::Numbers;
using testing::Script;
using ::testing::StartsWith;
using testing::WriteTensors;

constexpr int64_t kRunSteps = 40;
constexpr int64_t kSide = 12;
constexpr int64_t kSamples = 400;

// Grey images of two kinds of stripes under noise, and which kind each is.
void WriteSamples(const std::string& path, int64_t classes = 2) {
  Rng rng(5);
  std::vector<uint8_t> inputs;
  std::vector<int64_t> targets;
  for (int64_t i = 0; i < kSamples; ++i) {
    const auto kind = static_cast<int64_t>(rng.Below(static_cast<uint64_t>(classes)));
    targets.push_back(kind);
    for (int64_t y = 0; y < kSide; ++y) {
      for (int64_t x = 0; x < kSide; ++x) {
        const int64_t along = kind == 0 ? x : y;
        inputs.push_back(static_cast<uint8_t>((along / 2 % 2) * 80 + rng.Below(120)));
      }
    }
  }
  PosixDisk disk;
  WriteTensors(disk, path,
               {{"inputs", BlobOf(inputs, DType::kU8, {kSamples, kSide, kSide})},
                {"targets", BlobOf(targets, DType::kI64, {kSamples})}});
}

Script Convolution(int64_t in, int64_t out, double salt) {
  Script script;
  script.Parameter("weight", Numbers({out, in, 3, 3}, salt))
      .Parameter("bias", Numbers({out}, salt));
  return script.Code(
      "def forward(self, x):\n"
      "  return torch.tanh(torch.conv2d(x, self.weight, self.bias, [1, 1], [1, 1]))\n");
}

// The folder of this program's runs: six layers, samples, and the run file.
class OwnLayersTest : public ::testing::Test {
 protected:
  static std::string Folder() {
    static const TemporaryFolder folder;
    static const bool made = [] {
      Make(folder.path());
      return true;
    }();
    static_cast<void>(made);
    return folder.path();
  }

  static void Make(const std::string& folder) {
    Script stem;
    stem.Parameter("weight", Numbers({4, 1, 3, 3})).Parameter("scale", Numbers({4, 1, 1}) + 1.0);
    stem.Code(
        "def forward(self, x):\n"
        "  y = torch.conv2d(x.float().unsqueeze(1) / 255.0, self.weight, None, [1, 1], [1, 1])\n"
        "  return torch.tanh(y * self.scale)\n");
    Script pool;  // nothing to learn
    pool.Code("def forward(self, x):\n  return torch.max_pool2d(x, [2, 2])\n");
    Script head;
    head.Parameter("weight", Numbers({2, 8}, 3)).Parameter("bias", Numbers({2}, 3));
    head.Code(
        "def forward(self, x):\n"
        "  return torch.mm(x.mean([2, 3]), self.weight.t()) + self.bias\n");
    WriteFileText(folder + "/stem.pt", stem.Bytes());
    WriteFileText(folder + "/body.pt", Convolution(4, 4, 1).Bytes());
    WriteFileText(folder + "/pool.pt", pool.Bytes());
    WriteFileText(folder + "/wide.pt", Convolution(4, 8, 2).Bytes());
    WriteFileText(folder + "/last.pt", Convolution(8, 8, 3).Bytes());
    WriteFileText(folder + "/head.pt", head.Bytes());
    WriteSamples(folder + "/samples.safetensors");
    WriteFileText(folder + "/run.toml", RunFile(R"("stem.pt", "body.pt", "pool.pt", "wide.pt", )"
                                                R"("last.pt", "head.pt")"));
    WriteFileText(folder + "/linked.toml",
                  RunFile(R"x("stem.pt", "conv_block(in=4, out=4)", )x"
                          R"x("conv_block(in=4, out=8, stride=2)", "head.pt")x"));
  }

  static std::string RunFile(const std::string& layers) {
    return "[model]\nlayers = [" + layers +
           "]\n[data]\nsamples = \"samples.safetensors\"\n[train]\nsteps = " +
           std::to_string(kRunSteps) +
           "\nglobal_batch = 32\nmicrobatch = 3\neval_every = 20\n"
           "[optimizer]\nlr = 3e-3\n[checkpoint]\nevery = 10\n";
  }

  static const std::map<int64_t, Json>& ReferenceOf(const std::string& name) {
    static std::map<std::string, std::map<int64_t, Json>> references;
    const auto [at, missing] = references.try_emplace(name);
    if (missing) {
      ClusterRun run(Folder() + "/reference-" + name);
      run.Train(Folder() + "/" + name + ".toml", {"--single-process"});
      run.ExpectSuccess();
      at->second = run.Steps();
      const double first = at->second.at(1).at("loss"), last = at->second.at(kRunSteps).at("loss");
      EXPECT_LT(last, 0.7 * first) << "it does not learn";
      EXPECT_GE(run.EventsNamed("evaluated").size(), 2u);
    }
    return at->second;
  }

  static Finished Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), STARLING_PROGRAM);
    return RunToEnd(std::move(arguments));
  }

  static void ExpectOneLine(const Finished& end, const std::string& says) {
    EXPECT_EQ(end.exit_code, 1) << end.output << end.errors;
    EXPECT_THAT(end.errors, AllOf(StartsWith("starling: "), HasSubstr(says)));
    EXPECT_EQ(std::count(end.errors.begin(), end.errors.end(), '\n'), 1) << end.errors;
  }
};

const std::vector<std::string> kThreeByTwo = {"--swarm.stages=3", "--local.replicas=2"};

TEST_F(OwnLayersTest, KillsLeaveEveryStepOfATorchScriptSwarmAsOneProcessTakesIt) {
  ClusterRun run(Folder() + "/killed");
  std::vector<std::string> arguments = kThreeByTwo;
  arguments.insert(arguments.end(), {"--chaos.kill_at_step=5", "--chaos.kill_every=2s"});
  run.Train(Folder() + "/run.toml", arguments);
  run.ExpectSuccess();
  ExpectSameSteps(run, ReferenceOf("run"), kRunSteps);
  ExpectOneHashPerState(run);
  EXPECT_GE(run.EventsNamed("chaos_kill").size(), 1u);
  EXPECT_GE(run.EventsNamed("peer_lost").size(), 1u);
  EXPECT_TRUE(run.Processes().empty());
  // Only names and sums are in what peers are told.
  const std::string config = FileText(run.directory() + "/run.toml");
  EXPECT_THAT(config, HasSubstr("layers = [\"stem.pt\", \"body.pt\", "));
  EXPECT_THAT(config, HasSubstr("layer_sha256 = [\""));

  ExpectOneLine(
      Run({"generate", run.directory(), "--prompt", "x"}),
      "is of a run with layers of your own: generate makes text with the built-in layers");
  ExpectOneLine(Run({"checkpoint", "export", run.directory(), "--out", Folder() + "/hf"}),
                "is of a run with layers of your own, which Hugging Face's layout has no place");
}

TEST_F(OwnLayersTest, AllKilledARunResumesInAnotherCutOnTheSameTrajectory) {
  ClusterRun run(Folder() + "/resumed");
  run.Train(Folder() + "/run.toml", kThreeByTwo);
  ASSERT_TRUE(run.WaitForStep(13)) << run.trainer().Output() << run.trainer().Errors();
  run.KillEverything();
  run.Resume({"--swarm.cuts=[3]"});
  run.ExpectSuccess();
  ExpectSameSteps(run, ReferenceOf("run"), kRunSteps);
  EXPECT_EQ(run.Metrics().back().at("replicas"), Json({2, 2}));
}

TEST_F(OwnLayersTest, LinkedLayersTrainAsInOneProcess) {
  ClusterRun run(Folder() + "/linked");
  run.Train(Folder() + "/linked.toml",
            {"--swarm.stages=2", "--local.replicas=2", "--chaos.kill_at_step=5"});
  run.ExpectSuccess();
  ExpectSameSteps(run, ReferenceOf("linked"), kRunSteps);
  ExpectOneHashPerState(run);
  EXPECT_GE(run.EventsNamed("chaos_kill").size(), 1u);
}

TEST_F(OwnLayersTest, JoinersServeFromTheirOwnCopiesAndAreRefusedWithOthers) {
  const std::string right = Folder() + "/copies", wrong = Folder() + "/others";
  for (const std::string& folder : {right, wrong}) {
    std::filesystem::create_directory(folder);
    for (const char* name : {"stem.pt", "body.pt", "pool.pt", "wide.pt", "last.pt", "head.pt"}) {
      std::filesystem::copy(Folder() + "/" + name, folder + "/" + name);
    }
  }
  WriteFileText(wrong + "/last.pt", Convolution(8, 8, 4).Bytes());
  ClusterRun run(Folder() + "/joined");
  run.Train(Folder() + "/run.toml", {"--swarm.stages=2", "--local.replicas=[1,0]"});
  const std::string address = run.Address();
  const auto join = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {STARLING_PROGRAM, "stage", "--join", address, "--threads", "1"});
    return more;
  };
  const auto expect_refusal = [&](std::vector<std::string> more, const std::string& says) {
    const Finished end = RunToEnd(join(std::move(more)));
    ExpectOneLine(end, says);
  };
  expect_refusal({"--stage", "1"}, "name the folder of your own copies with --layers-dir");
  expect_refusal(
      {"--stage", "1", "--layers-dir", wrong},
      "layer 4 (" + wrong + "/last.pt): is not the file of this run: its SHA-256 begins");
  // It might be moved: all files are looked at.
  expect_refusal({"--layers-dir", wrong}, "is not the file of this run");
  expect_refusal({"--stage", "1", "--layers-dir", Folder() + "/none"}, "layer 3: ");
  expect_refusal({"--stage", "1", "--layers-dir", right, "--device", "emulated:1ms"},
                 "this run has layers of its own");
  Subprocess joiner(join({"--stage", "1", "--layers-dir", right}));
  run.ExpectSuccess();
  EXPECT_EQ(joiner.WaitForExit().value_or(-1), 0) << joiner.Output() << joiner.Errors();
  ExpectSameSteps(run, ReferenceOf("run"), kRunSteps);
}

struct Bad {
  std::vector<std::string> arguments;
  std::string says;
};

TEST_F(OwnLayersTest, BadInputIsOneLineAndMakesNoRun) {
  const std::string folder = Folder();
  WriteFileText(folder + "/text.pt", "hello");
  const std::string whole = FileText(folder + "/stem.pt");
  WriteFileText(folder + "/cut.pt", whole.substr(0, whole.size() / 2));
  Script dropout;
  dropout.Parameter("weight", Numbers({1}));
  dropout.Code("def forward(self, x):\n  return torch.dropout(x * self.weight, 0.1, True)\n");
  WriteFileText(folder + "/dropout.pt", dropout.Bytes());
  WriteSamples(folder + "/three.safetensors", 3);
  const std::string samples = FileText(folder + "/samples.safetensors");
  WriteFileText(folder + "/cut.safetensors", samples.substr(0, 1000));
  std::filesystem::create_directory(folder + "/twin");
  WriteFileText(folder + "/twin/body.pt", Convolution(4, 4, 9).Bytes());

  const auto layers = [](const std::string& list) { return "--model.layers=[" + list + "]"; };
  const std::string one = "--swarm.stages=1";
  const std::vector<Bad> cases = {
      {{layers("\"none.pt\", \"head.pt\""), one}, "model.layers: layer 0: "},
      {{layers("\"text.pt\", \"head.pt\""), one}, "is not a TorchScript file, or damaged"},
      {{layers("\"stem.pt\", \"cut.pt\""), one}, "layer 1 ("},
      {{layers("\"stem.pt\", \"dropout.pt\", \"wide.pt\", \"head.pt\""), one},
       "/dropout.pt): draws random numbers of its own (aten::dropout)"},
      {{layers("\"stem.pt\", \"last.pt\", \"head.pt\""), one},
       "/last.pt): cannot take what comes before it, Float [2, 4, 12, 12]"},
      {{layers("\"stem.pt\", \"wide.pt\""), one},
       "the last layer (wide.pt) gives f32 [n, 8, 12, 12], but targets of shape [n] need"},
      {{"--swarm.cuts=[2,3]"}, "none of the layers 2 to 2, stage 1, has parameters"},
      {{layers("\"stem.pt\", \"body.pt\", \"twin/body.pt\", \"wide.pt\", \"head.pt\""), one},
       "another file is called body.pt too"},
      {{layers("\"stem.pt\", \"none(a=1)\", \"head.pt\""), one},
       "no layer none is linked into this program (it has conv_block)"},
      {{"--data.samples=none.safetensors"}, "data.samples: "},
      {{"--data.samples=cut.safetensors"}, "data.samples: "},
      {{"--data.samples=stem.pt"}, "data.samples: "},
      {{"--data.samples=three.safetensors"}, ", but the last layer has 2 classes"},
      {{"--train.global_batch=1000"}, "samples to train on are too few"},
      {{"--data.samples="}, "data.text"},
  };
  for (const Bad& bad : cases) {
    for (const bool single : {true, false}) {
      std::vector<std::string> arguments = {"train", folder + "/run.toml", "--run-dir",
                                            folder + "/bad"};
      arguments.insert(arguments.end(), bad.arguments.begin(), bad.arguments.end());
      if (single) arguments.push_back("--single-process");
      ExpectOneLine(Run(arguments), bad.says);
      EXPECT_FALSE(std::filesystem::exists(folder + "/bad")) << bad.says;
      if (single && &bad != &cases.front()) break;  // both programs plan alike
    }
  }
}

TEST_F(OwnLayersTest, ExampleForPythonTrainsAndItsParametersGoBack) {
  const std::string python = STARLING_PYTHON3;
  if (python.empty() || RunToEnd({python, "-c", "import torch"}).exit_code != 0) {
    GTEST_SKIP() << "needs PyTorch: apt-get install python3-torch";
  }
  const std::string script = std::string(STARLING_SOURCE_DIR) + "/examples/own_layers/export.py";
  const std::string folder = Folder() + "/example";
  const Finished made = RunToEnd({python, script, folder});
  ASSERT_EQ(made.exit_code, 0) << made.errors;
  const std::vector<std::string> short_run = {"--train.steps=12", "--train.eval_every=6",
                                              "--checkpoint.every=6", "--chaos.kill_at_step=4"};
  ClusterRun run(folder + "/run"), single(folder + "/single"), linked(folder + "/linked");
  run.Train(folder + "/images.toml", short_run);
  run.ExpectSuccess();
  std::vector<std::string> alone = short_run;
  alone.push_back("--single-process");
  single.Train(folder + "/images.toml", alone);
  single.ExpectSuccess();
  ExpectSameSteps(run, single.Steps(), 12);
  EXPECT_GE(run.EventsNamed("chaos_kill").size(), 1u);
  linked.Train(folder + "/linked.toml", alone);
  linked.ExpectSuccess();
  const Finished check = RunToEnd({python, script, folder, "--check", run.directory()});
  EXPECT_EQ(check.exit_code, 0) << check.errors;
  EXPECT_THAT(check.output, HasSubstr("step-00000012: "));
}

}  // namespace
}  // namespace starling
