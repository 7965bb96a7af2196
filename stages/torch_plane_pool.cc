#include "stages/torch_plane_pool.h"

#include <ATen/ops/from_blob.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <new>

namespace starling {
namespace {

constexpr std::align_val_t kAlignment{64};

void Free(void* block) { operator delete(block, kAlignment); }

}  // namespace

class PlanePool::Spares {
 public:
  ~Spares() {
    while (void* const block = Take()) Free(block);
  }

  // Null if there is none.
  void* Take() {
    for (std::atomic<void*>& place : places_) {
      if (void* const block = place.exchange(nullptr)) return block;
    }
    return nullptr;
  }

  void Put(void* block) {
    for (std::atomic<void*>& place : places_) {
      void* none = nullptr;
      if (place.compare_exchange_strong(none, block)) return;
    }
    Free(block);
  }

 private:
  std::array<std::atomic<void*>, kSpare> places_ = {};
};

PlanePool::PlanePool(int64_t elements) : elements_(elements), spares_(std::make_shared<Spares>()) {}

at::Tensor PlanePool::Zeros() {
  const size_t bytes = static_cast<size_t>(elements_) * sizeof(float);
  void* block = spares_->Take();
  if (block == nullptr) block = operator new(bytes, kAlignment);
  std::memset(block, 0, bytes);
  return at::from_blob(
      block, {elements_}, [spares = spares_](void* done) { spares->Put(done); },
      at::TensorOptions().dtype(at::kFloat));
}

}  // namespace starling
