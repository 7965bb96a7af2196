#include "stages/torch_allocations.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

namespace starling {
namespace {

// int64_t or size_t, by LibTorch's version.
template <typename Total>
Total TotalOf(void (c10::MemoryReportingInfoBase::*)(void*, int64_t, Total, Total, c10::Device));
using Total = decltype(TotalOf(&c10::MemoryReportingInfoBase::reportMemoryUsage));

}  // namespace

class NetAllocations::Counter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, Total, Total, c10::Device) override {
    bytes += size;  // negative when it is taken back
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t bytes = 0;
};

class NetAllocations::Guard {
 public:
  explicit Guard(std::shared_ptr<Counter> counter)
      : guard_(c10::DebugInfoKind::PROFILER_STATE, std::move(counter)) {}

 private:
  c10::DebugInfoGuard guard_;
};

NetAllocations::NetAllocations()
    : counter_(std::make_shared<Counter>()), guard_(std::make_unique<Guard>(counter_)) {}

NetAllocations::~NetAllocations() = default;

int64_t NetAllocations::bytes() const { return counter_->bytes; }

}  // namespace starling
