#include "stages/initial_state.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "stages/model_layout.h"

namespace starling {
namespace {

ModelConfig SmallModel() {
  ModelConfig config;
  config.layers = 4;
  config.width = 48;
  config.heads = 4;
  config.vocabulary = 101;
  return config;
}

const TensorSpec& Find(const StageLayout& layout, const std::string& name) {
  for (const TensorSpec& spec : layout.tensors) {
    if (spec.name == name) return spec;
  }
  STARLING_CHECK_MSG(false, name);
  return layout.tensors[0];
}

TEST(InitialStateTest, IsTheSameHoweverTheModelIsCut) {
  const ModelConfig config = SmallModel();
  const StageLayout whole = WholeModelLayout(config);
  const Blob expected = InitialState(whole, 7);
  for (LayerRange range : {LayerRange{0, 1}, LayerRange{1, 3}, LayerRange{3, 4}}) {
    const StageLayout layout = ModelStageLayout(config, range);
    const Blob state = InitialState(layout, 7);
    for (const TensorSpec& spec : layout.tensors) {
      EXPECT_EQ(std::memcmp(state.As<float>().data() + spec.offset,
                            expected.As<float>().data() + Find(whole, spec.name).offset,
                            static_cast<size_t>(spec.count) * sizeof(float)),
                0)
          << spec.name;
    }
  }
}

TEST(InitialStateTest, DependsOnSeedAndName) {
  const StageLayout layout = WholeModelLayout(SmallModel());
  const Blob a = InitialState(layout, 7);
  const Blob b = InitialState(layout, 8);
  const int64_t q = Find(layout, "layers.0.attention.q.weight").offset;
  const int64_t k = Find(layout, "layers.0.attention.k.weight").offset;
  EXPECT_NE(a.As<float>()[q], b.As<float>()[q]);
  EXPECT_NE(a.As<float>()[q], a.As<float>()[k]);
}

TEST(InitialStateTest, MatricesAreNormalNormsOneMomentsZero) {
  const StageLayout layout = WholeModelLayout(SmallModel());
  const Blob state = InitialState(layout, 3);
  ASSERT_EQ(state.element_count(), kStatePlanes * layout.size);
  const auto values = state.As<float>();
  const TensorSpec& up = Find(layout, "layers.1.mlp.up.weight");
  double sum = 0, squares = 0, fourth = 0;
  for (int64_t i = up.offset; i < up.offset + up.count; ++i) {
    const double z = values[i] / 0.02;
    sum += z;
    squares += z * z;
    fourth += z * z * z * z;
  }
  const double n = static_cast<double>(up.count);
  EXPECT_NEAR(sum / n, 0.0, 5.0 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1.0, 8.0 / std::sqrt(n));
  EXPECT_NEAR(fourth / n, 3.0, 50.0 / std::sqrt(n));
  const TensorSpec& norm = Find(layout, "norm.weight");
  for (int64_t i = 0; i < norm.count; ++i) EXPECT_EQ(values[norm.offset + i], 1.0f);
  for (int64_t i = layout.size; i < kStatePlanes * layout.size; ++i) ASSERT_EQ(values[i], 0.0f);
}

}  // namespace
}  // namespace starling
