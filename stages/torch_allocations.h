// How many bytes a piece of work on this thread leaves allocated: what LibTorch's allocators gave
// while it lives, less what they took back.
//
//   NetAllocations count;
//   at::Tensor out = model.Forward(x);
//   int64_t kept = count.bytes();  // out and what its graph keeps for backward
//
// Costs a lock per allocation, so it is for measuring once, not for every pass. Not nested within
// a profiler of LibTorch. Threads: counts for the thread that made it, where it must also end.
#ifndef STARLING_STAGES_TORCH_ALLOCATIONS_H_
#define STARLING_STAGES_TORCH_ALLOCATIONS_H_

#include <cstdint>
#include <memory>

namespace starling {

class NetAllocations {
 public:
  NetAllocations();
  ~NetAllocations();
  NetAllocations(const NetAllocations&) = delete;
  NetAllocations& operator=(const NetAllocations&) = delete;

  int64_t bytes() const;

 private:
  class Counter;
  class Guard;

  std::shared_ptr<Counter> counter_;
  std::unique_ptr<Guard> guard_;
};

}  // namespace starling

#endif  // STARLING_STAGES_TORCH_ALLOCATIONS_H_
