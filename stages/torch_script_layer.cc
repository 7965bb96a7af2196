// Layers from TorchScript files: opened from bytes, and refused where their graph shows that the
// forward is not a pure function of (parameters, input).
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>

#include <functional>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"
#include "stages/torch_blob.h"
#include "stages/torch_layer.h"

namespace starling {
namespace {

namespace jit = torch::jit;

constexpr char kPure[] = ": a stage's forward must be a pure function of parameters and input";

absl::Status Refuse(const LayerSource& source, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(source.Where(), ": ", why));
}

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

// "aten::relu_".
std::string OpName(const jit::Node* node) { return node->kind().toQualString(); }

// Every node, those in blocks and subgraphs too, until one is refused.
absl::Status ForEachNode(jit::Block* block,
                         const std::function<absl::Status(jit::Node*)>& function) {
  for (jit::Node* node : block->nodes()) {
    STARLING_RETURN_IF_ERROR(function(node));
    for (jit::Block* inner : node->blocks()) {
      STARLING_RETURN_IF_ERROR(ForEachNode(inner, function));
    }
    if (node->hasAttribute(c10::attr::Subgraph)) {
      STARLING_RETURN_IF_ERROR(ForEachNode(node->g(c10::attr::Subgraph)->block(), function));
    }
  }
  return absl::OkStatus();
}

// "body.1.running_mean", where the value is an attribute of the module; else empty.
std::string AttributePath(const jit::Value* value) {
  const jit::Node* const node = value->node();
  if (node->kind() != c10::prim::GetAttr) return "";
  const std::string before = AttributePath(node->input());
  return absl::StrCat(before, before.empty() ? "" : ".", node->s(c10::attr::name));
}

bool Draws(const jit::Node* node) {
  static const auto* const kDraws = new std::set<std::string>{
      "rand",       "randn",        "randint",    "randperm",    "rand_like",
      "randn_like", "randint_like", "bernoulli",  "multinomial", "normal",
      "poisson",    "binomial",     "uniform",    "random",      "exponential",
      "geometric",  "cauchy",       "log_normal", "rrelu",       "rrelu_with_noise"};
  std::string name = OpName(node);
  name = name.substr(name.rfind(':') + 1);
  if (absl::StrContains(name, "dropout")) return true;
  while (!name.empty() && name.back() == '_') name.pop_back();
  return kDraws->count(name) > 0;
}

// Of operators that drop out only if an argument says so.
bool MayDrop(const jit::Node* node) {
  const c10::FunctionSchema* const schema = node->maybeSchema();
  if (schema == nullptr) return false;
  for (size_t i = 0; i < schema->arguments().size() && i < node->inputs().size(); ++i) {
    const std::string& name = schema->arguments()[i].name();
    if (name == "generator") return true;
    if (name != "dropout" && name != "dropout_p") continue;
    const auto value = jit::toIValue(node->input(i));
    if (!value || !value->isDouble() || value->toDouble() != 0) return true;
  }
  return false;
}

// BatchNorm and InstanceNorm that collect statistics.
bool CollectsStatistics(const jit::Node* node) {
  const std::string name = OpName(node);
  if (name != "aten::batch_norm" && name != "aten::instance_norm") return false;
  const auto running_mean = jit::toIValue(node->input(3));
  if (running_mean && running_mean->isNone()) return false;
  const auto training = jit::toIValue(node->input(5));
  return !training || !training->isBool() || training->toBool();
}

absl::Status CheckDraws(const LayerSource& source, const jit::Module& module) {
  std::shared_ptr<jit::Graph> graph = module.get_method("forward").graph()->copy();
  jit::Inline(*graph);
  return ForEachNode(graph->block(), [&source](jit::Node* node) {
    if (!Draws(node)) return absl::OkStatus();
    return Refuse(source,
                  absl::StrCat("draws random numbers of its own (", OpName(node), ")", kPure));
  });
}

// What an attribute holds, if the value is one of the module `self` stands for.
bool Resolve(const jit::Value* value, const jit::Value* self, const jit::Module& module,
             c10::IValue* held) {
  if (value == self) {
    *held = module._ivalue();
    return true;
  }
  const jit::Node* const node = value->node();
  c10::IValue owner;
  if (node->kind() != c10::prim::GetAttr || !Resolve(node->input(), self, module, &owner) ||
      !owner.isObject()) {
    return false;
  }
  *held = owner.toObject()->getAttr(node->s(c10::attr::name));
  return true;
}

// The forward with all numbers and flags that nothing assigns as constants, so that only what runs
// is there: `if self.training` is gone.
std::shared_ptr<jit::Graph> ForwardAsItRuns(const jit::Module& module) {
  std::shared_ptr<jit::Graph> graph = module.get_method("forward").graph()->copy();
  jit::Inline(*graph);
  std::set<std::string> assigned;
  std::vector<jit::Node*> reads;
  ForEachNode(graph->block(), [&](jit::Node* node) {
    if (node->kind() == c10::prim::SetAttr) assigned.insert(node->s(c10::attr::name));
    if (node->kind() == c10::prim::GetAttr) reads.push_back(node);
    return absl::OkStatus();
  }).IgnoreError();
  for (jit::Node* node : reads) {
    c10::IValue held;
    if (assigned.count(node->s(c10::attr::name)) > 0 ||
        !Resolve(node->output(), graph->inputs()[0], module, &held)) {
      continue;
    }
    if (!(held.isBool() || held.isInt() || held.isDouble() || held.isString() || held.isNone())) {
      continue;
    }
    const jit::WithInsertPoint here(node);
    node->output()->replaceAllUsesWith(graph->insertConstant(held));
  }
  jit::ConstantPropagation(graph);
  jit::EliminateDeadCode(graph);
  return graph;
}

absl::Status CheckWrites(const LayerSource& source, const jit::Module& module) {
  const std::shared_ptr<jit::Graph> graph = ForwardAsItRuns(module);
  jit::ValueSet kept = {graph->inputs()[1]};
  const auto look = [&](jit::Node* node) {
    const auto kind = node->kind();
    if (kind == c10::prim::SetAttr) {
      return Refuse(source, absl::StrCat("assigns its attribute ", node->s(c10::attr::name),
                                         " in forward", kPure));
    }
    if (MayDrop(node)) {
      return Refuse(source,
                    absl::StrCat("draws random numbers of its own (", OpName(node), ")", kPure));
    }
    if (kind == c10::prim::CallMethod || kind == c10::prim::CallFunction) {
      return Refuse(source, "calls something that cannot be looked into");
    }
    if (CollectsStatistics(node)) {
      const std::string mean = AttributePath(node->input(3));
      return Refuse(source,
                    absl::StrCat(OpName(node), " in training mode changes its ",
                                 mean.empty() ? "running_mean" : mean, " in forward", kPure));
    }
    for (const jit::Value* output : node->outputs()) {
      const bool attribute = kind == c10::prim::GetAttr || kind == c10::prim::Constant;
      if (attribute && output->type()->isSubtypeOf(*c10::TensorType::get())) kept.insert(output);
    }
    return absl::OkStatus();
  };
  STARLING_RETURN_IF_ERROR(ForEachNode(graph->block(), look));
  const jit::AliasDb aliases(graph, /*isFrozen=*/false, /*descendFunctionCalls=*/true);
  return ForEachNode(graph->block(), [&](jit::Node* node) {
    if (!node->blocks().empty() || !aliases.writesToAlias(node, kept)) return absl::OkStatus();
    const std::string what = AttributePath(node->input(0));
    return Refuse(source, absl::StrCat(OpName(node), " in forward changes ",
                                       what.empty() ? "its input, a parameter or a buffer" : what,
                                       " in place", kPure));
  });
}

absl::Status CheckForwardTakesATensor(const LayerSource& source, const jit::Module& module) {
  const auto forward = module.find_method("forward");
  if (!forward) return Refuse(source, "has no forward");
  const c10::FunctionSchema& schema = forward->function().getSchema();
  size_t needed = 0;
  for (const c10::Argument& argument : schema.arguments()) needed += !argument.default_value();
  const bool takes_one = schema.arguments().size() >= 2 && needed == 2 &&
                         c10::TensorType::get()->isSubtypeOf(*schema.arguments()[1].type());
  const bool gives_one = schema.returns().size() == 1 &&
                         schema.returns()[0].type()->isSubtypeOf(*c10::TensorType::get());
  if (takes_one && gives_one) return absl::OkStatus();
  return Refuse(source, "its forward must take one tensor and give one");
}

class ScriptLayer : public TorchLayer {
 public:
  explicit ScriptLayer(jit::Module module) : module_(std::move(module)) {}

