#include "stages/model_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

namespace starling {
namespace {

using ::testing::ElementsAre;

ModelConfig SmallModel() {
  ModelConfig config;
  config.layers = 3;
  config.width = 16;
  config.heads = 4;
  config.kv_heads = 2;
  config.context = 8;
  config.vocabulary = 11;
  return config;
}

std::map<std::string, TensorSpec> ByName(const StageLayout& layout) {
  std::map<std::string, TensorSpec> result;
  for (const TensorSpec& tensor : layout.tensors) result[tensor.name] = tensor;
  return result;
}

std::vector<std::string> Names(const StageLayout& layout) {
  std::vector<std::string> names;
  for (const TensorSpec& tensor : layout.tensors) names.push_back(tensor.name);
  return names;
}

TEST(ModelLayoutTest, LlamaShapedMiddleStageHasItsLayersOnly) {
  const StageLayout layout = ModelStageLayout(SmallModel(), LayerRange{1, 2});
  EXPECT_THAT(
      Names(layout),
      ElementsAre("layers.1.attention.k.weight", "layers.1.attention.o.weight",
                  "layers.1.attention.q.weight", "layers.1.attention.v.weight",
                  "layers.1.mlp.down.weight", "layers.1.mlp.gate.weight", "layers.1.mlp.up.weight",
                  "layers.1.norm1.weight", "layers.1.norm2.weight"));
}

TEST(ModelLayoutTest, GptShapedModelHasBiasesPositionsAndNoGate) {
  ModelConfig config = SmallModel();
  config.layers = 1;
  config.kv_heads = 0;
  config.norm = NormKind::kLayerNorm;
  config.mlp = MlpKind::kGelu;
  config.position = PositionKind::kLearned;
  config.bias = true;
  EXPECT_THAT(
      Names(WholeModelLayout(config)),
      ElementsAre("embed.weight", "head.weight", "layers.0.attention.k.bias",
                  "layers.0.attention.k.weight", "layers.0.attention.o.bias",
                  "layers.0.attention.o.weight", "layers.0.attention.q.bias",
                  "layers.0.attention.q.weight", "layers.0.attention.v.bias",
                  "layers.0.attention.v.weight", "layers.0.mlp.down.bias",
                  "layers.0.mlp.down.weight", "layers.0.mlp.up.bias", "layers.0.mlp.up.weight",
                  "layers.0.norm1.bias", "layers.0.norm1.weight", "layers.0.norm2.bias",
                  "layers.0.norm2.weight", "norm.bias", "norm.weight", "position.weight"));
}

TEST(ModelLayoutTest, RmsNormHasNoOffsetEvenWithBiases) {
  ModelConfig config = SmallModel();
  config.bias = true;
  const auto tensors = ByName(WholeModelLayout(config));
  EXPECT_EQ(tensors.count("norm.bias"), 0u);
  EXPECT_EQ(tensors.count("layers.0.norm1.bias"), 0u);
  EXPECT_EQ(tensors.count("layers.0.attention.q.bias"), 1u);
}

TEST(ModelLayoutTest, CutsPartitionTheWholeModelsTensors) {
  const ModelConfig config = SmallModel();
  std::map<std::string, TensorSpec> pieces;
  int64_t parameters = 0;
  for (LayerRange range : {LayerRange{0, 1}, LayerRange{1, 2}, LayerRange{2, 3}}) {
    const StageLayout layout = ModelStageLayout(config, range);
    parameters += layout.parameter_count();
    for (const auto& [name, spec] : ByName(layout)) pieces[name] = spec;
  }
  const StageLayout whole = WholeModelLayout(config);
  EXPECT_EQ(parameters, whole.parameter_count());
  ASSERT_EQ(pieces.size(), whole.tensors.size());
  for (const TensorSpec& spec : whole.tensors) {
    ASSERT_EQ(pieces.count(spec.name), 1u) << spec.name;
    EXPECT_EQ(pieces[spec.name].shape, spec.shape) << spec.name;
    EXPECT_EQ(pieces[spec.name].init_std, spec.init_std) << spec.name;
  }
}

TEST(ModelLayoutTest, TiedHeadIsTheEmbeddingAtTheEndOfTheFirstAndTheLastStage) {
  ModelConfig config = SmallModel();
  config.tie_embeddings = true;
  const auto whole = ByName(WholeModelLayout(config));
  EXPECT_EQ(whole.count("head.weight"), 0u);
  EXPECT_EQ(whole.at("embed.weight").tie, kNoTie);
  const StageLayout first = ModelStageLayout(config, {0, 1});
  const StageLayout middle = ModelStageLayout(config, {1, 2});
  const StageLayout last = ModelStageLayout(config, {2, 3});
  for (const StageLayout* layout : {&first, &last}) {
    const TensorSpec& tied = layout->tensors.back();
    EXPECT_EQ(tied.name, "embed.weight");
    EXPECT_EQ(tied.tie, 0);
    EXPECT_EQ(tied.stored, layout == &first);
    EXPECT_EQ(tied.shape, whole.at("embed.weight").shape);
    EXPECT_EQ(tied.decay, whole.at("embed.weight").decay);
    EXPECT_EQ(tied.init_std, whole.at("embed.weight").init_std);
    EXPECT_EQ(ByName(*layout).count("head.weight"), 0u);
  }
  EXPECT_EQ(ByName(middle).count("embed.weight"), 0u);
  EXPECT_EQ(first.stored_count() + middle.stored_count() + last.stored_count(),
            WholeModelLayout(config).parameter_count());
}

TEST(ModelLayoutTest, ShapesDecayAndInitFollowTheRole) {
  const auto tensors = ByName(WholeModelLayout(SmallModel()));
  const TensorSpec& key = tensors.at("layers.2.attention.k.weight");
  EXPECT_THAT(key.shape, ElementsAre(8, 16));  // 2 of 4 heads, [out, in]
  EXPECT_TRUE(key.decay);
  EXPECT_FLOAT_EQ(key.init_std, 0.02f);
  const TensorSpec& down = tensors.at("layers.2.mlp.down.weight");
  EXPECT_THAT(down.shape, ElementsAre(16, 64));  // 8/3 * 16 up to a multiple of 32
  EXPECT_FLOAT_EQ(down.init_std, 0.02f / std::sqrt(6.0f));
  const TensorSpec& norm = tensors.at("norm.weight");
  EXPECT_FALSE(norm.decay);
  EXPECT_EQ(norm.init, InitKind::kOnes);
  EXPECT_TRUE(tensors.at("embed.weight").decay);
}

TEST(ModelLayoutDeathTest, RangeOutsideTheModelIsAProgrammerError) {
  EXPECT_DEATH(ModelStageLayout(SmallModel(), LayerRange{2, 4}), "check failed");
  EXPECT_DEATH(ModelStageLayout(SmallModel(), LayerRange{1, 1}), "check failed");
}

}  // namespace
}  // namespace starling
