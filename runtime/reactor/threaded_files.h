// ThreadedFiles: jobs on a Disk, on a file thread of their own.
//
// Destruction waits for the job that is running, gives its result, and answers all others with
// cancelled, inside the destructor. Beyond `queue_bound` jobs outstanding, one more is answered
// with resource exhausted.
#ifndef STARLING_RUNTIME_REACTOR_THREADED_FILES_H_
#define STARLING_RUNTIME_REACTOR_THREADED_FILES_H_

#include <cstddef>
#include <functional>

#include "runtime/env/file_system.h"
#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/worker.h"

namespace starling {

class ThreadedFiles final : public Files {
 public:
  // `loop` and `disk` must outlive it; `disk` is used on the file thread.
  ThreadedFiles(EventLoop* loop, Disk* disk, size_t queue_bound = 4096);

  void Run(std::function<absl::Status(Disk&)> job, std::function<void(absl::Status)> done) override;

 private:
  Disk* const disk_;
  Worker worker_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_THREADED_FILES_H_
