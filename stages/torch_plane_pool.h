// Memory for gradient sums, which come and go with every step: the same few blocks over and over.
//
//   PlanePool pool(size, 2);
//   at::Tensor sum = pool.Zeros();   // f32 [size], on the CPU
//
// From the heap they would be cut up by smaller blocks between two steps, so that a replica's
// memory grows by a whole sum now and then; and fresh pages cost more than the zeros in them.
//
// Threads: Zeros() one at a time; a tensor's memory comes back from whichever thread lets go of it
// last, without a lock, and may outlive the pool. Up to `spare` blocks that nobody uses are kept.
#ifndef STARLING_STAGES_TORCH_PLANE_POOL_H_
#define STARLING_STAGES_TORCH_PLANE_POOL_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace starling {

class PlanePool {
 public:
  PlanePool(int64_t elements, size_t spare);

  // Throws std::bad_alloc.
  at::Tensor Zeros();

 private:
  class Spares;

  const int64_t elements_;
  const std::shared_ptr<Spares> spares_;
};

}  // namespace starling

#endif  // STARLING_STAGES_TORCH_PLANE_POOL_H_
