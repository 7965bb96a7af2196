// TorchExecutor: StageExecutor on LibTorch, for the transformer of runtime/config/run_config.h or
// for layers of the user's own (own_layers.h).
//
//   TorchExecutor::Options options;
//   options.model = config.model;
//   options.layers = StageRanges(config)[1];
//   options.stage = StageId{1};
//   options.seed = config.train.seed;
//   STARLING_ASSIGN_OR_RETURN(auto executor, TorchExecutor::Create(options));
//   STARLING_RETURN_IF_ERROR(executor->Load(InitialState(executor->layout(), seed)).status());
//
// Parameters, moments and every segment are flat fp32 runs. Backward accumulates parameter
// gradients in place in the segment's run, without a copy per microbatch; Read of one segment hands
// out those bytes themselves. A backward whose parameters are gone since its forward is refused
// (failed precondition): with keep_older those before the newest update are there, and an update
// writes the new ones beside them. A loss that is not finite is no error: it shows
// in the sums, and the step is skipped or the run stopped as configured.
//
// In bf16 the matrix products of passes, and what lies between them, are rounded to bf16; the
// parameters, what is added up over layers (the residual stream), norms, losses, gradients and the
// update stay fp32 (mixed precision: Micikevicius et al. 2018, section 3.1; Kalamkar et al. 2019).
//
// With a bound on memory, forward keeps the graph of as many microbatches as fit in beside
// parameters, moments, a gradient and a round's result; of the others it keeps the input alone, and
// backward begins with the forward once more (activation recomputation: Chen et al. 2016, "Training
// Deep Nets with Sublinear Memory Cost"). The numbers are the same, to the bit.
//
// On "cuda:N" passes run there, but the update runs on the host, to the bit as everywhere: the
// state travels there and back, which is slow but right.
//
// Beyond StageExecutor's errors: resource exhausted = the device is out of memory.
#ifndef STARLING_STAGES_TORCH_EXECUTOR_H_
#define STARLING_STAGES_TORCH_EXECUTOR_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/base/layout.h"
#include "runtime/config/run_config.h"
#include "stages/executor.h"
#include "stages/own_layers.h"

namespace starling {

class TorchExecutor : public StageExecutor {
 public:
  struct Options {
    ModelConfig model;
    LayerRange layers;
    std::vector<LayerSource> own;            // of these layers, where model.own()
    const LayerRegistry* linked = nullptr;   // for those of `own` that are linked; outlives Create
    Precision precision = Precision::kFp32;  // of built-in layers
    StageId stage{0};                        // for the lane
    uint64_t seed = 1;                       // keys dropout
    std::string device = "cpu";              // or "cuda:N"
    int threads = 1;          // of the compute thread, which sets them at its first call
    int64_t memory = 0;       // bytes for tensors; 0 = as it comes
    bool keep_older = false;  // parameters before the newest update, too (ForwardInput::older)
  };

  // Without a state until Load(). May be made on another thread than the one that uses it.
  //   invalid argument: the layers are not the model's, there is no such device, the stage does not
  //   fit into the memory, or a layer of the user's own is refused (torch_layer.h).
  static absl::StatusOr<std::unique_ptr<TorchExecutor>> Create(const Options& options);

  virtual const StageLayout& layout() const = 0;
};

}  // namespace starling

#endif  // STARLING_STAGES_TORCH_EXECUTOR_H_
