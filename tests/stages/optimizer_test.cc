#include "stages/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "runtime/base/rng.h"

namespace starling {
namespace {

// A decaying matrix of 5 * 7, then (after a gap) a vector of 21.
StageLayout SmallLayout() {
  TensorSpec matrix;
  matrix.name = "a";
  matrix.shape = {5, 7};
  matrix.decay = true;
  TensorSpec vector;
  vector.name = "b";
  vector.shape = {21};
  return MakeLayout({matrix, vector});
}

UpdateScalars Scalars() {
  UpdateScalars scalars;
  scalars.grad_scale = 0.25f;
  scalars.step_size = 0.01f;
  scalars.inv_sqrt_bias2 = 1.7f;
  scalars.decay = 0.999f;
  return scalars;
}

std::vector<float> Draw(uint64_t seed, int64_t count, double lowest) {
  Rng rng(seed);
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<float>(rng.Unit() + lowest));
  return values;
}

// The formula of runtime/env/compute.h, one rounding per operation.
void Reference(const StageLayout& layout, const UpdateScalars& s, const std::vector<float>& grad,
               std::vector<float>* state) {
  float* p = state->data();
  float* m = p + layout.size;
  float* v = m + layout.size;
  for (const TensorSpec& tensor : layout.tensors) {
    for (int64_t i = tensor.offset; i < tensor.offset + tensor.count; ++i) {
      volatile float g = grad[static_cast<size_t>(i)] * s.grad_scale;
      volatile float m_old = s.beta1 * m[i], m_new = s.one_minus_beta1 * g;
      m[i] = m_old + m_new;
      volatile float square = g * g;
      volatile float v_old = s.beta2 * v[i], v_new = s.one_minus_beta2 * square;
      v[i] = v_old + v_new;
      volatile float root = std::sqrt(v[i]);
      volatile float scaled = root * s.inv_sqrt_bias2;
      volatile float below = scaled + s.epsilon;
      volatile float decayed = tensor.decay ? p[i] * s.decay : p[i];
      volatile float above = s.step_size * m[i];
      volatile float quotient = above / below;
      p[i] = decayed - quotient;
    }
  }
}

TEST(OptimizerTest, MatchesTheWrittenFormulaToTheBit) {
  const StageLayout layout = SmallLayout();
  std::vector<float> state = Draw(1, kStatePlanes * layout.size, 0.0);
  std::vector<float> expected = state;
  for (uint64_t round = 0; round < 3; ++round) {
    const std::vector<float> gradient = Draw(10 + round, layout.size, -0.5);
    ASSERT_TRUE(
        ApplyAdamW(layout, Scalars(), {Blob::OfFloats(gradient)}, absl::MakeSpan(state)).ok());
    Reference(layout, Scalars(), gradient, &expected);
  }
  EXPECT_EQ(std::memcmp(state.data(), expected.data(), state.size() * sizeof(float)), 0);
}

TEST(OptimizerTest, PiecesOfAnySizeGiveTheSameBits) {
  const StageLayout layout = SmallLayout();
  const Blob gradient = Blob::OfFloats(Draw(5, layout.size, -0.5));
  std::vector<float> whole = Draw(1, kStatePlanes * layout.size, 0.0);
  std::vector<float> cut = whole;
  ASSERT_TRUE(ApplyAdamW(layout, Scalars(), {gradient}, absl::MakeSpan(whole)).ok());
  const std::vector<Blob> pieces = {gradient.Slice(0, 3), gradient.Slice(3, 0),
                                    gradient.Slice(3, 50), gradient.Slice(53, layout.size - 53)};
  ASSERT_TRUE(ApplyAdamW(layout, Scalars(), pieces, absl::MakeSpan(cut)).ok());
  EXPECT_EQ(std::memcmp(whole.data(), cut.data(), whole.size() * sizeof(float)), 0);
}

TEST(OptimizerTest, HashOnTheWayIsThatOfTheNewStateWithItsGaps) {
  StageLayout layout = SmallLayout();
  TensorSpec large;
  large.name = "large";
  large.count = 100003;
  large.offset = layout.size + 5;
  large.shape = {large.count};
  layout.tensors.push_back(large);
  layout.size = large.offset + large.count + 7;
  const Blob gradient = Blob::OfFloats(Draw(5, layout.size, -0.5));
  std::vector<float> state = Draw(1, kStatePlanes * layout.size, 0.0);
  std::vector<float> expected = state;
  ASSERT_TRUE(ApplyAdamW(layout, Scalars(), {gradient}, absl::MakeSpan(expected)).ok());
  Hasher128 hash;
  const size_t size = static_cast<size_t>(layout.size);
  ASSERT_TRUE(ApplyAdamW(layout, Scalars(), {gradient}, absl::MakeSpan(state.data(), size),
                         absl::MakeSpan(state).subspan(size), &hash)
                  .ok());
  EXPECT_EQ(state, expected);
  EXPECT_EQ(hash.Finish(), HashBytes(expected.data(), expected.size() * sizeof(float)));
}

TEST(OptimizerTest, WrongPiecesAreInvalidAndChangeNothing) {
  const StageLayout layout = SmallLayout();
  std::vector<float> state = Draw(1, kStatePlanes * layout.size, 0.0);
  const std::vector<float> before = state;
  const Blob gradient = Blob::OfFloats(Draw(5, layout.size, -0.5));
  const std::vector<std::vector<Blob>> wrong = {
      {},
      {gradient.Slice(0, layout.size - 1)},
      {gradient, gradient},
      {Blob::CopyOf(gradient.data(), DType::kI32, {layout.size})},
      {Blob(nullptr, gradient.data() + 1, DType::kF32, {layout.size - 1}), gradient.Slice(0, 1)}};
  for (const std::vector<Blob>& pieces : wrong) {
    EXPECT_EQ(ApplyAdamW(layout, Scalars(), pieces, absl::MakeSpan(state)).code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(state, before);
}

TEST(OptimizerTest, ZeroStateAndGradientStayZeroWithoutEpsilon) {
  const StageLayout layout = SmallLayout();
  UpdateScalars scalars = Scalars();
  scalars.epsilon = 0.0f;
  std::vector<float> state(static_cast<size_t>(kStatePlanes * layout.size), 0.0f);
  std::vector<float> gradient(static_cast<size_t>(layout.size), 1.0f);
  ASSERT_TRUE(ApplyAdamW(layout, scalars, {Blob::OfFloats(gradient)}, absl::MakeSpan(state)).ok());
  EXPECT_EQ(state[35], 0.0f);  // the gap behind the matrix
  EXPECT_NE(state[34], 0.0f);
}

// If this fails after a change of compiler, flags or machine, replicas built that way would part
// from the others bit by bit. Only a change of the formula itself may change the literal.
TEST(OptimizerTest, GoldenHashIsPinned) {
  EXPECT_EQ(ToHex(OptimizerGoldenHash()), kOptimizerGoldenHash);
}

}  // namespace
}  // namespace starling
