#include "stages/torch_layer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"
#include "stages/torch_blob.h"
#include "stages/torch_own_layers.h"

namespace starling {
namespace {

absl::Status Refuse(const LayerSource& source, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(source.Where(), ": ", why));
}

std::string ShapeText(const at::Tensor& tensor) {
  std::string text = absl::StrCat(std::string(c10::toString(tensor.scalar_type())), " [");
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ", ", tensor.size(i));
  }
  return text + "]";
}

// To the bit: NaN equals itself.
bool SameBytes(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  const at::Tensor left = a.detach().contiguous();
  const at::Tensor right = b.detach().contiguous();
  return std::memcmp(left.data_ptr(), right.data_ptr(), left.nbytes()) == 0;
}

absl::Status CheckParameters(const LayerSource& source, const TorchLayer& layer) {
  const std::vector<TorchLayer::Named> parameters = layer.Parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto& [name, tensor] = parameters[i];
    const std::string what = absl::StrCat("its parameter ", name);
    if (!tensor.defined() || tensor.layout() != at::kStrided || tensor.numel() == 0) {
      return Refuse(source, absl::StrCat(what, " is empty or not dense"));
    }
    if (tensor.scalar_type() != at::kFloat) {
      return Refuse(source, absl::StrCat(what, " is ", ShapeText(tensor),
                                         ": parameters are float32, all else a buffer"));
    }
    if (!tensor.requires_grad()) {
      return Refuse(source, absl::StrCat(what,
                                         " does not require gradients: what is not trained "
                                         "must be a buffer"));
    }
    for (size_t j = 0; j < i; ++j) {
      if (!tensor.is_alias_of(parameters[j].tensor)) continue;
      return Refuse(source, absl::StrCat(what, " shares its memory with ", parameters[j].name,
                                         ": use one parameter in both places"));
    }
  }
  return absl::OkStatus();
}

// What a forward must leave as it is.
class Untouched {
 public:
  explicit Untouched(const TorchLayer& layer) : random_(RandomState()) {
    Copy("buffer", layer.Buffers());
    Copy("parameter", layer.Parameters());
  }

  absl::Status Check(const LayerSource& source) const {
    for (const Kept& kept : all_) {
      if (SameBytes(kept.tensor, kept.before)) continue;
      return Refuse(source, absl::StrCat("its forward changes the ", kept.what, " ", kept.name,
                                         ": a stage's forward must be a pure function of "
                                         "parameters and input"));
    }
    if (SameBytes(random_, RandomState())) return absl::OkStatus();
    return Refuse(source,
                  "its forward draws random numbers (dropout, noise): a stage's forward "
                  "must be a pure function of parameters and input");
  }

 private:
  struct Kept {
    std::string what, name;
    at::Tensor tensor, before;
  };

  static at::Tensor RandomState() { return at::detail::getDefaultCPUGenerator().get_state(); }
  void Copy(const std::string& what, const std::vector<TorchLayer::Named>& tensors) {
    for (const auto& [name, tensor] : tensors) {
      if (tensor.defined()) all_.push_back({what, name, tensor, tensor.detach().clone()});
    }
  }

  const at::Tensor random_;
  std::vector<Kept> all_;
};

// Rows of numbers from -1 to 1; zeros where only integers are taken.
at::Tensor MadeUpInput(const RowShape& row, int64_t n) {
  std::vector<int64_t> shape = {n};
  shape.insert(shape.end(), row.dims.begin(), row.dims.end());
  if (row.dtype == DType::kF32) {
    const int64_t count = ElementCount(shape);
    return (at::linspace(0, static_cast<double>(7 * count), count) + 1.0).sin().view(shape);
  }
  return at::zeros(shape,
                   at::TensorOptions().dtype(row.dtype == DType::kU8 ? at::kByte : at::kLong));
}

absl::Status CheckOutput(const LayerSource& source, const at::Tensor& output, int64_t n) {
  if (!output.defined() || output.scalar_type() != at::kFloat || output.layout() != at::kStrided ||
      output.dim() < 1 || output.numel() == 0) {
    return Refuse(
        source,
        absl::StrCat("its output ", output.defined() ? ShapeText(output) : std::string("is none"),
                     " is not a float32 tensor with a row per sequence"));
  }
  if (output.size(0) == n) return absl::OkStatus();
  return Refuse(source, absl::StrCat("for ", n, " sequences its output is ", ShapeText(output),
                                     ": the first dimension must count the sequences"));
}

class Prober {
 public:
  Prober(const LayerSource& source, TorchLayer* layer) : source_(source), layer_(layer) {}

  absl::StatusOr<at::Tensor> Run(const at::Tensor& input) {
    at::Tensor output;
    const absl::Status ran = CatchTorch([&]() -> absl::Status {
      output = layer_->Forward(input);
      return absl::OkStatus();
    });
    if (!ran.ok()) {
      std::string why(ran.message());  // of a script: its traceback, the cause at the end
      while (!why.empty() && why.back() == '\n') why.pop_back();
      const size_t cause = why.rfind("RuntimeError: ");
      if (cause != std::string::npos) why = why.substr(cause + 14);
      return Refuse(source_, absl::StrCat("cannot take what comes before it, ", ShapeText(input),
                                          ": ", why.substr(0, why.find('\n'))));
    }
    STARLING_RETURN_IF_ERROR(CheckOutput(source_, output, input.size(0)));
    return output;
  }

