// A run that was saved at step 60 goes on with other cuts and other numbers of replicas, to step
// 120, as the one process does that went there at once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "checkpoint/safetensors.h"
#include "runtime/reactor/posix_disk.h"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/testing/subprocess.h"

namespace starling {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSaved = 60;
constexpr int64_t kSteps = 120;
constexpr int64_t kBatch = 8;
constexpr char kRunFile[] = R"(
[model]
layers = 4
width = 32
heads = 2
context = 32
dropout = 0.1
[train]
steps = 120
global_batch = 8
microbatch = 2
eval_every = 0
[optimizer]
lr = 1e-3
[checkpoint]
every = 60
keep = 9
)";

struct Shape {
  const char* name;
  std::vector<std::string> arguments;
};

void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

// By step; of a step that stands twice the later line counts.
std::map<int64_t, nlohmann::json> Metrics(const std::string& run) {
  std::map<int64_t, nlohmann::json> lines;
  std::istringstream text(FileText(run + "/metrics.jsonl"));
  for (std::string line; std::getline(text, line);) {
    nlohmann::json json = nlohmann::json::parse(line);
    const int64_t step = json.at("step");
    lines[step] = std::move(json);
  }
  return lines;
}

// The run in one process, made once, and copied for each shape.
class ResumeShapeTest : public ::testing::TestWithParam<Shape> {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    std::string text;
    for (int i = 0; text.size() < 40000; ++i) {
      text += "Line " + std::to_string(i * i % 977) + " of the quick brown fox.\n";
    }
    WriteFileText(folder_->path() + "/text", text);
    WriteFileText(folder_->path() + "/run.toml",
                  "[data]\ntext = [\"" + folder_->path() + "/text\"]\n" + kRunFile);
    const Finished end = RunToEnd({STARLING_PROGRAM, "train", folder_->path() + "/run.toml",
                                   "--run-dir", Reference(), "--single-process"});
    ASSERT_EQ(end.exit_code, 0) << end.output << end.errors;
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::string Reference() { return folder_->path() + "/reference"; }
  static std::string CheckpointOf(const std::string& run, int64_t step) {
    return run + "/checkpoints/" + CheckpointName(static_cast<Version>(step));
  }

  // All parameters of a checkpoint, by name.
  static std::map<std::string, std::vector<float>> Parameters(const std::string& path) {
    PosixDisk disk;
    std::map<std::string, std::vector<float>> parameters;
    const auto names = disk.List(path);
    EXPECT_TRUE(names.ok()) << names.status();
    for (const std::string& name : names.value_or(std::vector<std::string>())) {
      if (name.rfind("parameters-", 0) != 0) continue;
      const auto file = SafetensorsFile::Open(disk, path + "/" + name);
      EXPECT_TRUE(file.ok()) << file.status();
      for (const TensorEntry& entry : file->tensors()) {
        const Blob tensor = file->Tensor(entry);
        const auto values = tensor.As<float>();
        parameters[entry.name].assign(values.begin(), values.end());
      }
    }
    return parameters;
  }

  static std::unique_ptr<TemporaryFolder> folder_;
};

std::unique_ptr<TemporaryFolder> ResumeShapeTest::folder_;

TEST_P(ResumeShapeTest, TakesTheStepsThatOneProcessTook) {
  const std::string run = folder_->path() + "/" + GetParam().name;
  std::filesystem::copy(Reference(), run, std::filesystem::copy_options::recursive);
  std::filesystem::remove_all(CheckpointOf(run, kSteps));
  std::vector<std::string> arguments = {STARLING_PROGRAM, "resume", run};
  arguments.insert(arguments.end(), GetParam().arguments.begin(), GetParam().arguments.end());
  const Finished end = RunToEnd(arguments);
  ASSERT_EQ(end.exit_code, 0) << end.output << end.errors;
  EXPECT_THAT(end.output, HasSubstr("resumed at step 60 from " + CheckpointOf(run, kSaved) +
                                    ", data position " + std::to_string(kSaved * kBatch) + "\n"));

  const auto reference = Metrics(Reference());
  const auto resumed = Metrics(run);
  for (int64_t step = kSaved + 1; step <= kSteps; ++step) {
    ASSERT_EQ(resumed.count(step), 1u) << step;
    const double loss = reference.at(step).at("loss");
    const double norm = reference.at(step).at("grad_norm");
    EXPECT_NEAR(resumed.at(step).at("loss").get<double>(), loss, 1e-5 * loss) << step;
    EXPECT_NEAR(resumed.at(step).at("grad_norm").get<double>(), norm, 1e-4 * norm) << step;
    EXPECT_NE(resumed.at(step).at("replicas"), reference.at(step).at("replicas")) << step;
  }

  const auto expected = Parameters(CheckpointOf(Reference(), kSteps));
  const auto found = Parameters(CheckpointOf(run, kSteps));
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, values] : expected) {
    // The true gradient of a key's bias is zero: Adam scales up what rounding leaves.
    if (name.find("attention.k.bias") != std::string::npos) continue;
    ASSERT_EQ(found.at(name).size(), values.size()) << name;
    double furthest = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      furthest = std::max(furthest, std::abs(double{found.at(name)[i]} - double{values[i]}));
    }
    EXPECT_LE(furthest, 1e-5) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ResumeShapeTest,
    ::testing::Values(Shape{"ThreeStagesTwoReplicas", {"--swarm.stages=3", "--local.replicas=2"}},
                      Shape{"UnequalCutsUnequalReplicas",
                            {"--swarm.cuts=[1]", "--local.replicas=[1,2]"}}),
    [](const ::testing::TestParamInfo<Shape>& shape) { return shape.param.name; });

}  // namespace
}  // namespace starling
