// SimCompute: a Compute that takes virtual time. Operations run one at a time in the order they
// were posted, each for cost x slowness x a drawn jitter; what an operation does happens when it
// ends, and its answer reaches the process a little later, as from another thread. Codecs run
// likewise beside them.
//
// Destroyed, it gives what is on its way and answers what is pending with cancelled at once, as a
// device does that waits for its threads. Nobody is there to hear it after a crash.
#ifndef STARLING_TESTS_SIM_SIM_COMPUTE_H_
#define STARLING_TESTS_SIM_SIM_COMPUTE_H_

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "runtime/base/rng.h"
#include "runtime/env/compute.h"
#include "stages/executor.h"
#include "tests/sim/scheduler.h"
#include "tests/sim/sim_executor.h"

namespace starling::sim {

struct SimSpeed {
  double slowness = 1;  // multiplies every cost
  double jitter = 0.2;  // each cost times a draw from [1 - jitter, 1 + jitter)
  absl::Duration forward = absl::Milliseconds(4);
  absl::Duration backward = absl::Milliseconds(8);
  absl::Duration codec = absl::Milliseconds(2);
  absl::Duration seal = absl::Microseconds(50);
  absl::Duration read = absl::Microseconds(200);
  absl::Duration apply = absl::Milliseconds(1);
  absl::Duration snapshot = absl::Milliseconds(2);
  absl::Duration load = absl::Milliseconds(2);
  absl::Duration answer = absl::Microseconds(50);  // at most, from its end to the process
};

class SimCompute : public Compute {
 public:
  // The scheduler outlives it; the executor is usually a SimExecutor. `faults` may be null.
  SimCompute(Scheduler* scheduler, NodeId node, std::unique_ptr<StageExecutor> executor,
             SimSpeed speed, uint64_t seed, ComputeFaults* faults = nullptr);
  ~SimCompute() override;

  int64_t size() const override { return executor_->size(); }
  void Forward(ForwardInput input, Done<ForwardOutput> done) override;
  void Backward(BackwardInput input, Done<BackwardOutput> done) override;
  void Drop(WorkId work) override;
  void Decode(Blob encoded, Done<Blob> done) override;
  void Encode(Blob values, Coding coding, Done<Blob> done) override;
  void Seal(Step step, Done<std::vector<SegmentSummary>> done) override;
  void Read(Step step, std::vector<SegmentId> segments, Done<SegmentSum> done) override;
  void FreeThrough(Step step) override;
  void Apply(UpdateScalars scalars, std::vector<Blob> gradient, Done<Hash128> done) override;
  void Snapshot(Done<Blob> done) override;
  void Load(Blob state, Done<Hash128> done) override;

  // The device makes no progress for this long; what runs on it ends later by that much.
  void Pause(absl::Duration duration);

 private:
  // Runs on the device with the time it took; gives the answer to be called in the process.
  using Work = std::function<std::function<void()>(absl::Duration took)>;
  struct Operation {
    const char* what;
    absl::Duration cost;
    Work work;
    std::function<void()> cancel;
  };

  // What does one operation after another.
  struct Lane {
    std::deque<Operation> queue;  // the front one runs
    absl::Duration front_took;
    Scheduler::EventId front_event = 0;
  };

  template <typename T, typename Function>
  void Post(Lane* lane, const char* what, absl::Duration cost, Function function, Done<T> done);
  void Push(Lane* lane, Operation operation);
  void StartNext(Lane* lane);
  void FinishFront(Lane* lane);
  void Close(Lane* lane);
  void Answer(std::function<void()> answer);
  absl::Duration Draw(absl::Duration cost);

  Scheduler* const scheduler_;
  const NodeId node_;
  const std::unique_ptr<StageExecutor> executor_;
  const SimSpeed speed_;
  ComputeFaults* const faults_;
  Rng rng_;
  Lane device_;
  Lane codecs_;
  // Waiting to be given, in order; each answer event gives the first. Outlives the SimCompute.
  std::shared_ptr<std::deque<std::function<void()>>> answers_;
  absl::Time last_answer_ = absl::InfinitePast();
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_SIM_COMPUTE_H_
