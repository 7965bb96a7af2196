// The model itself: its gradients against finite differences, its operators against others', and
// its layers' independence of cuts and microbatches.
#include "stages/torch_model.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <limits>

#include "stages/torch_ops.h"
#include "tests/stages/torch_testing.h"

namespace starling {
namespace {

class TorchModelShapes : public ::testing::TestWithParam<Shape> {};

at::Tensor Double(const Blob& values) {
  return at::from_blob(const_cast<std::byte*>(values.data()), values.shape(),
                       at::TensorOptions().dtype(at::kFloat))
      .to(at::kDouble);
}

at::Tensor Long(const Blob& values) {
  return at::from_blob(const_cast<std::byte*>(values.data()), values.shape(),
                       at::TensorOptions().dtype(at::kInt))
      .to(at::kLong);
}

TEST_P(TorchModelShapes, GradientMatchesFiniteDifferencesInDouble) {
  const ModelConfig config = GetParam().config;
  const StageLayout layout = WholeModelLayout(config);
  at::Tensor flat = Double(InitialState(layout, 3)).narrow(0, 0, layout.size).clone();
  // Matrices ten times larger than at the usual start, so that no part of the model is near linear.
  for (const TensorSpec& spec : layout.tensors) {
    if (spec.decay) flat.narrow(0, spec.offset, spec.count).mul_(10.0);
  }
  TorchModel model(config, LayerRange{0, config.layers}, layout, flat);
  const at::Tensor tokens = Long(DrawTokens(1, 2, config));
  const at::Tensor targets = Long(DrawTokens(2, 2, config));
  const std::optional<TorchModel::DropoutDraw> draw = TorchModel::DropoutDraw{1, Step{1}, 0};
  auto loss = [&] { return model.TokenLosses(model.Forward(tokens, draw), targets).sum(); };
  torch::autograd::backward({loss()});
  double* values = flat.data_ptr<double>();
  for (size_t i = 0; i < layout.tensors.size(); ++i) {
    const TensorSpec& spec = layout.tensors[i];
    const at::Tensor gradient = model.parameters()[i].grad().contiguous();
    ASSERT_TRUE(gradient.defined()) << spec.name;
    for (int64_t element : {spec.count / 3, spec.count - 1}) {
      double& value = values[spec.offset + element];
      const double before = value, h = 1e-5;
      value = before + h;
      const double above = loss().item<double>();
      value = before - h;
      const double below = loss().item<double>();
      value = before;
      const double expected = (above - below) / (2 * h);
      EXPECT_NEAR(gradient.data_ptr<double>()[element], expected, 1e-6 * (1 + std::abs(expected)))
          << spec.name << " element " << element;
    }
  }
}

TEST_P(TorchModelShapes, ChainOfStagesEqualsTheWhole) {
  const ModelConfig config = GetParam().config;
  const Blob tokens = DrawTokens(1, 4, config);
  const Blob targets = DrawTokens(2, 4, config);
  Chain whole(config, {});
  const double expected = whole.Train(TrainWork(0), tokens, targets);
  const auto gradients = whole.Gradients();
  for (const std::vector<int64_t>& cuts : {std::vector<int64_t>{1}, std::vector<int64_t>{1, 2}}) {
    Chain cut(config, cuts);
    EXPECT_NEAR(cut.Train(TrainWork(0), tokens, targets), expected, 1e-6 * expected);
    const auto others = cut.Gradients();
    ASSERT_EQ(others.size(), gradients.size());
    for (size_t i = 0; i < others.size(); ++i) {
      ASSERT_EQ(others[i].first, gradients[i].first);
      // The true gradient of the keys' offset is zero: what is there is rounding.
      if (others[i].first.find("attention.k.bias") != std::string::npos) continue;
      EXPECT_LT(RelativeDistance(others[i].second, gradients[i].second), 1e-5) << others[i].first;
    }
  }
}

TEST_P(TorchModelShapes, CutIntoMicrobatchesDoesNotMatter) {
  const ModelConfig config = GetParam().config;
  const Blob tokens = DrawTokens(1, 4, config);
  const Blob targets = DrawTokens(2, 4, config);
  Chain at_once(config, {});
  const double expected = at_once.Train(TrainWork(0), tokens, targets);
  Chain in_parts(config, {});
  double loss = 0;
  uint32_t index = 0;
  for (auto [begin, count] : {std::pair<int64_t, int64_t>{0, 3}, {3, 1}}) {
    loss += in_parts.Train(TrainWork(index++), Rows(tokens, begin, count),
                           Rows(targets, begin, count), static_cast<uint64_t>(begin));
  }
  EXPECT_NEAR(loss, expected, 1e-6 * expected);
  const auto a = in_parts.Gradients();
  const auto b = at_once.Gradients();
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].first.find("attention.k.bias") != std::string::npos) continue;
    EXPECT_LT(RelativeDistance(a[i].second, b[i].second), 1e-5) << a[i].first;
  }
}

