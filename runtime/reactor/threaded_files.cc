#include "runtime/reactor/threaded_files.h"

#include <utility>

#include "absl/status/statusor.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

struct Nothing {};

}  // namespace

ThreadedFiles::ThreadedFiles(EventLoop* loop, Disk* disk, size_t queue_bound)
    : disk_(disk), worker_(loop, {"files", queue_bound, nullptr}) {}

void ThreadedFiles::Run(std::function<absl::Status(Disk&)> job,
                        std::function<void(absl::Status)> done) {
  worker_.Run<Nothing>(
      [this, job = std::move(job)]() -> absl::StatusOr<Nothing> {
        STARLING_RETURN_IF_ERROR(job(*disk_));
        return Nothing();
      },
      [done = std::move(done)](absl::StatusOr<Nothing> result) { done(result.status()); });
}

}  // namespace starling
