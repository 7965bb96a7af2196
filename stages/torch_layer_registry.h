// Layers of the user's own in C++, linked into starling-torch.
//
// A file of the user's defines a layer and one function that adds it, named after the file:
//
//   // conv_block.cc
//   class ConvBlock : public starling::LinkedLayer { ... at::Tensor Forward(const at::Tensor&) ...
//   }; void RegisterLayers_conv_block(starling::LayerRegistry* registry) {
//     registry->Add("conv_block", [](starling::LayerArguments* arguments) {
//       const int64_t in = arguments->Integer("in");
//       return std::make_shared<ConvBlock>(in, arguments->Integer("out"));
//     });
//   }
//
// The build is told of it with -DSTARLING_LAYERS="path/conv_block.cc;...", and the run file names
// it: model.layers = ["conv_block(in=1, out=8)", ...]. Every process that hosts it must be built
// with it. examples/own_layers has one to read.
//
// A forward must be a pure function of (parameters, input) (torch_layer.h); parameters are those
// that the module registers, with the values its constructor gave them, which may be drawn with
// LibTorch's generator: its seed is made from train.seed and the layer's number.
#ifndef STARLING_STAGES_TORCH_LAYER_REGISTRY_H_
#define STARLING_STAGES_TORCH_LAYER_REGISTRY_H_

#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "stages/own_layers.h"

namespace starling {

class LinkedLayer : public torch::nn::Module {
 public:
  // [n, ...] to float32 [n, ...]: a row for each of the n sequences.
  virtual at::Tensor Forward(const at::Tensor& input) = 0;
};

// The arguments that the run file gives. What is missing or wrong shows in status(), and the layer
// is then not used.
class LayerArguments {
 public:
  explicit LayerArguments(LayerCall call) : call_(std::move(call)) {}

  int64_t Integer(const std::string& key);  // must be given; 1 or more
  int64_t Integer(const std::string& key, int64_t otherwise);
  double Real(const std::string& key, double otherwise);

  // Invalid argument: one is missing or not a number, or nobody asked for one that was given.
  absl::Status status() const;

 private:
  const std::string* Find(const std::string& key);
  void Problem(const std::string& key, const std::string& why);

  const LayerCall call_;
  std::set<std::string> asked_;
  std::string problem_;
};

class LayerRegistry {
 public:
  using Maker = std::function<std::shared_ptr<LinkedLayer>(LayerArguments* arguments)>;

  // A name once only: aborts otherwise.
  void Add(const std::string& name, Maker maker);
  const Maker* Find(const std::string& name) const;  // null: there is none
  std::vector<std::string> names() const;

 private:
  std::map<std::string, Maker> makers_;
};

}  // namespace starling

#endif  // STARLING_STAGES_TORCH_LAYER_REGISTRY_H_
