#include "stages/torch_executor.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <chrono>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "stages/model_layout.h"
#include "stages/optimizer.h"
#include "stages/segment_book.h"
#include "stages/torch_allocations.h"
#include "stages/torch_blob.h"
#include "stages/torch_own_model.h"
#include "stages/torch_stage_model.h"

namespace starling {
namespace {

using Clock = std::chrono::steady_clock;

// What a replica needs whatever its microbatches are: its state, a step's gradient, a round's
// result.
int64_t FixedMemory(const StageLayout& layout) {
  return (kStatePlanes + 2) * layout.size * static_cast<int64_t>(sizeof(float));
}

std::string Mebibytes(int64_t bytes) {
  return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

void SetInteropThreadsOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    try {
      at::set_num_interop_threads(1);
    } catch (const std::exception&) {
      // Another part of the program has started that pool. Nothing here uses it.
    }
  });
}

// Shapes of inputs whose graphs were measured; training has a full microbatch and a short last one.
constexpr size_t kGraphSizesKept = 8;

TorchExecutor::Options WithoutFiles(TorchExecutor::Options options) {
  options.own.clear();
  return options;
}

class TorchExecutorImpl : public TorchExecutor {
 public:
  using MakeModel =
      std::function<std::unique_ptr<StageModel>(const StageLayout&, const at::Tensor& flat)>;

  TorchExecutorImpl(const Options& options, StageLayout layout, at::Tensor state,
                    const MakeModel& make_model)
      : options_(WithoutFiles(options)),
        graph_budget_(options.memory == 0 ? std::numeric_limits<int64_t>::max()
                                          : options.memory - FixedMemory(layout)),
        layout_(std::move(layout)),
        state_(std::move(state)),
        model_(make_model(layout_, state_.narrow(0, 0, layout_.size))),
        segments_(options_.stage, [this] { return at::zeros({layout_.size}, state_.options()); }) {}

  const StageLayout& layout() const override { return layout_; }
  int64_t size() const override { return layout_.size; }

  absl::StatusOr<ForwardOutput> Forward(const ForwardInput& input) override {
    return CatchTorch([&]() -> absl::StatusOr<ForwardOutput> {
      Prepare();
      STARLING_RETURN_IF_ERROR(CheckLoaded());
      STARLING_RETURN_IF_ERROR(CheckForward(input));
      const Clock::time_point start = Clock::now();
      STARLING_ASSIGN_OR_RETURN(ForwardOutput output, Run(input));
      output.took = absl::FromChrono(Clock::now() - start);
      return output;
    });
  }

  absl::StatusOr<BackwardOutput> Backward(const BackwardInput& input) override {
    return CatchTorch([&]() -> absl::StatusOr<BackwardOutput> {
      Prepare();
      const Clock::time_point start = Clock::now();
      auto node = held_.extract(input.work);
      if (node.empty()) {
        return absl::FailedPreconditionError("nothing is held of " + ToString(input.work));
      }
      Held held = std::move(node.mapped());
      STARLING_RETURN_IF_ERROR(CheckBackward(input, held));
      if (held.again.has_value()) held = Pass(*held.again, /*graph=*/true);
      STARLING_ASSIGN_OR_RETURN(BackwardOutput output, Differentiate(input, held));
      output.took = absl::FromChrono(Clock::now() - start);
      return output;
    });
  }

  void Drop(WorkId work) override { held_.erase(work); }

  std::vector<SegmentSummary> Seal(Step step) override {
    std::vector<SegmentSummary> summaries = segments_.Seal(step);
    PointGradientsAt(at::Tensor());  // no later backward may write to a frozen segment
    return summaries;
  }

  absl::StatusOr<SegmentSum> Read(Step step, const std::vector<SegmentId>& segments) override {
    return CatchTorch([&]() -> absl::StatusOr<SegmentSum> {
      Prepare();
      STARLING_ASSIGN_OR_RETURN(const auto frozen, segments_.Frozen(step, segments));
      SegmentSum result;
      at::Tensor sum;
      for (const auto* segment : frozen) {
        result.lane += segment->summary.lane;
        sum = sum.defined() ? sum + segment->sum : segment->sum;
      }
      if (!sum.defined()) sum = at::zeros({layout_.size}, at::TensorOptions().dtype(at::kFloat));
      result.gradient = BlobOver(sum);
      return result;
    });
  }

