#include "runtime/reactor/compute_thread.h"

#include <utility>

#include "absl/status/statusor.h"
#include "codec/codec.h"

namespace starling {

ThreadedCompute::ThreadedCompute(EventLoop* loop, std::unique_ptr<StageExecutor> executor,
                                 Options options)
    : loop_(loop),
      queue_bound_(options.queue_bound),
      executor_(std::move(executor)),
      size_(executor_->size()),
      worker_(std::make_unique<Worker>(
          loop,
          Worker::Options{options.thread_name, options.queue_bound, std::move(options.on_start)})) {
}

ThreadedCompute::~ThreadedCompute() {
  closing_ = true;
  codecs_.reset();
  worker_.reset();
  while (!late_.empty()) {
    for (const std::function<void()>& cancel : std::exchange(late_, {})) cancel();
  }
}

template <typename T>
void ThreadedCompute::Run(Worker* worker, std::function<absl::StatusOr<T>()> work, Done<T> done) {
  if (!closing_) return worker->Run<T>(std::move(work), std::move(done));
  late_.push_back([done = std::move(done)] { done(absl::CancelledError("shutting down")); });
}

Worker* ThreadedCompute::codecs() {
  if (codecs_ == nullptr && !closing_) {
    codecs_ = std::make_unique<Worker>(loop_, Worker::Options{"codecs", queue_bound_, nullptr});
  }
  return codecs_.get();
}

void ThreadedCompute::Forward(ForwardInput input, Done<ForwardOutput> done) {
  Run<ForwardOutput>(
      worker_.get(), [this, input = std::move(input)] { return executor_->Forward(input); },
      std::move(done));
}

void ThreadedCompute::Backward(BackwardInput input, Done<BackwardOutput> done) {
  Run<BackwardOutput>(
      worker_.get(), [this, input = std::move(input)] { return executor_->Backward(input); },
      std::move(done));
}

void ThreadedCompute::Drop(WorkId work) {
  if (!closing_) worker_->Release([this, work] { executor_->Drop(work); });
}

void ThreadedCompute::Decode(Blob encoded, Done<Blob> done) {
  Run<Blob>(
      codecs(), [encoded = std::move(encoded)] { return DecodeBlob(encoded); }, std::move(done));
}

void ThreadedCompute::Encode(Blob values, Coding coding, Done<Blob> done) {
  Run<Blob>(
      codecs(), [values = std::move(values), coding] { return EncodeBlob(values, coding); },
      std::move(done));
}

void ThreadedCompute::Seal(Step step, Done<std::vector<SegmentSummary>> done) {
  Run<std::vector<SegmentSummary>>(
      worker_.get(), [this, step] { return executor_->Seal(step); }, std::move(done));
}

void ThreadedCompute::Read(Step step, std::vector<SegmentId> segments, Done<SegmentSum> done) {
  Run<SegmentSum>(
      worker_.get(),
      [this, step, segments = std::move(segments)] { return executor_->Read(step, segments); },
      std::move(done));
}

void ThreadedCompute::FreeThrough(Step step) {
  if (!closing_) worker_->Release([this, step] { executor_->FreeThrough(step); });
}

void ThreadedCompute::Apply(UpdateScalars scalars, std::vector<Blob> gradient, Done<Hash128> done) {
  Run<Hash128>(
      worker_.get(),
      [this, scalars, gradient = std::move(gradient)] {
        return executor_->Apply(scalars, gradient);
      },
      std::move(done));
}

void ThreadedCompute::Snapshot(Done<Blob> done) {
  Run<Blob>(
      worker_.get(), [this] { return executor_->Snapshot(); }, std::move(done));
}

void ThreadedCompute::Hash(Done<Hash128> done) {
  Run<Hash128>(
      worker_.get(), [this] { return executor_->Hash(); }, std::move(done));
}

void ThreadedCompute::Load(Blob state, Done<Hash128> done) {
  Run<Hash128>(
      worker_.get(), [this, state = std::move(state)] { return executor_->Load(state); },
      std::move(done));
}

}  // namespace starling
