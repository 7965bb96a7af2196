#include "stages/torch_plane_pool.h"

#include <ATen/ops/from_blob.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

namespace starling {
namespace {

constexpr std::align_val_t kAlignment{64};

struct Free {
  void operator()(void* block) const { operator delete(block, kAlignment); }
};
using Block = std::unique_ptr<void, Free>;

}  // namespace

class PlanePool::Spares {
 public:
  explicit Spares(size_t count) : places_(count) {}
  ~Spares() {
    while (Take() != nullptr) {
    }
  }

  // Null if there is none.
  Block Take() {
    for (std::atomic<void*>& place : places_) {
      if (void* const block = place.exchange(nullptr)) return Block(block);
    }
    return nullptr;
  }

  void Put(Block block) {
    for (std::atomic<void*>& place : places_) {
      void* none = nullptr;
      if (!place.compare_exchange_strong(none, block.get())) continue;
      block.release();
      return;
    }
  }

 private:
  std::vector<std::atomic<void*>> places_;
};

PlanePool::PlanePool(int64_t elements, size_t spare)
    : elements_(elements), spares_(std::make_shared<Spares>(spare)) {}

at::Tensor PlanePool::Zeros() {
  const size_t bytes = static_cast<size_t>(elements_) * sizeof(float);
  Block block = spares_->Take();
  if (block == nullptr) block.reset(operator new(bytes, kAlignment));
  std::memset(block.get(), 0, bytes);
  at::Tensor sum = at::from_blob(
      block.get(), {elements_}, [spares = spares_](void* done) { spares->Put(Block(done)); },
      at::TensorOptions().dtype(at::kFloat));
  block.release();
  return sum;
}

}  // namespace starling