// One token at a time, portions, a prompt and then tokens: any way through a sequence gives what
// the whole gives at once.
TEST_P(TorchModelShapes, GrowingSequenceEqualsTheWhole) {
  const ModelConfig config = GetParam().config;
  const StageLayout layout = WholeModelLayout(config);
  const at::Tensor start = Double(InitialState(layout, 3)).narrow(0, 0, layout.size).clone();
  Rng rng(9);
  for (const TensorSpec& spec : layout.tensors) {
    at::Tensor values = start.narrow(0, spec.offset, spec.count);
    if (spec.decay) values.mul_(10.0);
    // Offsets and norms that are not zeros and ones.
    for (int64_t i = 0; !spec.decay && i < spec.count; ++i) {
      values.data_ptr<double>()[i] += rng.Unit() - 0.5;
    }
  }
  const at::Tensor tokens = Long(DrawTokens(1, 1, config));
  for (at::ScalarType type : {at::kDouble, at::kFloat}) {
    TorchModel model(config, LayerRange{0, config.layers}, layout, start.to(type).clone());
    const at::Tensor expected = model.Logits(model.Forward(tokens, {})).detach();
    EXPECT_GT(expected.abs().max().item<double>(), 0.1);
    TorchModel::Cache cache = model.MakeCache();
    for (const std::vector<int64_t>& portions :
         {std::vector<int64_t>{1, 1, 1, 1, 1, 1, 1, 1}, {8}, {3, 2, 3}, {5, 1, 1, 1}}) {
      cache.tokens = 0;
      for (int64_t count : portions) {
        const int64_t begin = cache.tokens;
        const at::Tensor hidden = model.Extend(tokens.narrow(1, begin, count), &cache);
        EXPECT_EQ(cache.tokens, begin + count);
        const at::Tensor difference = model.Logits(hidden) - expected.narrow(0, begin, count);
        EXPECT_LT(difference.abs().max().item<double>(), type == at::kDouble ? 1e-11 : 1e-4)
            << portions.size() << " portions, tokens " << begin << " to " << begin + count;
      }
    }
  }
}

// A slice in the middle keeps what it needs, too.
TEST_P(TorchModelShapes, GrowingSequenceThroughTwoSlicesEqualsTheWhole) {
  const ModelConfig config = GetParam().config;
  const at::Tensor tokens = Long(DrawTokens(1, 1, config));
  std::vector<TorchModel> slices;
  for (const LayerRange range : {LayerRange{0, 1}, LayerRange{1, config.layers}}) {
    const StageLayout layout = ModelStageLayout(config, range);
    slices.emplace_back(config, range, layout,
                        Double(InitialState(layout, 3)).narrow(0, 0, layout.size).clone());
  }
  const at::Tensor expected = slices[1].Forward(slices[0].Forward(tokens, {}), {});
  std::vector<TorchModel::Cache> caches = {slices[0].MakeCache(), slices[1].MakeCache()};
  for (int64_t place = 0; place < config.context; ++place) {
    const at::Tensor first = slices[0].Extend(tokens.narrow(1, place, 1), &caches[0]);
    const at::Tensor last = slices[1].Extend(first, &caches[1]);
    EXPECT_TRUE(at::allclose(last, expected.narrow(1, place, 1), 1e-11, 1e-12)) << place;
  }
}

INSTANTIATE_TEST_SUITE_P(All, TorchModelShapes, ::testing::ValuesIn(Shapes()),
                         [](const auto& info) { return info.param.name; });

at::Tensor DrawTensor(uint64_t seed, std::vector<int64_t> shape, at::ScalarType type) {
  at::Tensor values = at::zeros(shape, at::TensorOptions().dtype(at::kDouble));
  Rng rng(seed);
  for (int64_t i = 0; i < values.numel(); ++i) values.data_ptr<double>()[i] = rng.Unit() - 0.5;
  values = values.to(type);
  values.set_requires_grad(true);
  return values;
}

// Runs two forms of an operator on the same inputs; outputs and input gradients must agree.
void ExpectSame(const std::vector<at::Tensor>& inputs, const std::function<at::Tensor()>& a,
                const std::function<at::Tensor()>& b) {
  std::vector<at::Tensor> outputs = {a(), b()};
  EXPECT_TRUE(at::allclose(outputs[0], outputs[1], 1e-5, 1e-6));
  const at::Tensor weights = DrawTensor(77, outputs[0].sizes().vec(), outputs[0].scalar_type());
  const auto da = torch::autograd::grad({outputs[0]}, inputs, {weights.detach()});
  const auto db = torch::autograd::grad({outputs[1]}, inputs, {weights.detach()});
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_TRUE(at::allclose(da[i], db[i], 1e-5, 1e-6)) << "gradient of input " << i;
  }
}

