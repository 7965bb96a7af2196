// Layers of the user's own: what is taken, what is refused and by which name, and the numbers that
// come out of the executor.
#include "stages/torch_own_layers.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "stages/torch_executor.h"
#include "stages/torch_layer_registry.h"
#include "tests/stages/torch_own_layers_testing.h"

namespace starling {
namespace {

using ::starling::testing::Numbers;
using ::starling::testing::Script;
using ::testing::HasSubstr;

const RowShape kFour = {DType::kF32, {4}};

absl::Status Probe(const LayerSource& source, const LayerRegistry* linked = nullptr) {
  return ProbeOwnLayers({source}, kFour, 1, linked).status();
}

Script Plain(const std::string& forward) {
  Script script;
  script.Parameter("weight", Numbers({4})).Buffer("seen", at::zeros({4}));
  script.Attribute("training", c10::BoolType::get(), true);
  return script.Code("def forward(self, x):\n" + forward);
}

struct Refused {
  std::string name;
  std::string forward;
  std::string says;
};

void PrintTo(const Refused& refused, std::ostream* out) { *out << refused.name; }

class RefusedLayerTest : public ::testing::TestWithParam<Refused> {};

TEST_P(RefusedLayerTest, IsNamedWithTheReason) {
  const absl::Status status = Probe(Plain(GetParam().forward).Source());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("layer 0 (some/layer.pt): "));
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().says));
  EXPECT_EQ(std::string(status.message()).find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    All, RefusedLayerTest,
    ::testing::Values(
        Refused{"Dropout", "  return torch.dropout(x * self.weight, 0.5, self.training)\n",
                "draws random numbers of its own (aten::dropout)"},
        Refused{"DropoutThatIsOff", "  return torch.dropout(x * self.weight, 0.5, False)\n",
                "draws random numbers of its own (aten::dropout)"},
        Refused{"Noise", "  return x * self.weight + torch.rand_like(x)\n", "aten::rand_like"},
        Refused{"NoiseInABranch",
                "  if self.training:\n    x = x + torch.randn([4])\n  return x * self.weight\n",
                "aten::randn"},
        Refused{"BatchNormThatCollects",
                "  return torch.batch_norm(x, self.weight, None, self.seen, self.seen, "
                "self.training, 0.1, 1e-5, False)\n",
                "aten::batch_norm in training mode changes its seen"},
        Refused{"BufferThatCounts", "  self.seen.add_(1)\n  return x * self.weight\n",
                "aten::add_ in forward changes seen in place"},
        Refused{"AttributeThatIsAssigned",
                "  self.seen = self.seen + x.mean()\n  return x * self.weight\n",
                "assigns its attribute seen"},
        Refused{"InputInPlace", "  x.mul_(2)\n  return x * self.weight\n",
                "aten::mul_ in forward changes its input, a parameter or a buffer in place"},
        Refused{"ParameterInPlace", "  return x * self.weight.detach().add_(1) * self.weight\n",
                "in place"},
        Refused{"NoGradient", "  return (x * self.weight).detach()\n", "no gradient goes through"},
        Refused{"OutputOfAnotherType", "  return (x * self.weight).double()\n",
                "is not a float32 tensor"},
        Refused{"OutputWithoutRows", "  return (x * self.weight).sum()\n",
                "is not a float32 tensor"},
        Refused{"OutputWithOtherRows", "  return (x * self.weight)[0:1]\n",
                "the first dimension must count the sequences"},
        Refused{"RowsThatDependOnTheirNumber",
                "  return (x * self.weight).unsqueeze(1).expand(-1, x.size(0), -1)\n",
                "depends on how many there are"},
        Refused{"WhatDoesNotFit", "  return torch.mm(x, self.weight.view(2, 2))\n",
                "cannot take what comes before it, Float [2, 4]"}),
    [](const auto& info) { return info.param.name; });

