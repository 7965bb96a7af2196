#include "tests/sim/sim_compute.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "stages/coded_executor.h"

namespace starling::sim {
namespace {

// Outputs that report device time get it here.
void SetTook(absl::StatusOr<ForwardOutput>* output, absl::Duration took) {
  if (output->ok()) (*output)->took = took;
}
void SetTook(absl::StatusOr<BackwardOutput>* output, absl::Duration took) {
  if (output->ok()) (*output)->took = took;
}
template <typename T>
void SetTook(absl::StatusOr<T>* output, absl::Duration took) {}

}  // namespace

SimCompute::SimCompute(Scheduler* scheduler, NodeId node, std::unique_ptr<StageExecutor> executor,
                       SimSpeed speed, uint64_t seed, ComputeFaults* faults)
    : scheduler_(scheduler),
      node_(node),
      executor_(std::move(executor)),
      speed_(speed),
      faults_(faults),
      rng_(seed),
      answers_(std::make_shared<std::deque<std::function<void()>>>()) {}

SimCompute::~SimCompute() {
  scheduler_->Cancel(front_event_);
  for (Operation& operation : queue_) {
    if (operation.cancel) Answer(std::move(operation.cancel));
  }
}

template <typename T, typename Function>
void SimCompute::Post(const char* what, absl::Duration cost, Function function, Done<T> done) {
  auto shared = std::make_shared<Done<T>>(std::move(done));
  Operation operation;
  operation.what = what;
  operation.cost = cost;
  operation.work = [shared, function = std::move(function)](absl::Duration took) mutable {
    auto result = std::make_shared<absl::StatusOr<T>>(function());
    SetTook(result.get(), took);
    return [shared, result] { (*shared)(std::move(*result)); };
  };
  operation.cancel = [shared] { (*shared)(absl::CancelledError("the device is shut down")); };
  Push(std::move(operation));
}

void SimCompute::Push(Operation operation) {
  queue_.push_back(std::move(operation));
  if (queue_.size() == 1) StartNext();
}

absl::Duration SimCompute::Draw(absl::Duration cost) {
  return cost * (speed_.slowness * (faults_ == nullptr ? 1.0 : faults_->slowdown) *
                 (1 + speed_.jitter * (2 * rng_.Unit() - 1)));
}

void SimCompute::StartNext() {
  front_took_ = Draw(queue_.front().cost);
  if (faults_ != nullptr) front_took_ += std::exchange(faults_->hiccup, absl::ZeroDuration());
  front_event_ = scheduler_->After(front_took_, node_, EventKind::kCompletion, queue_.front().what,
                                   [this] { FinishFront(); });
}

void SimCompute::FinishFront() {
  Operation operation = std::move(queue_.front());
  queue_.pop_front();
  front_event_ = 0;
  std::function<void()> answer = operation.work(front_took_);
  if (answer) Answer(std::move(answer));
  if (!queue_.empty()) StartNext();
}

void SimCompute::Answer(std::function<void()> answer) {
  answers_->push_back(std::move(answer));
  last_answer_ = std::max(last_answer_, scheduler_->Now() + speed_.answer * rng_.Unit());
  scheduler_->At(last_answer_, node_, EventKind::kCompletion, "answer", [answers = answers_] {
    std::function<void()> next = std::move(answers->front());
    answers->pop_front();
    next();
  });
}

void SimCompute::Pause(absl::Duration duration) {
  if (front_event_ == 0) return;
  front_took_ += duration;
  scheduler_->Postpone(front_event_, duration);
}

void SimCompute::Forward(ForwardInput input, Done<ForwardOutput> done) {
  Post<ForwardOutput>(
      "forward", speed_.forward,
      [this, input = std::move(input)] { return CodedForward(executor_.get(), input); },
      std::move(done));
}

void SimCompute::Backward(BackwardInput input, Done<BackwardOutput> done) {
  Post<BackwardOutput>(
      "backward", speed_.backward,
      [this, input = std::move(input)] { return CodedBackward(executor_.get(), input); },
      std::move(done));
}

void SimCompute::Drop(WorkId work) {
  Push(Operation{"drop", absl::ZeroDuration(),
                 [this, work](absl::Duration) {
                   executor_->Drop(work);
                   return std::function<void()>();
                 },
                 nullptr});
}

void SimCompute::Seal(Step step, Done<std::vector<SegmentSummary>> done) {
  using Summaries = std::vector<SegmentSummary>;
  Post<Summaries>(
      "seal", speed_.seal,
      [this, step] { return absl::StatusOr<Summaries>(executor_->Seal(step)); }, std::move(done));
}

void SimCompute::Read(Step step, std::vector<SegmentId> segments, Done<SegmentSum> done) {
  Post<SegmentSum>(
      "read", speed_.read,
      [this, step, segments = std::move(segments)] { return executor_->Read(step, segments); },
      std::move(done));
}

void SimCompute::FreeThrough(Step step) {
  Push(Operation{"free", absl::ZeroDuration(),
                 [this, step](absl::Duration) {
                   executor_->FreeThrough(step);
                   return std::function<void()>();
                 },
                 nullptr});
}

void SimCompute::Apply(UpdateScalars scalars, std::vector<Blob> gradient, Done<Hash128> done) {
  Post<Hash128>(
      "apply", speed_.apply,
      [this, scalars, gradient = std::move(gradient)] {
        return executor_->Apply(scalars, gradient);
      },
      std::move(done));
}

void SimCompute::Snapshot(Done<Blob> done) {
  Post<Blob>(
      "snapshot", speed_.snapshot, [this] { return executor_->Snapshot(); }, std::move(done));
}

void SimCompute::Load(Blob state, Done<Hash128> done) {
  Post<Hash128>(
      "load", speed_.load, [this, state = std::move(state)] { return executor_->Load(state); },
      std::move(done));
}

}  // namespace starling::sim
