// Small models whose every parameter is drawn, and runs that hold them.
#ifndef STARLING_TESTS_INTEROP_HUGGINGFACE_TESTING_H_
#define STARLING_TESTS_INTEROP_HUGGINGFACE_TESTING_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "runtime/base/rng.h"
#include "runtime/config/run_file.h"
#include "runtime/reactor/posix_disk.h"
#include "stages/initial_state.h"
#include "stages/model_layout.h"
#include "tests/testing/subprocess.h"

namespace starling::testing {

inline ModelConfig SmallLlama() {
  ModelConfig model;
  model.layers = 2;
  model.width = 24;
  model.heads = 6;
  model.kv_heads = 2;
  model.context = 16;
  model.vocabulary = 256;
  model.mlp_width = 40;
  model.rope_theta = 500.0;
  model.norm_epsilon = 1e-6;
  return model;
}

inline ModelConfig SmallGpt2() {
  ModelConfig model = SmallLlama();
  model.norm = NormKind::kLayerNorm;
  model.mlp = MlpKind::kGelu;
  model.position = PositionKind::kLearned;
  model.bias = true;
  model.kv_heads = 0;
  model.dropout = 0.1;
  return model;
}

inline ModelConfig Tied(ModelConfig model) {
  model.tie_embeddings = true;
  return model;
}

// No norm stays one, no bias zero, and matrices are large enough to matter.
inline Blob DrawState(const StageLayout& layout, uint64_t seed) {
  const Blob initial = InitialState(layout, seed);
  MutableBlob state = MutableBlob::Zeros(DType::kF32, {kStatePlanes * layout.size});
  for (const TensorSpec& spec : layout.tensors) {
    for (int64_t i = spec.offset; i < spec.offset + spec.count; ++i) {
      const double draw = ToUnit(MixAll(seed, layout.size, i)) - 0.5;
      state.As<float>()[i] = initial.As<float>()[i] + static_cast<float>(0.6 * draw);
    }
  }
  return std::move(state).Freeze();
}

// A run directory with one checkpoint, cut into two stages. Gives the state of the whole model.
inline Blob MakeRun(const std::string& folder, const ModelConfig& model, uint64_t version = 7) {
  RunConfig config;
  config.model = model;
  config.swarm.stages = 2;
  const std::string toml = ToToml(config);
  PosixDisk disk;
  CheckpointMeta meta;
  meta.run = RunId{77};
  meta.version = Version{version};
  meta.config_toml = toml;
  std::vector<StagePart> parts;
  for (const LayerRange& range : StageRanges(config)) {
    const StageLayout layout = ModelStageLayout(model, range);
    parts.push_back({layout, DrawState(layout, 3)});
  }
  CheckpointStore store(folder + "/checkpoints");
  STARLING_CHECK(store.Save(disk, meta, parts).ok());
  WriteFileText(folder + "/run.toml", toml);
  auto state = LoadStage(disk, store.At(Era{0}, meta.version), WholeModelLayout(model));
  STARLING_CHECK_MSG(state.ok(), std::string(state.status().message()));
  return *std::move(state);
}

}  // namespace starling::testing

#endif  // STARLING_TESTS_INTEROP_HUGGINGFACE_TESTING_H_