TEST(OwnLayersTest, WhatIsPureIsTaken) {
  for (const char* const forward :
       {// In place, but on what is its own.
        "  y = x * self.weight\n  y.relu_()\n  return y\n",
        // Statistics of the batch that are kept nowhere, and kept ones that are only read.
        "  return torch.batch_norm(x, self.weight, None, None, None, True, 0.1, 1e-5, False)\n",
        "  return torch.batch_norm(x, self.weight, None, self.seen, self.seen + 1, False, 0.1, "
        "1e-5, False)\n",
        // A branch that is not taken.
        "  if not self.training:\n    self.seen.add_(1)\n  return x * self.weight\n"}) {
    EXPECT_EQ(Probe(Plain(std::string(forward)).Source()), absl::OkStatus()) << forward;
  }
}

TEST(OwnLayersTest, ParametersThatCannotBeTrainedAreNamed) {
  const std::string forward =
      "def forward(self, x):\n  return x * self.a.float() + self.b.float()\n";
  const auto refusal = [&](at::Tensor a, at::Tensor b) {
    return std::string(
        Probe(Script().Parameter("a", a).Parameter("b", b).Code(forward).Source()).message());
  };
  EXPECT_THAT(refusal(Numbers({4}), Numbers({4}).to(at::kDouble)),
              HasSubstr("parameter b is Double [4]: parameters are float32"));
  EXPECT_THAT(refusal(at::zeros({4}, at::kLong), Numbers({4})), HasSubstr("parameter a is Long"));
  at::Tensor shared = Numbers({4});
  EXPECT_THAT(refusal(shared, shared), HasSubstr("b shares its memory with a"));
  torch::jit::Module module("Layer");
  module.register_parameter("a", Numbers({4}), false);
  module.define("def forward(self, x):\n  return x * self.a\n");
  std::ostringstream bytes;
  module.save(bytes);
  EXPECT_THAT(std::string(Probe(Script::SourceOf(bytes.str())).message()),
              HasSubstr("parameter a does not require gradients"));
}

TEST(OwnLayersTest, FilesThatAreNoTorchScriptAreSaidToBeNone) {
  const std::string whole = Plain("  return x * self.weight\n").Bytes();
  for (const std::string& bytes :
       {std::string("hello"), std::string(), whole.substr(0, whole.size() / 2),
        whole.substr(0, whole.size() - 40)}) {
    const absl::Status status = Probe(Script::SourceOf(bytes));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("is not a TorchScript file, or damaged"));
  }
  Script two;
  two.Parameter("weight", Numbers({4})).Code("def forward(self, x, y):\n  return x + y\n");
  EXPECT_THAT(std::string(Probe(two.Source()).message()),
              HasSubstr("must take one tensor and give one"));
}

Script Linear(int64_t in, int64_t out, double salt) {
  Script script;
  script.Parameter("weight", Numbers({out, in}, salt)).Parameter("bias", Numbers({out}, salt));
  return script.Code("def forward(self, x):\n  return torch.mm(x, self.weight.t()) + self.bias\n");
}

TEST(OwnLayersTest, ProbeNotesNamesValuesAndShapes) {
  const auto layers =
      ProbeOwnLayers({Linear(4, 3, 1).Source(0), Linear(3, 2, 2).Source(1)}, kFour, 1, nullptr);
  ASSERT_TRUE(layers.ok()) << layers.status();
  EXPECT_EQ((*layers)[0].output.dims, std::vector<int64_t>{3});
  EXPECT_EQ((*layers)[1].input.dims, std::vector<int64_t>{3});
  const StageLayout layout = OwnStageLayout(*layers, LayerRange{0, 2});
  std::vector<std::string> names;
  for (const TensorSpec& spec : layout.tensors) names.push_back(spec.name);
  EXPECT_EQ(names, (std::vector<std::string>{"layers.0.bias", "layers.0.weight", "layers.1.bias",
                                             "layers.1.weight"}));
  EXPECT_FALSE(layout.tensors[0].decay);
  EXPECT_TRUE(layout.tensors[1].decay);
  const Blob state = OwnInitialState(*layers, layout);
  const at::Tensor bias = Numbers({3}, 1);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(state.As<float>()[static_cast<size_t>(layout.tensors[0].offset + i)],
              bias[i].item<float>());
  }
}