  void FreeThrough(Step step) override {
    PointGradientsAt(at::Tensor());
    segments_.FreeThrough(step);
    while (!held_.empty() && held_.begin()->first.id.step <= step) held_.erase(held_.begin());
  }

  absl::StatusOr<Hash128> Apply(const UpdateScalars& scalars,
                                const std::vector<Blob>& gradient) override {
    return CatchTorch([&]() -> absl::StatusOr<Hash128> {
      Prepare();
      STARLING_RETURN_IF_ERROR(CheckLoaded());
      at::Tensor host = state_.cpu();  // state_ itself if it is there
      STARLING_RETURN_IF_ERROR(ApplyAdamW(layout_, scalars, gradient, Floats(host)));
      if (!state_.is_cpu()) state_.copy_(host);
      ParametersChanged();
      return HashBytes(host.data_ptr(), host.nbytes());
    });
  }

  absl::StatusOr<Blob> Snapshot() override {
    return CatchTorch([&]() -> absl::StatusOr<Blob> {
      STARLING_RETURN_IF_ERROR(CheckLoaded());
      return BlobOver(state_.is_cpu() ? state_.clone() : state_.cpu());
    });
  }

  absl::StatusOr<Hash128> Load(const Blob& state) override {
    return CatchTorch([&]() -> absl::StatusOr<Hash128> {
      Prepare();
      if (state.dtype() != DType::kF32 || state.element_count() != kStatePlanes * layout_.size) {
        return absl::InvalidArgumentError("a state of this stage is f32 [" +
                                          std::to_string(kStatePlanes * layout_.size) +
                                          "], this is " + ShapeText(state));
      }
      c10::AutoGradMode no_grad(false);
      state_.copy_(TensorOver(state).reshape({-1}));
      held_.clear();
      PointGradientsAt(at::Tensor());
      segments_.Clear();
      ParametersChanged();
      loaded_ = true;
      return HashBytes(state.data(), state.size_bytes());
    });
  }

 private:
  // What forward left for backward: a graph, or what it takes to make it again.
  struct Held {
    std::optional<ForwardInput> again;  // without a graph: neither input nor root is defined
    at::Tensor input;            // leaf that gets the input gradient; undefined at the first stage
    at::Tensor root;             // the output; at the last stage the losses of the tokens
    std::vector<int64_t> shape;  // of the output's gradient; empty at the last stage
    int64_t graph_bytes = 0;
    double loss_sum = 0.0;
    int64_t tokens = 0;
    uint64_t generation = 0;  // of the parameters it was computed with
  };

