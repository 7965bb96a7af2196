// Looks at layers of the user's own before a run begins. Shows nothing of LibTorch.
#ifndef STARLING_STAGES_TORCH_OWN_LAYERS_H_
#define STARLING_STAGES_TORCH_OWN_LAYERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "stages/own_layers.h"

namespace starling {

// Opens each of the model's layers in order, runs it on rows of made-up numbers, beginning with
// `input`, and notes what goes in and comes out. Each is refused unless it is a pure function of
// (parameters, input) (torch_layer.h). `seed` is for the first values of linked layers; `linked`,
// what there is of these, may be null.
//   invalid argument: one line that names the layer, by number and file, and what is wrong with it.
absl::StatusOr<std::vector<OwnLayer>> ProbeOwnLayers(const std::vector<LayerSource>& sources,
                                                     const RowShape& input, uint64_t seed,
                                                     const LayerRegistry* linked);

}  // namespace starling

#endif  // STARLING_STAGES_TORCH_OWN_LAYERS_H_