  // Gives the output for `input`.
  absl::StatusOr<at::Tensor> Probe(const at::Tensor& input) {
    c10::AutoGradMode with_gradients(true);
    const Untouched untouched(*layer_);
    at::Tensor leaf = input.detach().clone();
    if (leaf.is_floating_point()) leaf.set_requires_grad(true);
    STARLING_ASSIGN_OR_RETURN(const at::Tensor output, Run(leaf));
    STARLING_RETURN_IF_ERROR(untouched.Check(source_));
    if (!SameBytes(leaf, input)) return Refuse(source_, "its forward changes its input in place");
    STARLING_ASSIGN_OR_RETURN(const at::Tensor again, Run(leaf));
    if (!SameBytes(output, again)) {
      return Refuse(source_, "its forward gives another output for the same input");
    }
    STARLING_RETURN_IF_ERROR(CheckGradients(leaf, output));
    return output.detach().contiguous();
  }

 private:
  // Gradients go through to the layers before it, and to at least one parameter.
  absl::Status CheckGradients(const at::Tensor& input, const at::Tensor& output) {
    std::vector<at::Tensor> leaves;
    if (input.requires_grad()) leaves.push_back(input);
    for (const auto& named : layer_->Parameters()) leaves.push_back(named.tensor);
    const bool first = source_.number == 0;
    if (leaves.empty()) return absl::OkStatus();
    const std::string cut = "no gradient goes through its forward (detach, no_grad, integers?)";
    if (!output.requires_grad()) return Refuse(source_, cut);
    std::vector<at::Tensor> gradients;
    const absl::Status ran = CatchTorch([&]() -> absl::Status {
      gradients = torch::autograd::grad({output}, leaves, {at::ones_like(output)},
                                        /*retain_graph=*/false, /*create_graph=*/false,
                                        /*allow_unused=*/true);
      return absl::OkStatus();
    });
    if (!ran.ok()) return Refuse(source_, absl::StrCat("its backward: ", ran.message()));
    if (!first && input.requires_grad() && !gradients[0].defined()) return Refuse(source_, cut);
    return absl::OkStatus();
  }

  const LayerSource& source_;
  TorchLayer* const layer_;
};

DType TypeOf(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat) return DType::kF32;
  return tensor.scalar_type() == at::kByte ? DType::kU8 : DType::kI32;
}

RowShape RowOf(const at::Tensor& tensor) {
  return {TypeOf(tensor), std::vector<int64_t>(tensor.sizes().begin() + 1, tensor.sizes().end())};
}

OwnLayer Describe(const LayerSource& source, const TorchLayer& layer) {
  OwnLayer own;
  own.name = source.name;
  own.tensors = TensorsOf(layer, source.number);
  own.sha256 = source.path.empty() ? LinkedLayerSha256(source.name, own.tensors) : source.sha256;
  for (const auto& named : layer.Parameters()) {
    const at::Tensor values = named.tensor.detach().contiguous();
    own.values.push_back(Blob::CopyOf(values.data_ptr(), DType::kF32, values.sizes().vec()));
  }
  return own;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TorchLayer>> OpenTorchLayer(const LayerSource& source, uint64_t seed,
                                                           const LayerRegistry* linked) {
  auto layer =
      source.path.empty() ? OpenLinkedLayer(source, seed, linked) : OpenScriptLayer(source);
  STARLING_RETURN_IF_ERROR(layer.status());
  STARLING_RETURN_IF_ERROR(CheckParameters(source, **layer));
  return layer;
}

std::vector<TensorSpec> TensorsOf(const TorchLayer& layer, int64_t number) {
  std::vector<TensorSpec> tensors;
  for (const auto& [name, tensor] : layer.Parameters()) {
    tensors.push_back(OwnTensor(number, name, tensor.sizes().vec()));
  }
  return tensors;
}

absl::StatusOr<std::vector<OwnLayer>> ProbeOwnLayers(const std::vector<LayerSource>& sources,
                                                     const RowShape& input, uint64_t seed,
                                                     const LayerRegistry* linked) {
  at::set_num_threads(1);  // it is little, and the trainer needs no others
  std::vector<OwnLayer> layers;
  at::Tensor two = MadeUpInput(input, 2);
  at::Tensor three = MadeUpInput(input, 3);
  for (const LayerSource& source : sources) {
    STARLING_ASSIGN_OR_RETURN(const std::unique_ptr<TorchLayer> layer,
                              OpenTorchLayer(source, seed, linked));
    OwnLayer own = Describe(source, *layer);
    own.input = RowOf(two);
    Prober prober(source, layer.get());
    STARLING_ASSIGN_OR_RETURN(two, prober.Probe(two));
    {
      c10::AutoGradMode no_gradients(false);
      STARLING_ASSIGN_OR_RETURN(three, prober.Run(three));
    }
    own.output = RowOf(two);
    if (RowOf(three).dims != own.output.dims) {
      return Refuse(source, absl::StrCat("a row of its output depends on how many there are: ",
                                         ShapeText(two), " and ", ShapeText(three)));
    }
    layers.push_back(std::move(own));
  }
  return layers;
}

}  // namespace starling