  absl::Span<float> Floats(at::Tensor& tensor) const {
    return absl::MakeSpan(tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel()));
  }

  // OpenMP's thread count belongs to the calling thread.
  void Prepare() {
    if (prepared_ == std::this_thread::get_id()) return;
    prepared_ = std::this_thread::get_id();
    at::set_num_threads(options_.threads);
    SetInteropThreadsOnce();
  }

  void ParametersChanged() {
    ++generation_;
    model_->ParametersChanged();
  }

  absl::Status CheckLoaded() const {
    return loaded_ ? absl::OkStatus() : absl::FailedPreconditionError("no state is loaded");
  }

  absl::Status CheckForward(const ForwardInput& input) const {
    STARLING_RETURN_IF_ERROR(model_->CheckInput(input.input));
    return model_->last_stage() ? model_->CheckTargets(input.targets, input.input)
                                : absl::OkStatus();
  }

  absl::Status CheckBackward(const BackwardInput& input, const Held& held) const {
    if (held.generation != generation_) {
      return absl::FailedPreconditionError("the parameters have changed since the forward of " +
                                           ToString(input.work));
    }
    if (model_->last_stage()) {
      if (input.gradient.empty()) return absl::OkStatus();
      return absl::InvalidArgumentError("the last stage takes no gradient");
    }
    if (input.gradient.dtype() != DType::kF32 || input.gradient.shape() != held.shape) {
      return absl::InvalidArgumentError("the gradient is " + ShapeText(input.gradient) +
                                        ", the output had another shape");
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ForwardOutput> Run(const ForwardInput& input) {
    const bool train = input.work.id.kind == WorkKind::kTrain;
    const bool graph = train && MayKeepGraph(input.input.shape());
    Held held = graph ? MeasuredPass(input) : Pass(input, /*graph=*/false);
    ForwardOutput output;
    output.loss_sum = held.loss_sum;
    output.tokens = held.tokens;
    if (!model_->last_stage()) output.output = BlobOver(held.root);
    if (!train) return output;
    if (!graph) {
      held.again = input;
      held.root = at::Tensor();
    }
    held_.insert_or_assign(input.work, std::move(held));
    return output;
  }

  // Whether a graph for an input of this shape fits in beside those that are held, and one more
  // that is made again for its backward. Without any the device would never have work: then it
  // must.
  bool MayKeepGraph(const std::vector<int64_t>& shape) const {
    if (options_.memory == 0) return true;
    int64_t bytes = 0;
    bool any = false;
    for (const auto& [work, held] : held_) {
      any = any || !held.again.has_value();
      bytes += held.graph_bytes;
    }
    if (!any) return true;
    const auto known = graph_bytes_.find(shape);
    return known != graph_bytes_.end() && known->second <= (graph_budget_ - bytes) / 2;
  }

  // A pass with its graph, of which it says how large it is.
  Held MeasuredPass(const ForwardInput& input) {
    const auto known = graph_bytes_.find(input.input.shape());
    if (known != graph_bytes_.end() || options_.memory == 0) {
      Held held = Pass(input, /*graph=*/true);
      if (known != graph_bytes_.end()) held.graph_bytes = known->second;
      return held;
    }
    const NetAllocations allocations;
    Held held = Pass(input, /*graph=*/true);
    held.graph_bytes = allocations.bytes();
    if (graph_bytes_.size() >= kGraphSizesKept) graph_bytes_.clear();
    graph_bytes_.emplace(input.input.shape(), held.graph_bytes);
    return held;
  }

  Held Pass(const ForwardInput& input, bool graph) {
    c10::AutoGradMode grad_mode(graph);
    std::optional<StageModel::DropoutDraw> draw;
    if (input.work.id.kind == WorkKind::kTrain) {
      draw = StageModel::DropoutDraw{options_.seed, input.work.id.step, input.first_sequence};
    }
    Held held;
    held.generation = generation_;
    at::Tensor x = TensorOver(input.input);
    x = x.scalar_type() == at::kInt ? x.to(state_.device(), at::kLong) : x.to(state_.device());
    if (!model_->first_stage() && graph) {
      x.set_requires_grad(true);
      held.input = x;
    }
    held.root = model_->Forward(x, draw);
    if (model_->last_stage()) {
      const at::Tensor targets = TensorOver(input.targets).to(state_.device(), at::kLong);
      held.root = model_->TokenLosses(held.root, targets);
      at::Tensor losses = held.root.detach().cpu();
      for (float loss : Floats(losses)) held.loss_sum += static_cast<double>(loss);
      held.tokens = losses.numel();
    } else {
      held.shape = held.root.sizes().vec();
    }
    return held;
  }

  absl::StatusOr<BackwardOutput> Differentiate(const BackwardInput& input, const Held& held) {
    const at::Tensor gradient = model_->last_stage()
                                    ? at::ones_like(held.root)
                                    : TensorOver(input.gradient).to(state_.device());
    const bool want_input = input.want_input_gradient && held.input.defined();
    BackwardOutput output;
    if (!input.segment.has_value()) {
      if (want_input) {
        output.input_gradient =
            BlobOver(torch::autograd::grad({held.root}, {held.input}, {gradient}).at(0));
      }
      return output;
    }
    const SegmentEntry entry{input.work.id.index, input.work.attempt, held.loss_sum, held.tokens};
    // The gradient, the list entry and the lane are added together or the segment is spoiled.
    STARLING_RETURN_IF_ERROR(
        segments_.Add(input.work.id.step, *input.segment, entry, [&](at::Tensor& sum) {
          return CatchTorch([&]() -> absl::Status {
            PointGradientsAt(sum);
            std::vector<at::Tensor> leaves = model_->parameters();
            if (want_input) leaves.push_back(held.input);
            torch::autograd::backward({held.root}, {gradient}, /*retain_graph=*/false,
                                      /*create_graph=*/false, leaves);
            return absl::OkStatus();
          });
        }));
    if (want_input) output.input_gradient = BlobOver(held.input.grad());
    return output;
  }

  // Makes every parameter's gradient a view into `sum`, where autograd then adds in place; none if
  // it is undefined.
  void PointGradientsAt(const at::Tensor& sum) {
    if (sum.is_same(pointed_at_)) return;
    pointed_at_ = sum;
    for (size_t i = 0; i < layout_.tensors.size(); ++i) {
      const TensorSpec& spec = layout_.tensors[i];
      model_->parameters()[i].mutable_grad() =
          sum.defined() ? sum.narrow(0, spec.offset, spec.count).view(spec.shape) : at::Tensor();
    }
  }

  const Options options_;
  const int64_t graph_budget_;  // bytes
  const StageLayout layout_;
  at::Tensor state_;  // [kStatePlanes * size]: parameters, first and second moments
  const std::unique_ptr<StageModel> model_;
  SegmentBook<at::Tensor> segments_;
  at::Tensor pointed_at_;  // the segment's sum that the parameters' gradients are views of
  std::map<WorkId, Held> held_;
  std::map<std::vector<int64_t>, int64_t> graph_bytes_;  // by the input's shape
  uint64_t generation_ = 0;                              // of the parameters
  bool loaded_ = false;
  std::thread::id prepared_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TorchExecutor>> TorchExecutor::Create(const Options& options) {
  const LayerRange layers = options.layers;
  if (layers.begin < 0 || layers.begin >= layers.end || layers.end > options.model.layers) {
    return absl::InvalidArgumentError("layers " + std::to_string(layers.begin) + " to " +
                                      std::to_string(layers.end) + " of a model with " +
                                      std::to_string(options.model.layers));
  }
  StageLayout layout;
  TorchExecutorImpl::MakeModel make_model;
  if (options.model.own()) {
    STARLING_ASSIGN_OR_RETURN(
        std::shared_ptr<OwnStage> own,
        OwnStage::Open(options.model, layers, options.own, options.seed, options.linked));
    layout = own->layout();
    make_model = [own](const StageLayout&, const at::Tensor& flat) { return own->Bind(flat); };
  } else {
    layout = ModelStageLayout(options.model, layers);
    make_model = [&options](const StageLayout& of, const at::Tensor& flat) {
      return MakeBuiltInModel(options.model, options.layers, of, flat, options.precision);
    };
  }
  if (options.memory != 0 && options.memory <= FixedMemory(layout)) {
    return absl::InvalidArgumentError(
        "parameters, moments and gradients of this stage alone take " +
        Mebibytes(FixedMemory(layout)) + "; memory is set to " + Mebibytes(options.memory));
  }
  at::Tensor state;
  const absl::Status made = CatchTorch([&]() -> absl::Status {
    state = at::zeros({kStatePlanes * layout.size},
                      at::TensorOptions().dtype(at::kFloat).device(at::Device(options.device)));
    return absl::OkStatus();
  });
  if (absl::IsResourceExhausted(made)) return made;
  if (!made.ok()) {
    return absl::InvalidArgumentError("device " + options.device +
                                      " cannot be used: " + std::string(made.message()));
  }
  std::unique_ptr<TorchExecutor> executor;
  STARLING_RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    executor = std::make_unique<TorchExecutorImpl>(options, std::move(layout), std::move(state),
                                                   make_model);
    return absl::OkStatus();
  }));
  return executor;
}

}  // namespace starling
