// An exported model gives the logits of ours in a forward pass that somebody else wrote: Python's,
// from the published architectures, in Debian's python3-torch.
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/base/rng.h"
#include "stages/torch_model.h"
#include "tests/interop/huggingface_testing.h"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/testing/subprocess.h"

namespace starling {
namespace {

constexpr int64_t kSequences = 3;
constexpr double kTolerance = 1e-4;

struct Shape {
  std::string name;
  ModelConfig model;
  std::string max_shard_size = "5GB";
};

std::vector<Shape> Shapes() {
  ModelConfig biased = testing::SmallLlama();
  biased.bias = true;
  biased.kv_heads = 1;
  ModelConfig wide = testing::SmallGpt2();
  wide.mlp_width = 50;
  wide.heads = 2;
  return {{"Gpt2", testing::SmallGpt2()},
          {"Gpt2OtherMlp", wide},
          {"LlamaGroupedKeys", testing::SmallLlama()},
          {"LlamaBiasesOneKeyHead", biased},
          {"LlamaInShards", testing::SmallLlama(), "20KB"},
          {"Gpt2Tied", testing::Tied(testing::SmallGpt2())},
          {"LlamaTied", testing::Tied(testing::SmallLlama())}};
}

std::vector<int64_t> DrawTokens(const ModelConfig& model) {
  std::vector<int64_t> tokens(static_cast<size_t>(kSequences * model.context));
  Rng rng(11);
  for (int64_t& token : tokens) {
    token = static_cast<int64_t>(rng.Below(static_cast<uint64_t>(model.vocabulary)));
  }
  return tokens;
}

std::vector<float> OurLogits(const ModelConfig& model, const Blob& state,
                             std::vector<int64_t> tokens) {
  c10::AutoGradMode no_grad(false);
  const StageLayout layout = WholeModelLayout(model);
  std::vector<float> flat(state.As<float>().begin(), state.As<float>().begin() + layout.size);
  TorchModel torch_model(model, LayerRange{0, model.layers}, layout,
                         at::from_blob(flat.data(), {layout.size}, at::kFloat));
  const at::Tensor input =
      at::from_blob(tokens.data(), {kSequences, model.context}, at::TensorOptions(at::kLong));
  const at::Tensor logits =
      torch_model.Logits(torch_model.Forward(input, std::nullopt)).contiguous();
  const float* const data = logits.data_ptr<float>();
  return std::vector<float>(data, data + logits.numel());
}

std::string AsJson(const std::vector<int64_t>& tokens, int64_t context) {
  nlohmann::json sequences = nlohmann::json::array();
  for (auto at = tokens.begin(); at != tokens.end(); at += context) {
    sequences.push_back(std::vector<int64_t>(at, at + context));
  }
  return sequences.dump();
}

class HuggingFaceTorchTest : public ::testing::TestWithParam<Shape> {
 protected:
  std::string Path(const std::string& name) const { return folder_.path() + "/" + name; }

  std::vector<float> TheirLogits(const std::string& folder) {
    const Finished end = RunToEnd(
        {STARLING_PYTHON3, HUGGINGFACE_FORWARD, folder, Path("tokens.json"), Path("logits")});
    EXPECT_EQ(end.exit_code, 0) << end.errors;
    const std::string bytes = FileText(Path("logits"));
    std::vector<float> logits(bytes.size() / sizeof(float));
    std::memcpy(logits.data(), bytes.data(), logits.size() * sizeof(float));
    return logits;
  }

  // The greatest distance of two models' logits; needs some that are worth comparing.
  static double Distance(const std::vector<float>& ours, const std::vector<float>& theirs) {
    EXPECT_EQ(ours.size(), theirs.size());
    double most = 0, distance = 0;
    for (size_t i = 0; i < std::min(ours.size(), theirs.size()); ++i) {
      most = std::max(most, std::abs(static_cast<double>(ours[i])));
      distance = std::max(distance, std::abs(static_cast<double>(ours[i]) - theirs[i]));
    }
    EXPECT_GT(most, 1.0) << "nothing to compare";
    return distance;
  }

  const TemporaryFolder folder_;
};

TEST_P(HuggingFaceTorchTest, ExportGivesTheSameLogitsElsewhere) {
  if (RunToEnd({STARLING_PYTHON3, "-c", "import torch"}).exit_code != 0) {
    GTEST_SKIP() << STARLING_PYTHON3 << " has no torch (Debian's python3-torch)";
  }
  const ModelConfig& model = GetParam().model;
  const Blob state = testing::MakeRun(Path("run"), model);
  const Finished end = RunToEnd({STARLING_PROGRAM, "checkpoint", "export", Path("run"), "--out",
                                 Path("hf"), "--max-shard-size", GetParam().max_shard_size});
  ASSERT_EQ(end.exit_code, 0) << end.errors;
  const std::vector<int64_t> tokens = DrawTokens(model);
  WriteFileText(Path("tokens.json"), AsJson(tokens, model.context));
  const std::vector<float> ours = OurLogits(model, state, tokens);
  const std::vector<float> theirs = TheirLogits(Path("hf"));
  ASSERT_EQ(ours.size(), static_cast<size_t>(kSequences * model.context * model.vocabulary));
  const double distance = Distance(ours, theirs);
  EXPECT_LE(distance, kTolerance);
  RecordProperty("distance", std::to_string(distance));

  // The comparison sees a setting that is wrong.
  nlohmann::json config = nlohmann::json::parse(FileText(Path("hf/config.json")));
  if (config.contains("rope_theta")) config["rope_theta"] = 600.0;
  if (config.contains("n_head")) config["n_head"] = 4;
  WriteFileText(Path("hf/config.json"), config.dump());
  EXPECT_GT(Distance(ours, TheirLogits(Path("hf"))), 10 * kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Shapes, HuggingFaceTorchTest, ::testing::ValuesIn(Shapes()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace starling
