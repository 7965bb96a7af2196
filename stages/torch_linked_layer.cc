// Layers that are linked into the program.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/check.h"
#include "runtime/base/rng.h"
#include "runtime/base/status_macros.h"
#include "stages/torch_blob.h"
#include "stages/torch_layer.h"
#include "stages/torch_layer_registry.h"

namespace starling {
namespace {

constexpr uint64_t kInitKey = 0x6c61796572ULL;  // "layer"

absl::Status Refuse(const LayerSource& source, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(source.Where(), ": ", why));
}

class LinkedTorchLayer : public TorchLayer {
 public:
  explicit LinkedTorchLayer(std::shared_ptr<LinkedLayer> module) : module_(std::move(module)) {}

  std::vector<Named> Parameters() const override {
    std::vector<Named> parameters;
    for (const auto& item : module_->named_parameters()) {
      parameters.push_back({item.key(), item.value()});
    }
    return parameters;
  }

  std::vector<Named> Buffers() const override {
    std::vector<Named> buffers;
    for (const auto& item : module_->named_buffers()) buffers.push_back({item.key(), item.value()});
    return buffers;
  }

  void MoveTo(const at::Device& device) override { module_->to(device); }
  at::Tensor Forward(const at::Tensor& input) override { return module_->Forward(input); }

 private:
  const std::shared_ptr<LinkedLayer> module_;
};

// A module of LibTorch's own that drops out, or collects statistics where the probe's rows would
// not show it.
absl::Status CheckModules(const LayerSource& source, const LinkedLayer& module) {
  for (const auto& item : module.named_modules()) {
    const std::string& name = item.value()->name();
    if (!absl::StrContains(name, "Dropout")) continue;
    return Refuse(source, absl::StrCat("holds ", name, " as ", item.key(),
                                       ": a stage's forward must be a pure function of parameters "
                                       "and input"));
  }
  return absl::OkStatus();
}

}  // namespace

const std::string* LayerArguments::Find(const std::string& key) {
  asked_.insert(key);
  const auto found = call_.arguments.find(key);
  return found == call_.arguments.end() ? nullptr : &found->second;
}

void LayerArguments::Problem(const std::string& key, const std::string& why) {
  if (problem_.empty()) problem_ = absl::StrCat(key, why);
}

int64_t LayerArguments::Integer(const std::string& key) {
  if (Find(key) == nullptr) Problem(key, " is missing");
  const int64_t value = Integer(key, 1);
  if (value >= 1) return value;
  Problem(key, absl::StrCat(" = ", value, " is not 1 or more"));
  return 1;
}

int64_t LayerArguments::Integer(const std::string& key, int64_t otherwise) {
  const std::string* const text = Find(key);
  int64_t value = otherwise;
  if (text != nullptr && !absl::SimpleAtoi(*text, &value)) {
    Problem(key, absl::StrCat(" = ", *text, " is not a whole number"));
    return otherwise;
  }
  return value;
}

double LayerArguments::Real(const std::string& key, double otherwise) {
  const std::string* const text = Find(key);
  double value = otherwise;
  if (text != nullptr && !absl::SimpleAtod(*text, &value)) {
    Problem(key, absl::StrCat(" = ", *text, " is not a number"));
    return otherwise;
  }
  return value;
}

absl::Status LayerArguments::status() const {
  if (!problem_.empty()) return absl::InvalidArgumentError(problem_);
  for (const auto& [key, value] : call_.arguments) {
    if (asked_.count(key) > 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("does not take ", key, "; it takes ", absl::StrJoin(asked_, ", ")));
  }
  return absl::OkStatus();
}

void LayerRegistry::Add(const std::string& name, Maker maker) {
  STARLING_CHECK(makers_.emplace(name, std::move(maker)).second);
}

const LayerRegistry::Maker* LayerRegistry::Find(const std::string& name) const {
  const auto found = makers_.find(name);
  return found == makers_.end() ? nullptr : &found->second;
}

std::vector<std::string> LayerRegistry::names() const {
  std::vector<std::string> names;
  for (const auto& [name, maker] : makers_) names.push_back(name);
  return names;
}

absl::StatusOr<std::unique_ptr<TorchLayer>> OpenLinkedLayer(const LayerSource& source,
                                                            uint64_t seed,
                                                            const LayerRegistry* linked) {
  STARLING_ASSIGN_OR_RETURN(LayerCall call, ParseLayerCall(source.name));
  const LayerRegistry::Maker* const maker = linked == nullptr ? nullptr : linked->Find(call.name);
  if (maker == nullptr) {
    const std::vector<std::string> names =
        linked == nullptr ? std::vector<std::string>() : linked->names();
    return Refuse(
        source, absl::StrCat("no layer ", call.name, " is linked into this program (",
                             names.empty() ? "it has none" : "it has ", absl::StrJoin(names, ", "),
                             "): build with -DSTARLING_LAYERS=FILE.cc"));
  }
  LayerArguments arguments(std::move(call));
  std::shared_ptr<LinkedLayer> module;
  const absl::Status made = CatchTorch([&]() -> absl::Status {
    at::Generator generator = at::detail::getDefaultCPUGenerator();
    generator.set_current_seed(MixAll(kInitKey, seed, static_cast<uint64_t>(source.number)));
    module = (*maker)(&arguments);
    return absl::OkStatus();
  });
  if (auto status = arguments.status(); !status.ok()) {
    return Refuse(source, std::string(status.message()));
  }
  if (!made.ok()) return Refuse(source, absl::StrCat("cannot be made: ", made.message()));
  if (module == nullptr) return Refuse(source, "cannot be made");
  STARLING_RETURN_IF_ERROR(CheckModules(source, *module));
  return std::unique_ptr<TorchLayer>(std::make_unique<LinkedTorchLayer>(std::move(module)));
}

}  // namespace starling
