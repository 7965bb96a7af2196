// ThreadedCompute: a StageExecutor on a thread of its own, as a Compute.
//
// The executor sees one call at a time, all on the compute thread, in the order they were made.
// Construction and destruction, and every call, happen on the reactor thread. Destruction waits for
// the operation that is running, and the codec, gives their results, and completes all others with
// cancelled, inside the destructor; also what these answers ask for. The executor goes last.
//
// Boundaries are decoded and encoded on a second thread, which starts with the first of them.
//
// Beyond `queue_bound` operations of a thread that wait for completion, one more completes with
// resource exhausted (not inline, and not having run). Drop and FreeThrough are never refused.
#ifndef STARLING_RUNTIME_REACTOR_COMPUTE_THREAD_H_
#define STARLING_RUNTIME_REACTOR_COMPUTE_THREAD_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/env/compute.h"
#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/worker.h"
#include "stages/executor.h"

namespace starling {

class ThreadedCompute final : public Compute {
 public:
  struct Options {
    std::string thread_name = "compute";
    size_t queue_bound = 1024;
    // Runs first on the compute thread, for settings that a thread has for itself (LibTorch's
    // number of threads). May be empty.
    std::function<void()> on_start;
  };

  // `loop` must outlive it.
  ThreadedCompute(EventLoop* loop, std::unique_ptr<StageExecutor> executor, Options options);
  ThreadedCompute(EventLoop* loop, std::unique_ptr<StageExecutor> executor)
      : ThreadedCompute(loop, std::move(executor), Options()) {}
  ~ThreadedCompute() override;

  int64_t size() const override { return size_; }
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
  void Hash(Done<Hash128> done) override;
  void Load(Blob state, Done<Hash128> done) override;

 private:
  template <typename T>
  void Run(Worker* worker, std::function<absl::StatusOr<T>()> work, Done<T> done);
  Worker* codecs();

  EventLoop* const loop_;
  const size_t queue_bound_;
  const std::unique_ptr<StageExecutor> executor_;
  const int64_t size_;
  std::unique_ptr<Worker> worker_;
  std::unique_ptr<Worker> codecs_;  // from the first boundary on
  bool closing_ = false;
  std::vector<std::function<void()>> late_;  // asked for while it goes
};

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_COMPUTE_THREAD_H_
