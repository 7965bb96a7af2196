// Worker: a thread that does one piece of work after another for the reactor.
//
// Two mailboxes, no other shared state: work goes in, finished work comes back and is finished off
// on the reactor thread. Threads: everything is called on the reactor thread of `loop`, which must
// outlive the worker.
//
// Every piece of work is answered exactly once, never inline: with what it gave, with resource
// exhausted if `bound` pieces were outstanding, or with cancelled if the worker was destroyed
// first.
#ifndef STARLING_RUNTIME_REACTOR_WORKER_H_
#define STARLING_RUNTIME_REACTOR_WORKER_H_

#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/mailbox.h"

namespace starling {

class Worker {
 public:
  struct Options {
    std::string name = "worker";     // of the thread, at most 15 characters
    size_t bound = 1024;             // pieces of work accepted and not yet answered
    std::function<void()> on_start;  // runs first on the thread; may be empty
  };

  Worker(EventLoop* loop, Options options);
  // Waits for the piece of work that is running, answers it, and answers the rest with cancelled.
  // The answers are given inside the destructor; none of them, and no earlier one, may call it.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Runs `work` on the thread, then `done` on the reactor thread.
  template <typename T>
  void Run(std::function<absl::StatusOr<T>()> work, std::function<void(absl::StatusOr<T>)> done) {
    auto result = std::make_shared<std::optional<absl::StatusOr<T>>>();
    Submit({[result, work = std::move(work)] { *result = work(); },
            [result, done = std::move(done)](const absl::Status& not_run) {
              if (not_run.ok()) {
                done(std::move(**result));
              } else {
                done(not_run);
              }
            }});
  }

  // Work without an answer that is never refused: it releases something, so there can be only as
  // much of it as is held. Not run if the worker is destroyed first.
  void Release(std::function<void()> work);

  // Any thread: whether the destructor has begun. Long work may ask, and end early.
  bool stopping() const { return stopping_.load(); }

 private:
  struct Task {
    std::function<void()> work;
    // Ok: `work` ran. Empty for releases.
    std::function<void(const absl::Status& not_run)> finish;
  };
  struct Answer {
    std::function<void(const absl::Status&)> finish;
    absl::Status not_run;
  };

  void Submit(Task task);
  void Refuse(Task task, absl::Status why);
  void ThreadMain();
  void GiveAnswers();
  void GiveRefusals();

  EventLoop* const loop_;
  const Options options_;
  size_t outstanding_ = 0;  // accepted, not yet answered
  bool closing_ = false;
  bool answering_ = false;
  std::deque<Answer> refusals_;  // given at the next turn
  TimerId refusal_timer_ = kNoTimer;
  EventLoop::WatchId watch_{};

  // Shared with the thread.
  std::atomic<bool> stopping_{false};
  Mailbox<Task> inbox_;
  Mailbox<Answer> outbox_;
  std::thread thread_;  // last: starts when all else is there
};

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_WORKER_H_
