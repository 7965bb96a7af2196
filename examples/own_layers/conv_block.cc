// A layer of one's own in C++: two convolutions with a way around them.
//
//   cmake -S . -B build -DSTARLING_LAYERS=examples/own_layers/conv_block.cc
//
// links it into starling-torch; linked.toml beside this file names it in its run file as
// conv_block(in=8, out=16, stride=2).
#include <torch/nn/functional/activation.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/normalization.h>

#include <memory>

#include "stages/torch_layer_registry.h"

namespace {

// float32 [n, in, H, W] to [n, out, H / stride, W / stride]. GroupNorm and not BatchNorm: what a
// forward gives depends on parameters and input alone.
class ConvBlock : public starling::LinkedLayer {
 public:
  ConvBlock(int64_t in, int64_t out, int64_t stride)
      : first_(register_module("first", Convolution(in, out, 3, stride))),
        second_(register_module("second", Convolution(out, out, 3, 1))),
        around_(register_module("around", Convolution(in, out, 1, stride))),
        norm1_(register_module("norm1", torch::nn::GroupNorm(1, out))),
        norm2_(register_module("norm2", torch::nn::GroupNorm(1, out))) {}

  at::Tensor Forward(const at::Tensor& input) override {
    const at::Tensor hidden = torch::silu(norm1_(first_(input)));
    return torch::silu(norm2_(second_(hidden)) + around_(input));
  }

 private:
  static torch::nn::Conv2d Convolution(int64_t in, int64_t out, int64_t kernel, int64_t stride) {
    return torch::nn::Conv2d(
        torch::nn::Conv2dOptions(in, out, kernel).stride(stride).padding(kernel / 2).bias(false));
  }

  torch::nn::Conv2d first_, second_, around_;
  torch::nn::GroupNorm norm1_, norm2_;
};

}  // namespace

// Called once by the program that this file is linked into; named after the file.
void RegisterLayers_conv_block(starling::LayerRegistry* registry) {
  registry->Add("conv_block", [](starling::LayerArguments* arguments) {
    const int64_t in = arguments->Integer("in");
    const int64_t out = arguments->Integer("out");
    return std::make_shared<ConvBlock>(in, out, arguments->Integer("stride", 1));
  });
}
