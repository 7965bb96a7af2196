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
      worker_(loop, {options.thread_name, options.queue_bound, std::move(options.on_start)}) {}

void ThreadedCompute::Forward(ForwardInput input, Done<ForwardOutput> done) {
  worker_.Run<ForwardOutput>([this, input = std::move(input)] { return executor_->Forward(input); },
                             std::move(done));
}

void ThreadedCompute::Backward(BackwardInput input, Done<BackwardOutput> done) {
  worker_.Run<BackwardOutput>(
      [this, input = std::move(input)] { return executor_->Backward(input); }, std::move(done));
}

void ThreadedCompute::Drop(WorkId work) {
  worker_.Release([this, work] { executor_->Drop(work); });
}

Worker& ThreadedCompute::codecs() {
  if (!codecs_) codecs_.emplace(loop_, Worker::Options{"codecs", queue_bound_, nullptr});
  return *codecs_;
}

void ThreadedCompute::Decode(Blob encoded, Done<Blob> done) {
  codecs().Run<Blob>([encoded = std::move(encoded)] { return DecodeBlob(encoded); },
                     std::move(done));
}

void ThreadedCompute::Encode(Blob values, Coding coding, Done<Blob> done) {
  codecs().Run<Blob>([values = std::move(values), coding] { return EncodeBlob(values, coding); },
                     std::move(done));
}

void ThreadedCompute::Seal(Step step, Done<std::vector<SegmentSummary>> done) {
  worker_.Run<std::vector<SegmentSummary>>([this, step] { return executor_->Seal(step); },
                                           std::move(done));
}

void ThreadedCompute::Read(Step step, std::vector<SegmentId> segments, Done<SegmentSum> done) {
  worker_.Run<SegmentSum>(
      [this, step, segments = std::move(segments)] { return executor_->Read(step, segments); },
      std::move(done));
}

void ThreadedCompute::FreeThrough(Step step) {
  worker_.Release([this, step] { executor_->FreeThrough(step); });
}

void ThreadedCompute::Apply(UpdateScalars scalars, std::vector<Blob> gradient, Done<Hash128> done) {
  worker_.Run<Hash128>(
      [this, scalars, gradient = std::move(gradient)] {
        return executor_->Apply(scalars, gradient);
      },
      std::move(done));
}

void ThreadedCompute::Snapshot(Done<Blob> done) {
  worker_.Run<Blob>([this] { return executor_->Snapshot(); }, std::move(done));
}

void ThreadedCompute::Hash(Done<Hash128> done) {
  worker_.Run<Hash128>([this] { return executor_->Hash(); }, std::move(done));
}

void ThreadedCompute::Load(Blob state, Done<Hash128> done) {
  worker_.Run<Hash128>([this, state = std::move(state)] { return executor_->Load(state); },
                       std::move(done));
}

}  // namespace starling