// --- the executor ---

ModelConfig TwoLayers() {
  ModelConfig model;
  model.layers = 2;
  model.own_layers = {"a.pt", "b.pt"};
  return model;
}

std::unique_ptr<TorchExecutor> MakeExecutor(LayerRange range, std::vector<LayerSource> sources,
                                            uint32_t stage) {
  TorchExecutor::Options options;
  options.model = TwoLayers();
  options.layers = range;
  options.own = std::move(sources);
  options.stage = StageId{stage};
  auto executor = TorchExecutor::Create(options);
  EXPECT_TRUE(executor.ok()) << executor.status();
  return *std::move(executor);
}

// Two layers, two stages, three samples; the gradients by hand.
TEST(OwnStageTest, GradientsAreThoseOfTheChainRule) {
  const LayerSource a = Linear(4, 3, 1).Source(0), b = Linear(3, 2, 2).Source(1);
  const auto layers = ProbeOwnLayers({a, b}, kFour, 1, nullptr);
  ASSERT_TRUE(layers.ok()) << layers.status();
  const auto first = MakeExecutor({0, 1}, {a}, 0);
  const auto last = MakeExecutor({1, 2}, {b}, 1);
  ASSERT_TRUE(first->Load(OwnInitialState(*layers, first->layout())).ok());
  ASSERT_TRUE(last->Load(OwnInitialState(*layers, last->layout())).ok());
  std::vector<float> rows(12);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = 0.25f * static_cast<float>(i) - 1.0f;
  const std::vector<int32_t> targets = {1, 0, 1};
  ForwardInput input;
  input.work.id.step = Step{1};
  input.input = Blob::CopyOf(rows.data(), DType::kF32, {3, 4});
  const auto hidden = first->Forward(input);
  ASSERT_TRUE(hidden.ok()) << hidden.status();
  input.input = hidden->output;
  input.targets = Blob::CopyOf(targets.data(), DType::kI32, {3});
  const auto loss = last->Forward(input);
  ASSERT_TRUE(loss.ok()) << loss.status();
  EXPECT_EQ(loss->tokens, 3);

  BackwardInput backward;
  backward.work = input.work;
  backward.segment = SegmentId{0};
  const auto gradient = last->Backward(backward);
  ASSERT_TRUE(gradient.ok()) << gradient.status();
  backward.gradient = gradient->input_gradient;
  backward.want_input_gradient = false;
  ASSERT_TRUE(first->Backward(backward).ok());

  const at::Tensor x = at::tensor(rows).view({3, 4});
  const at::Tensor w1 = Numbers({3, 4}, 1), b1 = Numbers({3}, 1);
  const at::Tensor w2 = Numbers({2, 3}, 2), b2 = Numbers({2}, 2);
  const at::Tensor h = x.mm(w1.t()) + b1;
  const at::Tensor probability = (h.mm(w2.t()) + b2).softmax(-1);
  at::Tensor expected = probability.clone();
  double expected_loss = 0;
  for (int64_t i = 0; i < 3; ++i) {
    const int64_t target = targets[static_cast<size_t>(i)];
    expected_loss -= std::log(probability[i][target].item<double>());
    expected[i][target] -= 1;
  }
  EXPECT_NEAR(loss->loss_sum, expected_loss, 1e-5);
  const auto expect_segment = [](StageExecutor* executor, const StageLayout& layout,
                                 const at::Tensor& bias, const at::Tensor& weight) {
    executor->Seal(Step{1});
    const auto sum = executor->Read(Step{1}, {SegmentId{0}});
    ASSERT_TRUE(sum.ok()) << sum.status();
    const auto got = sum->gradient.As<float>();
    const at::Tensor both[] = {bias.contiguous(), weight.contiguous()};
    for (int i : {0, 1}) {
      for (int64_t j = 0; j < both[i].numel(); ++j) {
        const auto place = static_cast<size_t>(layout.tensors[static_cast<size_t>(i)].offset + j);
        EXPECT_NEAR(got[place], both[i].view(-1)[j].item<float>(), 1e-5);
      }
    }
  };
  expect_segment(last.get(), last->layout(), expected.sum(0), expected.t().mm(h));
  const at::Tensor back = expected.mm(w2);
  expect_segment(first.get(), first->layout(), back.sum(0), back.t().mm(x));
}

