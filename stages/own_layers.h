// Layers of the user's own: what is known of them where there is no LibTorch.
//
// model.layers may be a list: each entry is a layer, and stages are cut between layers as with
// built-in ones. An entry is a TorchScript file, or `name(key=value, ...)`, a layer that was linked
// into starling-torch (torch_layer_registry.h). A file's code runs where it is loaded: it is taken
// from this machine's disk only, never from a peer, and only if its SHA-256 is the run's.
//
// A layer's parameters are named by the module, with the layer's number before:
// "layers.3.conv.weight". Their first values are the module's own. Weight decay applies to all with
// two dimensions or more, as in the built-in layers.
#ifndef STARLING_STAGES_OWN_LAYERS_H_
#define STARLING_STAGES_OWN_LAYERS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/base/layout.h"
#include "runtime/config/run_config.h"
#include "runtime/env/file_system.h"

namespace starling {

class LayerRegistry;  // torch_layer_registry.h

// "name(key=value, ...)" taken apart.
struct LayerCall {
  std::string name;
  std::map<std::string, std::string> arguments;
};

// Whether an entry is written as a linked layer: a name and "(...)".
bool IsLayerCall(const std::string& entry);
// Invalid argument: not as above, or an argument twice.
absl::StatusOr<LayerCall> ParseLayerCall(const std::string& entry);

// "stem.pt" of "models/stem.pt": what the swarm's configuration calls the file; a linked layer as
// it is.
std::string LayerName(const std::string& entry);

// What a layer is made from.
struct LayerSource {
  int64_t number = 0;  // among the model's layers
  std::string name;    // as in the run's configuration
  std::string path;    // of the file, for messages; empty: a linked layer
  Blob bytes;          // of the file
  std::string sha256;  // of the file; empty: a linked layer

  // "model.layers: layer 2 (stem.pt)", to begin a message with.
  std::string Where() const;
};

// Reads the files of layers [range.begin, range.end), FOLDER/NAME or an absolute name, and checks
// them against model.own_sha256 unless that is empty. Runs nothing.
//   not found and others as the disk has them; failed precondition: a file is not the run's.
absl::StatusOr<std::vector<LayerSource>> ReadLayerSources(Disk& disk, const std::string& folder,
                                                          const ModelConfig& model,
                                                          LayerRange range);

// One row of what a layer takes or gives: without the first dimension, which counts sequences.
struct RowShape {
  DType dtype = DType::kF32;
  std::vector<int64_t> dims;
};
std::string ToString(const RowShape& shape);  // "f32 [n, 3, 16]"

// A layer that was loaded once and looked at.
struct OwnLayer {
  std::string name;
  std::string sha256;               // as LayerSource; of a linked layer, of its name and parameters
  std::vector<TensorSpec> tensors;  // without offsets
  std::vector<Blob> values;         // f32, of each tensor: version 0
  RowShape input, output;
};

// The tensors of layers [range.begin, range.end) of all of a model's.
StageLayout OwnStageLayout(const std::vector<OwnLayer>& layers, LayerRange range);

// Version 0 of a stage: f32 [kStatePlanes * layout.size]. Every tensor of `layout` must be of one
// of the layers.
Blob OwnInitialState(const std::vector<OwnLayer>& layers, const StageLayout& layout);

// Of a tensor `name` with this shape in layer `number`.
TensorSpec OwnTensor(int64_t number, const std::string& name, std::vector<int64_t> shape);

// SHA-256 of what a linked layer is known by: its entry, names and shapes.
std::string LinkedLayerSha256(const std::string& entry, const std::vector<TensorSpec>& tensors);

// Invalid argument: a stage has no parameters, or the last layer's output does not fit targets of
// `target_dims`. Output [n, ..., classes] takes targets [n, ...].
absl::Status CheckOwnModel(const std::vector<OwnLayer>& layers,
                           const std::vector<LayerRange>& stages,
                           const std::vector<int64_t>& target_dims);

}  // namespace starling

#endif  // STARLING_STAGES_OWN_LAYERS_H_
