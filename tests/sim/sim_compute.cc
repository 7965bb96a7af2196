#include "tests/sim/sim_compute.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "codec/codec.h"

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
  // What is on its way first, as it came.
  for (const std::function<void()>& answer : std::exchange(*answers_, {})) answer();
  Close(&codecs_);
  Close(&device_);
}

void SimCompute::Close(Lane* lane) {
  scheduler_->Cancel(lane->front_event);
  const std::deque<Operation> left = std::exchange(lane->queue, {});
  for (const Operation& operation : left) {
    if (operation.cancel) operation.cancel();
  }
}

template <typename T, typename Function>
void SimCompute::Post(Lane* lane, const char* what, absl::Duration cost, Function function,
                      Done<T> done) {
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
  Push(lane, std::move(operation));
}

void SimCompute::Push(Lane* lane, Operation operation) {
  lane->queue.push_back(std::move(operation));
  if (lane->queue.size() == 1) StartNext(lane);
}

absl::Duration SimCompute::Draw(absl::Duration cost) {
  return cost * (speed_.slowness * (faults_ == nullptr ? 1.0 : faults_->slowdown) *
                 (1 + speed_.jitter * (2 * rng_.Unit() - 1)));
}

void SimCompute::StartNext(Lane* lane) {
  const Operation& operation = lane->queue.front();
  lane->front_took = Draw(operation.cost);
  if (faults_ != nullptr) {
    lane->front_took += std::exchange(faults_->hiccup, absl::ZeroDuration());
  }
  lane->front_event = scheduler_->After(lane->front_took, node_, EventKind::kCompletion,
                                        operation.what, [this, lane] { FinishFront(lane); });
}

void SimCompute::FinishFront(Lane* lane) {
  Operation operation = std::move(lane->queue.front());
  lane->queue.pop_front();
  lane->front_event = 0;
  std::function<void()> answer = operation.work(lane->front_took);
  if (answer) Answer(std::move(answer));
  if (!lane->queue.empty()) StartNext(lane);
}

void SimCompute::Answer(std::function<void()> answer) {
  answers_->push_back(std::move(answer));
  last_answer_ = std::max(last_answer_, scheduler_->Now() + speed_.answer * rng_.Unit());
  scheduler_->At(last_answer_, node_, EventKind::kCompletion, "answer", [answers = answers_] {
    if (answers->empty()) return;  // given when the device went
    std::function<void()> next = std::move(answers->front());
    answers->pop_front();
    next();
  });
}

void SimCompute::Pause(absl::Duration duration) {
  if (device_.front_event == 0) return;
  device_.front_took += duration;
  scheduler_->Postpone(device_.front_event, duration);
}

void SimCompute::Forward(ForwardInput input, Done<ForwardOutput> done) {
  Post<ForwardOutput>(
      &device_, "forward", speed_.forward,
      [this, input = std::move(input)] { return executor_->Forward(input); }, std::move(done));
}

void SimCompute::Backward(BackwardInput input, Done<BackwardOutput> done) {
  Post<BackwardOutput>(
      &device_, "backward", speed_.backward,
      [this, input = std::move(input)] { return executor_->Backward(input); }, std::move(done));
}

void SimCompute::Drop(WorkId work) {
  Push(&device_, Operation{"drop", absl::ZeroDuration(),
                           [this, work](absl::Duration) {
                             executor_->Drop(work);
                             return std::function<void()>();
                           },
                           nullptr});
}

void SimCompute::Decode(Blob encoded, Done<Blob> done) {
  Post<Blob>(
      &codecs_, "decode", speed_.codec,
      [encoded = std::move(encoded)] { return DecodeBlob(encoded); }, std::move(done));
}

void SimCompute::Encode(Blob values, Coding coding, Done<Blob> done) {
  Post<Blob>(
      &codecs_, "encode", speed_.codec,
      [values = std::move(values), coding] {
        return absl::StatusOr<Blob>(EncodeBlob(values, coding));
      },
      std::move(done));
}

void SimCompute::Seal(Step step, Done<std::vector<SegmentSummary>> done) {
  using Summaries = std::vector<SegmentSummary>;
  Post<Summaries>(
      &device_, "seal", speed_.seal,
      [this, step] { return absl::StatusOr<Summaries>(executor_->Seal(step)); }, std::move(done));
}

void SimCompute::Read(Step step, std::vector<SegmentId> segments, Done<SegmentSum> done) {
  Post<SegmentSum>(
      &device_, "read", speed_.read,
      [this, step, segments = std::move(segments)] { return executor_->Read(step, segments); },
      std::move(done));
}

void SimCompute::FreeThrough(Step step) {
  Push(&device_, Operation{"free", absl::ZeroDuration(),
                           [this, step](absl::Duration) {
                             executor_->FreeThrough(step);
                             return std::function<void()>();
                           },
                           nullptr});
}

void SimCompute::Apply(UpdateScalars scalars, std::vector<Blob> gradient, Done<Hash128> done) {
  Post<Hash128>(
      &device_, "apply", speed_.apply,
      [this, scalars, gradient = std::move(gradient)] {
        return executor_->Apply(scalars, gradient);
      },
      std::move(done));
}

void SimCompute::Snapshot(Done<Blob> done) {
  Post<Blob>(
      &device_, "snapshot", speed_.snapshot, [this] { return executor_->Snapshot(); },
      std::move(done));
}

void SimCompute::Load(Blob state, Done<Hash128> done) {
  Post<Hash128>(
      &device_, "load", speed_.load,
      [this, state = std::move(state)] { return executor_->Load(state); }, std::move(done));
}

}  // namespace starling::sim
