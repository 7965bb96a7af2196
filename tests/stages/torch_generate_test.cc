#include "stages/torch_generate.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "stages/torch_blob.h"
#include "stages/torch_info.h"
#include "stages/torch_model.h"
#include "tests/stages/torch_testing.h"

namespace starling {
namespace {

using ::testing::HasSubstr;

std::vector<int32_t> Generate(const ModelConfig& config, const Blob& state,
                              const std::vector<int32_t>& prompt, const Sampling& sampling,
                              int count) {
  auto generator = Generator::Create(config, state, 1);
  STARLING_CHECK(generator.ok());
  STARLING_CHECK((*generator)->Begin(prompt, sampling).ok());
  std::vector<int32_t> text;
  for (int i = 0; i < count; ++i) {
    auto token = (*generator)->Next();
    STARLING_CHECK_MSG(token.ok(), std::string(token.status().message()));
    text.push_back(*token);
  }
  return text;
}

// Matrices large enough for choices that depend on everything before.
Blob LoudState(const ModelConfig& config) {
  const StageLayout layout = WholeModelLayout(config);
  const Blob start = InitialState(layout, 3);
  MutableBlob state = MutableBlob::Uninitialized(DType::kF32, {start.element_count()});
  const auto from = start.As<float>();
  std::copy(from.begin(), from.end(), state.As<float>().begin());
  for (const TensorSpec& spec : layout.tensors) {
    for (int64_t i = 0; spec.decay && i < spec.count; ++i) {
      state.As<float>()[static_cast<size_t>(spec.offset + i)] *= 10.0f;
    }
  }
  return std::move(state).Freeze();
}

class GeneratorShapes : public ::testing::TestWithParam<Shape> {};

// The same choices as a model that computes all it sees anew for each token, far past the context:
// when the text outgrows it, the newer half stays, from its first place on.
TEST_P(GeneratorShapes, TextIsThatOfTheWholeModelOverItsWindow) {
  const ModelConfig config = GetParam().config;
  const Blob state = LoudState(config);
  const StageLayout layout = WholeModelLayout(config);
  TorchModel model(config, LayerRange{0, config.layers}, layout,
                   TensorOver(state).reshape({-1}).narrow(0, 0, layout.size).clone());
  Sampling sampling;
  sampling.temperature = 1.0;
  const std::vector<int32_t> text = Generate(config, state, {1, 2, 3}, sampling, 40);
  std::vector<int64_t> window = {1, 2, 3};
  for (size_t i = 0; i < text.size(); ++i) {
    if (static_cast<int64_t>(window.size()) > config.context) {
      window.erase(window.begin(), window.end() - config.context / 2);
    }
    const int64_t tokens = static_cast<int64_t>(window.size());
    const at::Tensor input = at::from_blob(window.data(), {1, tokens}, at::kLong);
    const at::Tensor logits = model.Logits(model.Forward(input, {})).detach()[tokens - 1];
    const float* values = logits.data_ptr<float>();
    const std::vector<float> last(values, values + config.vocabulary);
    ASSERT_EQ(text[i], PickToken(last, sampling, SamplingDraw(sampling.seed, i))) << "token " << i;
    window.push_back(text[i]);
  }
  EXPECT_GT(std::set<int32_t>(text.begin(), text.end()).size(), 5u);
}

INSTANTIATE_TEST_SUITE_P(All, GeneratorShapes, ::testing::ValuesIn(Shapes()),
                         [](const auto& info) { return info.param.name; });

class GeneratorTest : public ::testing::Test {
 protected:
  std::vector<int32_t> Generate(uint64_t seed, int count, std::vector<int32_t> prompt = {1, 2}) {
    Sampling sampling;
    sampling.seed = seed;
    return starling::Generate(config_, state_, prompt, sampling, count);
  }

  const ModelConfig config_ = TinyModel();
  const Blob state_ = InitialState(WholeModelLayout(config_), 3);
};

TEST_F(GeneratorTest, SameSeedSameTextPastTheContextToo) {
  const std::vector<int32_t> text = Generate(1, 20);
  EXPECT_EQ(text, Generate(1, 20));
  EXPECT_NE(text, Generate(2, 20));
  for (int32_t token : text) EXPECT_TRUE(token >= 0 && token < config_.vocabulary);
}

TEST_F(GeneratorTest, PromptLongerThanTheContextCountsByItsEnd) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 12; ++i) prompt.push_back(i);
  const std::vector<int32_t> end(prompt.end() - config_.context, prompt.end());
  EXPECT_EQ(Generate(1, 5, prompt), Generate(1, 5, end));
}