  std::vector<Named> Parameters() const override {
    std::vector<Named> parameters;
    for (const auto& parameter : module_.named_parameters()) {
      parameters.push_back({parameter.name, parameter.value});
    }
    return parameters;
  }

  std::vector<Named> Buffers() const override {
    std::vector<Named> buffers;
    for (const auto& buffer : module_.named_buffers()) {
      buffers.push_back({buffer.name, buffer.value});
    }
    // Tensors that are neither, but constants of the module or plain attributes, are seen by
    // CheckWrites alone.
    return buffers;
  }

  void MoveTo(const at::Device& device) override { module_.to(device); }

  // As written: the optimizer would specialize it after some runs, with other last bits.
  at::Tensor Forward(const at::Tensor& input) override {
    const jit::GraphOptimizerEnabledGuard as_written(false);
    return module_.forward({input}).toTensor();
  }

 private:
  jit::Module module_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TorchLayer>> OpenScriptLayer(const LayerSource& source) {
  jit::Module module;
  const absl::Status read = CatchTorch([&]() -> absl::Status {
    std::istringstream bytes(source.bytes.ToStringBytes());
    module = jit::load(bytes, at::Device(at::kCPU));
    return absl::OkStatus();
  });
  if (!read.ok()) {
    return Refuse(source, absl::StrCat("is not a TorchScript file, or damaged (",
                                       FirstLine(std::string(read.message())),
                                       "); write it with torch.jit.script(module).save(path)"));
  }
  STARLING_RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    STARLING_RETURN_IF_ERROR(CheckForwardTakesATensor(source, module));
    STARLING_RETURN_IF_ERROR(CheckDraws(source, module));
    return CheckWrites(source, module);
  }));
  return std::unique_ptr<TorchLayer>(std::make_unique<ScriptLayer>(std::move(module)));
}

}  // namespace starling
