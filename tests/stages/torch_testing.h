// What the tests of stages/torch_* share: small models, made-up text, and a chain of stages run by
// hand.
#ifndef STARLING_TESTS_STAGES_TORCH_TESTING_H_
#define STARLING_TESTS_STAGES_TORCH_TESTING_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/rng.h"
#include "stages/initial_state.h"
#include "stages/model_layout.h"
#include "stages/torch_executor.h"

namespace starling {

constexpr SegmentId kMainSegment{0};

inline ModelConfig TinyModel() {
  ModelConfig config;
  config.layers = 3;
  config.width = 16;
  config.heads = 4;
  config.context = 8;
  config.vocabulary = 13;
  return config;
}

inline ModelConfig TinyGpt() {
  ModelConfig config = TinyModel();
  config.norm = NormKind::kLayerNorm;
  config.mlp = MlpKind::kGelu;
  config.position = PositionKind::kLearned;
  config.bias = true;
  return config;
}

// A model with a name, for tests that run over all of them.
struct Shape {
  std::string name;
  ModelConfig config;
};

inline void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

// One for every choice that a model has.
inline std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  shapes.push_back({"Llama", TinyModel()});
  shapes.push_back({"Gpt", TinyGpt()});
  ModelConfig grouped = TinyModel();
  grouped.kv_heads = 2;
  grouped.mlp_width = 20;
  shapes.push_back({"GroupedKeys", grouped});
  ModelConfig mixed = TinyModel();
  mixed.norm = NormKind::kLayerNorm;  // without an offset
  mixed.mlp = MlpKind::kGelu;
  mixed.kv_heads = 1;
  shapes.push_back({"LayerNormRopeOneKeyHead", mixed});
  ModelConfig learned = TinyModel();
  learned.position = PositionKind::kLearned;
  learned.bias = true;
  shapes.push_back({"RmsLearnedBias", learned});
  ModelConfig dropout = TinyModel();
  dropout.dropout = 0.2;
  shapes.push_back({"Dropout", dropout});
  ModelConfig tied = TinyGpt();
  tied.tie_embeddings = true;
  shapes.push_back({"GptTied", tied});
  tied = TinyModel();
  tied.tie_embeddings = true;
  shapes.push_back({"LlamaTied", tied});
  return shapes;
}

inline Blob DrawTokens(uint64_t seed, int64_t sequences, const ModelConfig& config) {
  MutableBlob tokens = MutableBlob::Uninitialized(DType::kI32, {sequences, config.context});
  Rng rng(seed);
  for (int32_t& token : tokens.As<int32_t>()) {
    token = static_cast<int32_t>(rng.Below(static_cast<uint64_t>(config.vocabulary)));
  }
  return std::move(tokens).Freeze();
}

inline Blob DrawHidden(uint64_t seed, int64_t sequences, const ModelConfig& config) {
  std::vector<float> values;
  Rng rng(seed);
  for (int64_t i = 0; i < sequences * config.context * config.width; ++i) {
    values.push_back(static_cast<float>(rng.Unit() - 0.5));
  }
  return Blob::OfFloats(values).Reshaped({sequences, config.context, config.width});
}

inline std::vector<float> Values(const Blob& blob) {
  const auto values = blob.As<float>();
  return std::vector<float>(values.begin(), values.end());
}

// Rows [begin, begin + count) of an i32 matrix.
inline Blob Rows(const Blob& matrix, int64_t begin, int64_t count) {
  const int64_t width = matrix.shape()[1];
  return matrix.Slice(begin * width, count * width).Reshaped({count, width});
}

inline WorkId TrainWork(uint32_t index, Step step = Step{1}) {
  return WorkId{MicrobatchId{step, WorkKind::kTrain, index}, AttemptId{}};
}

inline std::unique_ptr<TorchExecutor> MakeExecutor(const ModelConfig& config, LayerRange layers,
                                                   uint32_t stage = 0, int threads = 1,
                                                   int64_t memory = 0,
                                                   Precision precision = Precision::kFp32,
                                                   bool keep_older = false) {
  TorchExecutor::Options options;
  options.model = config;
  options.layers = layers;
  options.stage = StageId{stage};
  options.seed = 5;
  options.threads = threads;
  options.memory = memory;
  options.precision = precision;
  options.keep_older = keep_older;
  auto executor = TorchExecutor::Create(options);
  STARLING_CHECK_MSG(executor.ok(), std::string(executor.status().message()));
  const auto loaded = (*executor)->Load(InitialState((*executor)->layout(), 5));
  STARLING_CHECK(loaded.ok());
  return std::move(executor).value();
}

// A model cut into stages, run by hand one microbatch at a time.
class Chain {
 public:
  // `cuts` are the layers where a new stage begins.
  Chain(const ModelConfig& config, const std::vector<int64_t>& cuts) {
    int64_t begin = 0;
    for (size_t i = 0; i <= cuts.size(); ++i) {
      const int64_t end = i < cuts.size() ? cuts[i] : config.layers;
      stages_.push_back(MakeExecutor(config, LayerRange{begin, end}, static_cast<uint32_t>(i)));
      begin = end;
    }
  }

  TorchExecutor& stage(size_t index) { return *stages_[index]; }

  // Forward and backward through all stages; gives the loss summed over tokens.
  double Train(const WorkId& work, const Blob& tokens, const Blob& targets,
               uint64_t first_sequence = 0) {
    ForwardInput forward;
    forward.work = work;
    forward.input = tokens;
    forward.first_sequence = first_sequence;
    double loss = 0;
    for (size_t i = 0; i < stages_.size(); ++i) {
      if (i + 1 == stages_.size()) forward.targets = targets;
      auto output = stages_[i]->Forward(forward);
      STARLING_CHECK_MSG(output.ok(), std::string(output.status().message()));
      forward.input = output->output;
      loss = output->loss_sum;
    }
    BackwardInput backward;
    backward.work = work;
    backward.segment = kMainSegment;
    for (size_t i = stages_.size(); i-- > 0;) {
      backward.want_input_gradient = i > 0;
      auto output = stages_[i]->Backward(backward);
      STARLING_CHECK_MSG(output.ok(), std::string(output.status().message()));
      backward.gradient = output->input_gradient;
    }
    return loss;
  }

  // The gradient of every tensor of every stage, after sealing, in the order of the whole model's
  // names: of a tensor that stages share, the sum.
  std::vector<std::pair<std::string, std::vector<float>>> Gradients(Step step = Step{1}) {
    std::map<std::string, std::vector<float>> result;
    for (auto& stage : stages_) {
      stage->Seal(step);
      auto sum = stage->Read(step, {kMainSegment});
      STARLING_CHECK(sum.ok());
      const auto values = sum->gradient.As<float>();
      for (const TensorSpec& spec : stage->layout().tensors) {
        std::vector<float>& gradient = result[spec.name];
        gradient.resize(static_cast<size_t>(spec.count));
        for (int64_t i = 0; i < spec.count; ++i) gradient[i] += values[spec.offset + i];
      }
    }
    return {result.begin(), result.end()};
  }

 private:
  std::vector<std::unique_ptr<TorchExecutor>> stages_;
};

// ||a - b|| / ||b||, in fp64.
inline double RelativeDistance(const std::vector<float>& a, const std::vector<float>& b) {
  STARLING_CHECK_EQ(a.size(), b.size());
  double distance = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - b[i];
    distance += d * d;
    norm += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(distance / (norm + 1e-30));
}

}  // namespace starling

#endif  // STARLING_TESTS_STAGES_TORCH_TESTING_H_
