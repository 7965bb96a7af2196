#include "interop/huggingface_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "stages/model_layout.h"

namespace starling {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

ModelConfig Gpt2() {
  ModelConfig model;
  model.norm = NormKind::kLayerNorm;
  model.mlp = MlpKind::kGelu;
  model.position = PositionKind::kLearned;
  model.bias = true;
  return model;
}

TEST(HuggingFaceConfigTest, PublishedGpt2IsUnderstood) {
  const auto config = ParseHuggingFaceConfig(
      R"({"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
          "attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1, "layer_norm_epsilon": 1e-05,
          "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
          "n_positions": 1024, "vocab_size": 50257})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->kind, HuggingFaceKind::kGpt2);
  EXPECT_TRUE(config->model.tie_embeddings);
  EXPECT_EQ(config->model.width, 768);
  EXPECT_EQ(config->model.mlp_hidden(), 3072);
  EXPECT_EQ(config->model.dropout, 0.1);
  EXPECT_EQ(WholeModelLayout(config->model).parameter_count(), 124439808);
  ASSERT_THAT(config->notices, SizeIs(1));
  EXPECT_THAT(config->notices[0], HasSubstr("attn_pdrop"));
}

TEST(HuggingFaceConfigTest, NewerFilesHaveTheBaseInRopeParameters) {
  const auto config = ParseHuggingFaceConfig(
      R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
          "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
          "max_position_embeddings": 32, "vocab_size": 300,
          "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model.rope_theta, 500000.0);
  EXPECT_EQ(config->model.norm_epsilon, 1e-6);
  EXPECT_EQ(config->model.key_value_heads(), 2);
  EXPECT_FALSE(config->model.tie_embeddings);
  EXPECT_THAT(config->notices, IsEmpty());
}

TEST(HuggingFaceConfigTest, WhatIsPrintedIsReadBack) {
  ModelConfig tied = Gpt2();
  tied.tie_embeddings = true;
  for (const ModelConfig& model : {Gpt2(), ModelConfig(), tied}) {
    const auto kind = HuggingFaceKindOf(model);
    ASSERT_TRUE(kind.ok());
    const auto config = ParseHuggingFaceConfig(PrintHuggingFaceConfig(model, *kind, {1, 2}));
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->kind, *kind);
    EXPECT_EQ(config->model.tie_embeddings, model.tie_embeddings);
    EXPECT_THAT(config->notices, IsEmpty());
    EXPECT_EQ(config->model.mlp_hidden(), model.mlp_hidden());
    EXPECT_EQ(config->model.key_value_heads(), model.key_value_heads());
    EXPECT_EQ(config->model.norm_epsilon, model.norm_epsilon);
    EXPECT_EQ(config->model.context, model.context);
  }
}

TEST(HuggingFaceLayoutTest, EachParameterIsInExactlyOneTensor) {
  ModelConfig biased;
  biased.bias = true;
  biased.kv_heads = 2;
  ModelConfig tied = biased;
  tied.tie_embeddings = true;
  for (const ModelConfig& model : {Gpt2(), ModelConfig(), biased, tied}) {
    const auto kind = HuggingFaceKindOf(model);
    ASSERT_TRUE(kind.ok());
    std::set<std::string> parts, names;
    int64_t elements = 0;
    for (const HuggingFaceTensor& tensor : HuggingFaceTensors(model, *kind)) {
      EXPECT_TRUE(names.insert(tensor.name).second) << tensor.name;
      int64_t count = 1;
      for (const int64_t extent : tensor.shape) count *= extent;
      elements += count;
      for (const HuggingFacePart& part : tensor.parts) {
        EXPECT_TRUE(parts.insert(part.name).second) << part.name;
      }
    }
    const StageLayout layout = WholeModelLayout(model);
    EXPECT_EQ(parts.size(), layout.tensors.size());
    EXPECT_EQ(elements, layout.parameter_count());
  }
}

}  // namespace
}  // namespace starling
