// Small models whose state says what it is, for tests of checkpoints.
#ifndef STARLING_TESTS_CHECKPOINT_CHECKPOINT_TESTING_H_
#define STARLING_TESTS_CHECKPOINT_CHECKPOINT_TESTING_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "runtime/base/hash.h"
#include "runtime/base/rng.h"

namespace starling::testing {

inline TensorSpec Spec(const std::string& name, std::vector<int64_t> shape) {
  TensorSpec spec;
  spec.name = name;
  spec.shape = std::move(shape);
  return spec;
}

// A model whose stages have the given numbers of layers.
inline std::vector<StageLayout> Layouts(const std::vector<int>& cut, int64_t width = 6) {
  std::vector<StageLayout> layouts;
  int layer = 0;
  for (const int layers : cut) {
    std::vector<TensorSpec> specs;
    if (layouts.empty()) specs.push_back(Spec("embedding", {10, width}));
    for (int i = 0; i < layers; ++i, ++layer) {
      const std::string prefix = "layers." + std::to_string(layer) + ".";
      specs.push_back(Spec(prefix + "weight", {width, width}));
      specs.push_back(Spec(prefix + "norm", {width}));
    }
    layouts.push_back(MakeLayout(std::move(specs)));
  }
  return layouts;
}

// The same, where the last stage has the embedding too, which the first one stores.
inline std::vector<StageLayout> TiedLayouts(const std::vector<int>& cut) {
  std::vector<StageLayout> layouts = Layouts(cut);
  if (layouts.size() == 1) return layouts;
  for (StageLayout* layout : {&layouts.front(), &layouts.back()}) {
    std::vector<TensorSpec> specs = layout->tensors;
    if (layout == &layouts.back()) {
      specs.push_back(Spec("embedding", {10, 6}));
      specs.back().stored = false;
    }
    for (TensorSpec& spec : specs) {
      if (spec.name == "embedding") spec.tie = 0;
    }
    *layout = MakeLayout(std::move(specs));
  }
  return layouts;
}

// The value of an element depends on its name, plane, place and `seed` alone.
inline Blob StateOf(const StageLayout& layout, uint64_t seed) {
  MutableBlob state = MutableBlob::Zeros(DType::kF32, {kStatePlanes * layout.size});
  for (int64_t plane = 0; plane < kStatePlanes; ++plane) {
    for (const TensorSpec& spec : layout.tensors) {
      const Hash128 name = HashBytes(spec.name.data(), spec.name.size());
      for (int64_t i = 0; i < spec.count; ++i) {
        state.As<float>()[plane * layout.size + spec.offset + i] =
            static_cast<float>(ToUnit(MixAll(name.low, plane, i, seed)));
      }
    }
  }
  return std::move(state).Freeze();
}

inline std::vector<StagePart> Parts(const std::vector<StageLayout>& layouts, uint64_t seed) {
  std::vector<StagePart> parts;
  for (const StageLayout& layout : layouts) parts.push_back({layout, StateOf(layout, seed)});
  return parts;
}

inline CheckpointMeta Meta(uint64_t version, uint32_t era = 0) {
  CheckpointMeta meta;
  meta.run = RunId{77};
  meta.era = Era{era};
  meta.version = Version{version};
  meta.config_toml = "[train]\nsteps = 10\n";
  return meta;
}

}  // namespace starling::testing

#endif  // STARLING_TESTS_CHECKPOINT_CHECKPOINT_TESTING_H_