TEST(TorchOpsTest, BuiltInAttentionEqualsOurs) {
  for (int64_t kv_heads : {4, 2, 1}) {
    const at::Tensor q = DrawTensor(1, {2, 7, 4, 8}, at::kFloat);
    const at::Tensor k = DrawTensor(2, {2, 7, kv_heads, 8}, at::kFloat);
    const at::Tensor v = DrawTensor(3, {2, 7, kv_heads, 8}, at::kFloat);
    const at::Tensor mask = at::full({7, 7}, -std::numeric_limits<float>::infinity()).triu_(1);
    ExpectSame(
        {q, k, v}, [&] { return CausalAttentionPlain(q, k, v, mask); },
        [&] { return CausalAttentionBuiltIn(q, k, v); });
  }
}

TEST(TorchOpsTest, RmsNormEqualsItsPlainForm) {
  for (at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor x = DrawTensor(1, {150, 37}, type);  // more than two blocks of rows, odd width
    const at::Tensor weight = DrawTensor(2, {37}, type);
    ExpectSame(
        {x, weight}, [&] { return RmsNorm(x, weight, 1e-5); },
        [&] { return RmsNormPlain(x, weight, 1e-5); });
  }
}

TEST(TorchOpsTest, RopeEqualsItsPlainForm) {
  for (at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor x = DrawTensor(1, {3, 40, 2, 10}, type);
    const at::Tensor angles = DrawTensor(2, {40, 1, 5}, type).detach() * 6.0;
    ExpectSame(
        {x}, [&] { return Rope(x, angles.cos(), angles.sin()); },
        [&] { return RopePlain(x, angles.cos(), angles.sin()); });
  }
}

TEST(TorchOpsTest, NumberOfThreadsDoesNotChangeRowsOrWeightGradient) {
  const at::Tensor x = DrawTensor(1, {200, 64}, at::kFloat);
  const at::Tensor weight = DrawTensor(2, {64}, at::kFloat);
  std::vector<std::vector<at::Tensor>> results;
  for (int threads : {1, 2}) {
    at::set_num_threads(threads);
    const at::Tensor out = RmsNorm(x, weight, 1e-5);
    auto gradients = torch::autograd::grad({out}, {x, weight}, {x.detach()});
    gradients.push_back(out);
    results.push_back(gradients);
  }
  at::set_num_threads(1);
  for (size_t i = 0; i < results[0].size(); ++i) {
    EXPECT_TRUE(results[0][i].equal(results[1][i]));
  }
}

TEST(TorchModelTest, LaterTokensDoNotChangeEarlierOutputs) {
  const ModelConfig config = TinyModel();
  const StageLayout layout = ModelStageLayout(config, LayerRange{0, 1});
  at::Tensor flat = Double(InitialState(layout, 3)).narrow(0, 0, layout.size).clone();
  TorchModel model(config, LayerRange{0, 1}, layout, flat);
  at::Tensor tokens = Long(DrawTokens(1, 1, config));
  const at::Tensor before = model.Forward(tokens, {});
  tokens.data_ptr<int64_t>()[5] ^= 1;
  const at::Tensor after = model.Forward(tokens, {});
  EXPECT_TRUE(before.narrow(1, 0, 5).equal(after.narrow(1, 0, 5)));
  EXPECT_FALSE(before.narrow(1, 5, 1).equal(after.narrow(1, 5, 1)));
}

// Rotating by position makes scores a function of distance: shifting queries and keys together by
// one place must not change their products.
TEST(TorchOpsTest, RopeDependsOnDistanceOnly) {
  const ModelConfig config = TinyModel();
  const int64_t half = config.head_width() / 2;
  auto tables = [&](double place) {
    at::Tensor angles = at::zeros({1, 1, half}, at::TensorOptions().dtype(at::kDouble));
    for (int64_t i = 0; i < half; ++i) {
      angles.data_ptr<double>()[i] =
          place * std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half));
    }
    return std::make_pair(angles.cos(), angles.sin());
  };
  const at::Tensor q = DrawTensor(1, {1, 1, 1, 2 * half}, at::kDouble);
  const at::Tensor k = DrawTensor(2, {1, 1, 1, 2 * half}, at::kDouble);
  auto product = [&](double query_place, double key_place) {
    const auto [qc, qs] = tables(query_place);
    const auto [kc, ks] = tables(key_place);
    return (Rope(q, qc, qs) * Rope(k, kc, ks)).sum().item<double>();
  };
  EXPECT_NEAR(product(7, 3), product(8, 4), 1e-12);
  EXPECT_GT(std::abs(product(7, 3) - product(7, 4)), 1e-3);
}

}  // namespace
}  // namespace starling
