// TorchScript layers made in tests, without Python.
#ifndef STARLING_TESTS_STAGES_TORCH_OWN_LAYERS_TESTING_H_
#define STARLING_TESTS_STAGES_TORCH_OWN_LAYERS_TESTING_H_

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <torch/csrc/jit/api/module.h>

#include <cmath>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/hash.h"
#include "stages/own_layers.h"

namespace starling::testing {

// Numbers around 0 that are the same everywhere, and differ from parameter to parameter.
inline at::Tensor Numbers(const std::vector<int64_t>& shape, double salt = 1.0) {
  int64_t count = 1, fan_in = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    count *= shape[i];
    if (i > 0) fan_in *= shape[i];
  }
  const at::Tensor values = (at::arange(count, at::kFloat) * 12.9898 + salt).sin();
  return (values / std::sqrt(static_cast<double>(fan_in))).view(shape);
}

class Script {
 public:
  Script() : module_("Layer") {}

  Script& Parameter(const std::string& name, at::Tensor tensor) {
    if (tensor.is_floating_point()) tensor.set_requires_grad(true);
    module_.register_parameter(name, std::move(tensor), /*is_buffer=*/false);
    return *this;
  }
  Script& Buffer(const std::string& name, at::Tensor tensor) {
    module_.register_buffer(name, std::move(tensor));
    return *this;
  }
  Script& Attribute(const std::string& name, const c10::TypePtr& type, const c10::IValue& value) {
    module_.register_attribute(name, type, value);
    return *this;
  }
  // "def forward(self, x): ...", TorchScript.
  Script& Code(const std::string& code) {
    module_.define(code);
    return *this;
  }

  std::string Bytes() const {
    std::ostringstream out;
    module_.save(out);
    return out.str();
  }

  LayerSource Source(int64_t number = 0) const { return SourceOf(Bytes(), number); }

  static LayerSource SourceOf(const std::string& bytes, int64_t number = 0) {
    LayerSource source;
    source.number = number;
    source.name = "layer.pt";
    source.path = "some/layer.pt";
    source.bytes = Blob::OfString(bytes);
    source.sha256 = Sha256Hex(bytes.data(), bytes.size());
    return source;
  }

 private:
  torch::jit::Module module_;
};

}  // namespace starling::testing

#endif  // STARLING_TESTS_STAGES_TORCH_OWN_LAYERS_TESTING_H_
