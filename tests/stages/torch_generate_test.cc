#include "stages/torch_generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stages/torch_info.h"
#include "tests/stages/torch_testing.h"

namespace starling {
namespace {

using ::testing::HasSubstr;

TEST(PickTokenTest, TemperatureZeroTakesTheLikeliest) {
  Sampling sampling;
  sampling.temperature = 0.0;
  EXPECT_EQ(PickToken({1.0f, 3.0f, 3.0f, 2.0f}, sampling, 0.99), 1);
}

TEST(PickTokenTest, DrawsFollowTheProbabilities) {
  Sampling sampling;
  sampling.temperature = 1.0;
  sampling.top_k = 0;
  const std::vector<float> logits = {std::log(0.2f), std::log(0.5f), std::log(0.3f)};
  EXPECT_EQ(PickToken(logits, sampling, 0.0), 1);
  EXPECT_EQ(PickToken(logits, sampling, 0.49), 1);
  EXPECT_EQ(PickToken(logits, sampling, 0.51), 2);
  EXPECT_EQ(PickToken(logits, sampling, 0.79), 2);
  EXPECT_EQ(PickToken(logits, sampling, 0.81), 0);
  EXPECT_EQ(PickToken(logits, sampling, 0.9999999), 0);
}

TEST(PickTokenTest, TopKCutsTheTailAndTemperatureSharpens) {
  Sampling sampling;
  sampling.temperature = 1.0;
  sampling.top_k = 2;
  const std::vector<float> logits = {std::log(0.2f), std::log(0.5f), std::log(0.3f)};
  EXPECT_EQ(PickToken(logits, sampling, 0.9999999), 2);
  sampling.temperature = 0.05;
  EXPECT_EQ(PickToken(logits, sampling, 0.99), 1);
}

class GeneratorTest : public ::testing::Test {
 protected:
  std::vector<int32_t> Generate(uint64_t seed, int count, std::vector<int32_t> prompt = {1, 2}) {
    Sampling sampling;
    sampling.seed = seed;
    auto generator = Generator::Create(config_, state_, 1);
    STARLING_CHECK(generator.ok());
    STARLING_CHECK((*generator)->Begin(prompt, sampling).ok());
    std::vector<int32_t> text;
    for (int i = 0; i < count; ++i) {
      auto token = (*generator)->Next();
      STARLING_CHECK(token.ok());
      text.push_back(*token);
    }
    return text;
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
