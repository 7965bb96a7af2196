// TorchLayer: one layer of the user's own with LibTorch behind it, from a TorchScript file or
// linked into the program. For files that see LibTorch only.
//
// Everything the swarm promises rests on a forward being a pure function of (parameters, input):
// the same microbatch may run on any replica, twice, or again after a death. What is not is refused
// when the layer is opened or probed, by name:
//   draws of its own (dropout); buffers or parameters that change in forward (BatchNorm that
//   collects statistics); changes of the input in place; attributes that are assigned.
// Statistics of the batch that are kept nowhere are allowed: a microbatch is the same everywhere.
//
// Runs the user's code. Threads: one at a time. Every function catches what LibTorch throws, except
// Forward.
#ifndef STARLING_STAGES_TORCH_LAYER_H_
#define STARLING_STAGES_TORCH_LAYER_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "stages/own_layers.h"

namespace starling {

class TorchLayer {
 public:
  struct Named {
    std::string name;
    at::Tensor tensor;
  };

  virtual ~TorchLayer() = default;
  virtual std::vector<Named> Parameters() const = 0;
  virtual std::vector<Named> Buffers() const = 0;
  virtual void MoveTo(const at::Device& device) = 0;
  // Throws what the user's code throws.
  virtual at::Tensor Forward(const at::Tensor& input) = 0;
};

// Opens a layer and checks what can be seen without running its forward. `seed` is for the first
// values of a linked layer's parameters; `linked` may be null. Errors, invalid argument, one line
// with the layer's number and name: not a TorchScript file, no such linked layer, or something
// above that is refused.
absl::StatusOr<std::unique_ptr<TorchLayer>> OpenTorchLayer(const LayerSource& source, uint64_t seed,
                                                           const LayerRegistry* linked);

// The layer's parameters in the flat run, without offsets.
std::vector<TensorSpec> TensorsOf(const TorchLayer& layer, int64_t number);

// Of the two kinds; OpenTorchLayer calls them.
absl::StatusOr<std::unique_ptr<TorchLayer>> OpenScriptLayer(const LayerSource& source);
absl::StatusOr<std::unique_ptr<TorchLayer>> OpenLinkedLayer(const LayerSource& source,
                                                            uint64_t seed,
                                                            const LayerRegistry* linked);

}  // namespace starling

#endif  // STARLING_STAGES_TORCH_LAYER_H_
