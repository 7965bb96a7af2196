#include "runtime/reactor/worker.h"

#include <pthread.h>
#include <signal.h>

#include "runtime/base/check.h"

namespace starling {
namespace {

constexpr size_t kReleases = 65536;  // waiting at once; each frees something that is held

}  // namespace

Worker::Worker(EventLoop* loop, Options options)
    : loop_(loop),
      options_(std::move(options)),
      inbox_(options_.bound + kReleases),
      outbox_(options_.bound) {
  watch_ = loop_->AddReadable(outbox_.fd(), [this] { GiveAnswers(); });
  // Signals are for the reactor thread: this one, and those it starts, take none.
  sigset_t all;
  sigset_t former;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &former);
  thread_ = std::thread([this] { ThreadMain(); });
  pthread_sigmask(SIG_SETMASK, &former, nullptr);
}

Worker::~Worker() {
  STARLING_CHECK_MSG(!answering_, "a worker is destroyed by one of its answers");
  closing_ = true;
  stopping_.store(true);
  std::deque<Task> never_taken = inbox_.Close();
  thread_.join();
  loop_->Remove(watch_);
  GiveAnswers();
  for (Task& task : never_taken) {
    if (task.finish) task.finish(absl::CancelledError("shutting down"));
  }
  while (!refusals_.empty()) GiveRefusals();
  loop_->Cancel(refusal_timer_);
}

void Worker::Submit(Task task) {
  if (closing_) return Refuse(std::move(task), absl::CancelledError("shutting down"));
  if (outstanding_ >= options_.bound) {
    return Refuse(std::move(task), absl::ResourceExhaustedError("the queue of the " +
                                                                options_.name + " thread is full"));
  }
  ++outstanding_;
  STARLING_CHECK(inbox_.Push(std::move(task)));
}

void Worker::Release(std::function<void()> work) {
  if (closing_) return;
  STARLING_CHECK_MSG(inbox_.Push(Task{std::move(work), nullptr}), "more releases than holdings");
}

void Worker::Refuse(Task task, absl::Status why) {
  refusals_.push_back({std::move(task.finish), std::move(why)});
  if (refusals_.size() > 1) return;  // the timer is set
  refusal_timer_ = loop_->Schedule(absl::ZeroDuration(), [this] { GiveRefusals(); });
}

void Worker::GiveRefusals() {
  const std::deque<Answer> refusals = std::exchange(refusals_, {});
  answering_ = true;
  for (const Answer& refusal : refusals) refusal.finish(refusal.not_run);
  answering_ = false;
}

void Worker::GiveAnswers() {
  const std::deque<Answer> answers = outbox_.Take();
  answering_ = true;
  for (const Answer& answer : answers) {
    --outstanding_;
    answer.finish(answer.not_run);
  }
  answering_ = false;
}

void Worker::ThreadMain() {
  pthread_setname_np(pthread_self(), options_.name.substr(0, 15).c_str());
  if (options_.on_start) options_.on_start();
  while (!inbox_.closed()) {
    inbox_.Wait();
    std::deque<Task> tasks = inbox_.Take();
    while (!tasks.empty()) {
      Task task = std::move(tasks.front());
      tasks.pop_front();
      const bool run = !stopping_.load();
      if (run) task.work();
      task.work = nullptr;  // what it holds is released on the thread that used it
      if (!task.finish) continue;
      STARLING_CHECK(
          outbox_.Push({std::move(task.finish),
                        run ? absl::OkStatus() : absl::CancelledError("shutting down")}));
    }
  }
}

}  // namespace starling
