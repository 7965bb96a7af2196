#include "runtime/config/run_config.h"

#include "runtime/base/check.h"

namespace starling {

std::vector<LayerRange> StageRanges(const RunConfig& config) {
  const int64_t layers = config.model.layers;
  std::vector<int64_t> begins = {0};
  if (!config.swarm.cuts.empty()) {
    begins.insert(begins.end(), config.swarm.cuts.begin(), config.swarm.cuts.end());
  } else {
    const int64_t stages = config.swarm.stages;
    for (int64_t stage = 1; stage < stages; ++stage) {
      begins.push_back(begins.back() + layers / stages + (stage - 1 < layers % stages ? 1 : 0));
    }
  }
  begins.push_back(layers);
  std::vector<LayerRange> ranges;
  for (size_t i = 0; i + 1 < begins.size(); ++i) {
    STARLING_CHECK_LT(begins[i], begins[i + 1]);
    ranges.push_back({begins[i], begins[i + 1]});
  }
  return ranges;
}

int64_t PerStage(const std::vector<int64_t>& values, uint32_t stage) {
  STARLING_CHECK(!values.empty());
  if (values.size() == 1) return values[0];
  STARLING_CHECK_LT(stage, values.size());
  return values[stage];
}

}  // namespace starling
