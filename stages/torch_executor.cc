#include "stages/torch_executor.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
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
#include "stages/torch_plane_pool.h"
#include "stages/torch_stage_model.h"

namespace starling {
namespace {

using Clock = std::chrono::steady_clock;

// What a replica needs whatever its microbatches are: its state, a step's gradient, a round's
// result.
// With the older parameters: these, and the gradient of the second step that is open then.
int64_t FixedMemory(const StageLayout& layout, bool keep_older) {
  return (kStatePlanes + (keep_older ? 4 : 2)) * layout.size * static_cast<int64_t>(sizeof(float));
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

// Of sums that nobody uses: one is a step's, one the result of the step before, and a third may be
// begun before that goes. With the older parameters two steps are open.
constexpr size_t kSpareSums = 2;

TorchExecutor::Options WithoutFiles(TorchExecutor::Options options) {
  options.own.clear();
  return options;
}

class TorchExecutorImpl : public TorchExecutor {
 public:
  // A model over each copy of the parameters.
  TorchExecutorImpl(const Options& options, StageLayout layout, at::Tensor moments,
                    std::vector<at::Tensor> parameters,
                    std::vector<std::unique_ptr<StageModel>> models)
      : options_(WithoutFiles(options)),
        graph_budget_(options.memory == 0
                          ? std::numeric_limits<int64_t>::max()
                          : options.memory - FixedMemory(layout, options.keep_older)),
        layout_(std::move(layout)),
        moments_(std::move(moments)),
        sums_(layout_.size, options.keep_older ? kSpareSums + 1 : kSpareSums),
        segments_(options_.stage, [this] { return NewSum(); }) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      copies_.push_back({std::move(parameters[i]), std::move(models[i]), {}});
    }
  }

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
      if (held.again.has_value()) held = Pass(*held.again, held.generation, /*graph=*/true);
      STARLING_ASSIGN_OR_RETURN(BackwardOutput output, Differentiate(input, held));
      output.took = absl::FromChrono(Clock::now() - start);
      return output;
    });
  }

  void Drop(WorkId work) override { held_.erase(work); }

  std::vector<SegmentSummary> Seal(Step step) override {
    std::vector<SegmentSummary> summaries = segments_.Seal(step);
    PointGradientsNowhere();  // no later backward may write to a frozen segment
    return summaries;
  }

  absl::StatusOr<SegmentSum> Read(Step step, const std::vector<SegmentId>& segments) override {
    return CatchTorch([&]() -> absl::StatusOr<SegmentSum> {
      Prepare();
      STARLING_ASSIGN_OR_RETURN(const auto frozen, segments_.Frozen(step, segments));
      SegmentSum result;
      at::Tensor sum = frozen.size() == 1 ? frozen.front()->sum : NewSum();
      for (const auto* segment : frozen) {
        result.lane += segment->summary.lane;
        if (frozen.size() > 1) sum.add_(segment->sum);
      }
      result.gradient = BlobOver(sum);
      return result;
    });
  }

  void FreeThrough(Step step) override {
    PointGradientsNowhere();
    segments_.FreeThrough(step);
    while (!held_.empty() && held_.begin()->first.id.step <= step) held_.erase(held_.begin());
  }

  absl::StatusOr<Hash128> Apply(const UpdateScalars& scalars,
                                const std::vector<Blob>& gradient) override {
    return CatchTorch([&]() -> absl::StatusOr<Hash128> {
      Prepare();
      STARLING_RETURN_IF_ERROR(CheckLoaded());
      STARLING_RETURN_IF_ERROR(CheckGradientPieces(layout_, gradient));
      Copy& to = CopyOf(generation_ + 1);
      at::Tensor parameters = CopyOf(generation_).flat.cpu();  // itself if it is there
      at::Tensor moments = moments_.cpu();
      if (copies_.size() > 1 && moments_.is_cpu()) {
        std::memcpy(to.flat.data_ptr(), parameters.data_ptr(), parameters.nbytes());
        parameters = to.flat;
      }
      Hasher128 hash;
      STARLING_RETURN_IF_ERROR(
          ApplyAdamW(layout_, scalars, gradient, Floats(parameters), Floats(moments), &hash));
      if (!moments_.is_cpu()) {
        to.flat.copy_(parameters);
        moments_.copy_(moments);
      }
      ParametersChanged();
      older_ = copies_.size() > 1;
      return hash.Finish();
    });
  }

  absl::StatusOr<Blob> Snapshot() override {
    return CatchTorch([&]() -> absl::StatusOr<Blob> {
      STARLING_RETURN_IF_ERROR(CheckLoaded());
      return BlobOver(at::cat({CopyOf(generation_).flat, moments_}).cpu());
    });
  }

  absl::StatusOr<Hash128> Hash() override {
    return CatchTorch([&]() -> absl::StatusOr<Hash128> {
      STARLING_RETURN_IF_ERROR(CheckLoaded());
      Hasher128 hash;  // without a copy, which would be as large as the state
      for (const at::Tensor& part : {CopyOf(generation_).flat.cpu(), moments_.cpu()}) {
        hash.Update(part.data_ptr(), part.nbytes());
      }
      return hash.Finish();
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
      const at::Tensor all = TensorOver(state).reshape({-1});
      CopyOf(generation_ + 1).flat.copy_(all.narrow(0, 0, layout_.size));
      moments_.copy_(all.narrow(0, layout_.size, moments_.numel()));
      held_.clear();
      PointGradientsNowhere();
      segments_.Clear();
      ParametersChanged();
      older_ = false;
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
  // Parameters, and the model over them.
  struct Copy {
    at::Tensor flat;
    std::unique_ptr<StageModel> model;
    at::Tensor pointed_at;  // the segment's sum that the gradients of its leaves are views of
  };

  // Two copies take turns, where the older one is kept.
  Copy& CopyOf(uint64_t generation) { return copies_[generation % copies_.size()]; }

  at::Tensor NewSum() {
    return moments_.is_cpu() ? sums_.Zeros() : at::zeros({layout_.size}, moments_.options());
  }

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
    CopyOf(generation_).model->ParametersChanged();
  }

  absl::Status CheckLoaded() const {
    return loaded_ ? absl::OkStatus() : absl::FailedPreconditionError("no state is loaded");
  }

  absl::Status CheckForward(const ForwardInput& input) const {
    if (input.older && !older_) {
      return absl::FailedPreconditionError("no older parameters are kept for " +
                                           ToString(input.work));
    }
    const StageModel& model = *copies_.front().model;
    STARLING_RETURN_IF_ERROR(model.CheckInput(input.input));
    return last_stage() ? model.CheckTargets(input.targets, input.input) : absl::OkStatus();
  }

  absl::Status CheckBackward(const BackwardInput& input, const Held& held) const {
    if (held.generation != generation_ && !(older_ && held.generation + 1 == generation_)) {
      return absl::FailedPreconditionError("the parameters have changed since the forward of " +
                                           ToString(input.work));
    }
    if (last_stage()) {
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
    const uint64_t generation = generation_ - (input.older ? 1 : 0);
    Held held = graph ? MeasuredPass(input, generation) : Pass(input, generation, /*graph=*/false);
    ForwardOutput output;
    output.loss_sum = held.loss_sum;
    output.tokens = held.tokens;
    if (!last_stage()) output.output = BlobOver(held.root);
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
  Held MeasuredPass(const ForwardInput& input, uint64_t generation) {
    const auto known = graph_bytes_.find(input.input.shape());
    if (known != graph_bytes_.end() || options_.memory == 0) {
      Held held = Pass(input, generation, /*graph=*/true);
      if (known != graph_bytes_.end()) held.graph_bytes = known->second;
      return held;
    }
    const NetAllocations allocations;
    Held held = Pass(input, generation, /*graph=*/true);
    held.graph_bytes = allocations.bytes();
    if (graph_bytes_.size() >= kGraphSizesKept) graph_bytes_.clear();
    graph_bytes_.emplace(input.input.shape(), held.graph_bytes);
    return held;
  }

  // On the parameters of that generation.
  Held Pass(const ForwardInput& input, uint64_t generation, bool graph) {
    c10::AutoGradMode grad_mode(graph);
    std::optional<StageModel::DropoutDraw> draw;
    if (input.work.id.kind == WorkKind::kTrain) {
      draw = StageModel::DropoutDraw{options_.seed, input.work.id.step, input.first_sequence};
    }
    Held held;
    held.generation = generation;
    StageModel& model = *CopyOf(generation).model;
    at::Tensor x = TensorOver(input.input);
    x = x.scalar_type() == at::kInt ? x.to(moments_.device(), at::kLong) : x.to(moments_.device());
    if (!first_stage() && graph) {
      x.set_requires_grad(true);
      held.input = x;
    }
    held.root = model.Forward(x, draw);
    if (last_stage()) {
      const at::Tensor targets = TensorOver(input.targets).to(moments_.device(), at::kLong);
      held.root = model.TokenLosses(held.root, targets);
      at::Tensor losses = held.root.detach().cpu();
      for (float loss : Floats(losses)) held.loss_sum += static_cast<double>(loss);
      held.tokens = losses.numel();
    } else {
      held.shape = held.root.sizes().vec();
    }
    return held;
  }

  absl::StatusOr<BackwardOutput> Differentiate(const BackwardInput& input, const Held& held) {
    const at::Tensor gradient =
        last_stage() ? at::ones_like(held.root) : TensorOver(input.gradient).to(moments_.device());
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
            Copy& copy = CopyOf(held.generation);
            PointGradientsAt(sum, &copy);
            std::vector<at::Tensor> leaves = copy.model->parameters();
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
  void PointGradientsAt(const at::Tensor& sum, Copy* copy) {
    if (sum.is_same(copy->pointed_at)) return;
    copy->pointed_at = sum;
    for (size_t i = 0; i < layout_.tensors.size(); ++i) {
      const TensorSpec& spec = layout_.tensors[i];
      copy->model->parameters()[i].mutable_grad() =
          sum.defined() ? sum.narrow(0, spec.offset, spec.count).view(spec.shape) : at::Tensor();
    }
  }
  void PointGradientsNowhere() {
    for (Copy& copy : copies_) PointGradientsAt(at::Tensor(), &copy);
  }

  bool first_stage() const { return copies_.front().model->first_stage(); }
  bool last_stage() const { return copies_.front().model->last_stage(); }

  const Options options_;
  const int64_t graph_budget_;  // bytes
  const StageLayout layout_;
  at::Tensor moments_;        // [2 * size], first and second
  std::vector<Copy> copies_;  // of the parameters, [size] each
  bool older_ = false;        // those before the newest update are there
  PlanePool sums_;
  SegmentBook<at::Tensor> segments_;
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
  const size_t copies = options.keep_older ? 2 : 1;
  std::vector<std::shared_ptr<OwnStage>> own;
  if (options.model.own()) {
    for (size_t i = 0; i < copies; ++i) {
      STARLING_ASSIGN_OR_RETURN(
          own.emplace_back(),
          OwnStage::Open(options.model, layers, options.own, options.seed, options.linked));
    }
    layout = own[0]->layout();
  } else {
    layout = ModelStageLayout(options.model, layers);
  }
  const int64_t fixed = FixedMemory(layout, options.keep_older);
  if (options.memory != 0 && options.memory <= fixed) {
    return absl::InvalidArgumentError(
        "parameters, moments and gradients of this stage alone take " + Mebibytes(fixed) +
        "; memory is set to " + Mebibytes(options.memory));
  }
  at::Tensor moments;
  std::vector<at::Tensor> parameters(copies);
  const absl::Status made = CatchTorch([&]() -> absl::Status {
    const auto on = at::TensorOptions().dtype(at::kFloat).device(at::Device(options.device));
    moments = at::zeros({(kStatePlanes - 1) * layout.size}, on);
    for (at::Tensor& copy : parameters) copy = at::zeros({layout.size}, on);
    return absl::OkStatus();
  });
  if (absl::IsResourceExhausted(made)) return made;
  if (!made.ok()) {
    return absl::InvalidArgumentError("device " + options.device +
                                      " cannot be used: " + std::string(made.message()));
  }
  std::unique_ptr<TorchExecutor> executor;
  STARLING_RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    std::vector<std::unique_ptr<StageModel>> models;
    for (size_t i = 0; i < copies; ++i) {
      models.push_back(own.empty() ? MakeBuiltInModel(options.model, layers, layout, parameters[i],
                                                      options.precision)
                                   : own[i]->Bind(parameters[i]));
    }
    executor = std::make_unique<TorchExecutorImpl>(options, std::move(layout), std::move(moments),
                                                   std::move(parameters), std::move(models));
    return absl::OkStatus();
  }));
  return executor;
}

}  // namespace starling