TEST(OwnStageTest, InputThatDoesNotFitIsAnErrorThatNamesTheLayer) {
  const LayerSource a = Linear(4, 3, 1).Source(0), b = Linear(3, 2, 2).Source(1);
  const auto layers = ProbeOwnLayers({a, b}, kFour, 1, nullptr);
  ASSERT_TRUE(layers.ok()) << layers.status();
  const auto executor = MakeExecutor({0, 2}, {a, b}, 0);
  ASSERT_TRUE(executor->Load(OwnInitialState(*layers, executor->layout())).ok());
  ForwardInput input;
  input.work.id.step = Step{1};
  input.input = Blob::OfFloats({1, 2, 3, 4, 5}).Reshaped({1, 5});
  const int32_t targets[] = {2};
  input.targets = Blob::CopyOf(targets, DType::kI32, {1});
  absl::Status status = executor->Forward(input).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("layer 0 (some/layer.pt)"));
  input.input = Blob::OfFloats({1, 2, 3, 4}).Reshaped({1, 4});
  status = executor->Forward(input).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("a target is not from 0 to 1"));
}

// --- linked layers ---

class Scale : public LinkedLayer {
 public:
  explicit Scale(int64_t width) { weight_ = register_parameter("weight", at::ones({width})); }
  at::Tensor Forward(const at::Tensor& input) override { return input * weight_; }

 protected:
  at::Tensor weight_;
};

class Counting : public Scale {
 public:
  Counting() : Scale(4) { count_ = register_buffer("count", at::zeros({1})); }
  at::Tensor Forward(const at::Tensor& input) override {
    count_ += 1;
    return Scale::Forward(input);
  }

 private:
  at::Tensor count_;
};

class Noisy : public Scale {
 public:
  Noisy() : Scale(4) {}
  at::Tensor Forward(const at::Tensor& input) override {
    at::Tensor noise = at::zeros({4});
    noise.uniform_();
    return Scale::Forward(input) + 0 * noise;
  }
};

std::string ProbeLinked(const std::string& entry) {
  LayerRegistry registry;
  registry.Add("scale", [](LayerArguments* arguments) {
    return std::make_shared<Scale>(arguments->Integer("width"));
  });
  registry.Add("counting", [](LayerArguments*) { return std::make_shared<Counting>(); });
  registry.Add("noisy", [](LayerArguments*) { return std::make_shared<Noisy>(); });
  LayerSource source;
  source.name = entry;
  return std::string(Probe(source, &registry).message());
}

TEST(LinkedLayersTest, ArgumentsAreCheckedAndImpureOnesRefused) {
  EXPECT_EQ(ProbeLinked("scale(width=4)"), "");
  EXPECT_THAT(ProbeLinked("scale(width=5)"), HasSubstr("cannot take what comes before it"));
  EXPECT_THAT(ProbeLinked("scale()"), HasSubstr("width is missing"));
  EXPECT_THAT(ProbeLinked("scale(width=0)"), HasSubstr("width = 0 is not 1 or more"));
  EXPECT_THAT(ProbeLinked("scale(width=many)"), HasSubstr("width = many is not a whole number"));
  EXPECT_THAT(ProbeLinked("scale(width=4, height=2)"),
              HasSubstr("does not take height; it takes width"));
  EXPECT_THAT(ProbeLinked("scales(width=4)"),
              HasSubstr("no layer scales is linked into this program (it has counting, noisy, "
                        "scale)"));
  EXPECT_THAT(ProbeLinked("counting()"), HasSubstr("its forward changes the buffer count"));
  EXPECT_THAT(ProbeLinked("noisy()"), HasSubstr("its forward draws random numbers"));
}

}  // namespace
}  // namespace starling