TEST_F(GeneratorTest, ContextOfOneTokenGoesOn) {
  ModelConfig config = config_;
  config.context = 1;
  const Blob state = InitialState(WholeModelLayout(config), 3);
  EXPECT_EQ(starling::Generate(config, state, {1, 2, 3}, Sampling(), 5),
            starling::Generate(config, state, {3}, Sampling(), 5));
}

TEST_F(GeneratorTest, SecondPromptForgetsTheFirst) {
  auto generator = Generator::Create(config_, state_, 1);
  ASSERT_TRUE(generator.ok());
  for (const std::vector<int32_t>& prompt : {std::vector<int32_t>{5, 6, 7}, {1, 2}}) {
    ASSERT_TRUE((*generator)->Begin(prompt, Sampling()).ok());
    std::vector<int32_t> text;
    for (int i = 0; i < 5; ++i) text.push_back((*generator)->Next().value());
    EXPECT_EQ(text, Generate(1, 5, prompt));
  }
}

TEST_F(GeneratorTest, InterruptedPromptGoesOnWhereItWas) {
  ModelConfig config = config_;
  config.context = 500;  // several portions
  const Blob state = InitialState(WholeModelLayout(config), 3);
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 450; ++i) prompt.push_back(i % 13);
  auto generator = Generator::Create(config, state, 1);
  ASSERT_TRUE(generator.ok());
  ASSERT_TRUE((*generator)->Begin(prompt, Sampling()).ok());
  int asked = 0;
  EXPECT_EQ((*generator)->Next([&] { return ++asked == 2; }).status().code(),
            absl::StatusCode::kCancelled);
  const auto token = (*generator)->Next([&] { return ++asked < 0; });
  ASSERT_TRUE(token.ok());
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(*token, starling::Generate(config, state, prompt, Sampling(), 1)[0]);
}

TEST_F(GeneratorTest, BadPromptSamplingAndSizeAreInvalid) {
  auto generator = Generator::Create(config_, state_, 1);
  ASSERT_TRUE(generator.ok());
  EXPECT_EQ((*generator)->Next().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ((*generator)->Begin({}, Sampling()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*generator)->Begin({13}, Sampling()).code(), absl::StatusCode::kInvalidArgument);
  Sampling sampling;
  sampling.temperature = -1;
  EXPECT_EQ((*generator)->Begin({1}, sampling).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Generator::Create(config_, state_.Slice(0, 17), 1).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(TorchInfoTest, BlasThatIsMappedIsNamed) {
  std::string path;
  const std::string prefix = "7f00-7f01 r-xp 00000000 fe:00 1   /usr/lib/x86_64-linux-gnu/";
  EXPECT_EQ(BlasInMaps(prefix + "openblas-openmp/libopenblasp-r0.3.21.so\n" + prefix +
                           "openblas-openmp/libblas.so.3\n",
                       &path),
            BlasKind::kOpenBlasOpenMp);
  EXPECT_THAT(path, HasSubstr("libopenblasp"));
  EXPECT_EQ(BlasInMaps(prefix + "openblas-pthread/libblas.so.3\n", &path),
            BlasKind::kOpenBlasPthread);
  EXPECT_THAT(BlasAdvice(BlasKind::kOpenBlasPthread), HasSubstr("libopenblas0-openmp"));
  EXPECT_EQ(BlasInMaps(prefix + "blas/libblas.so.3.11.0\n", &path), BlasKind::kReference);
  EXPECT_EQ(BlasInMaps(prefix + "libc.so.6\n7f00-7f01 rw-p 0 00:00 0\n", &path),
            BlasKind::kBuiltIn);
  EXPECT_EQ(path, "");
}

TEST(TorchInfoTest, ThisProcessKnowsItsLibrary) {
  const TorchInfo info = ReadTorchInfo();
  EXPECT_THAT(info.version, HasSubstr("."));
  EXPECT_NE(info.capability, "unknown");
  EXPECT_GE(info.threads, 1);
}

}  // namespace
}  // namespace starling
