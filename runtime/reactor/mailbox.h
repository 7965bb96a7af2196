// A bounded queue into one thread, from any others: the only lock of the runtime.
//
//   Mailbox<std::function<void()>> mailbox(/*bound=*/1024);
//   if (!mailbox.Push(closure)) ...full or closed, `closure` is untouched...
//
// The consumer polls fd() beside its sockets, or blocks in Wait(), and takes what is there. Nothing
// is called or destroyed under the lock. What was accepted is handed out exactly once, by Take() or
// by Close().
#ifndef STARLING_RUNTIME_REACTOR_MAILBOX_H_
#define STARLING_RUNTIME_REACTOR_MAILBOX_H_

#include <cstddef>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "runtime/base/check.h"
#include "runtime/reactor/mutex.h"
#include "runtime/reactor/wakeup.h"

namespace starling {

template <typename T>
class Mailbox {
 public:
  explicit Mailbox(size_t bound) : bound_(bound) { STARLING_CHECK_GT(bound, 0u); }
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // Any thread; never blocks for room. False, and `item` untouched, if the mailbox is full or
  // closed.
  bool Push(T&& item) {
    MutexLock lock(&mutex_);
    if (closed_ || items_.size() >= bound_) return false;
    items_.push_back(std::move(item));
    if (items_.size() == 1) wakeup_.Signal();
    return true;
  }

  // Consumer: all that waits, in the order it was pushed; maybe nothing.
  std::deque<T> Take() {
    std::deque<T> taken;
    MutexLock lock(&mutex_);
    if (!closed_) wakeup_.Clear();
    taken.swap(items_);
    return taken;
  }

  // Refuses everything from now on and hands out what still waited. Wakes the consumer for good.
  std::deque<T> Close() {
    std::deque<T> taken;
    MutexLock lock(&mutex_);
    closed_ = true;
    taken.swap(items_);
    wakeup_.Signal();
    return taken;
  }

  bool closed() const {
    MutexLock lock(&mutex_);
    return closed_;
  }

  // Readable while something waits, and for ever once closed.
  int fd() const { return wakeup_.fd(); }
  void Wait() { wakeup_.Wait(); }

 private:
  const size_t bound_;
  Wakeup wakeup_;
  mutable Mutex mutex_;
  std::deque<T> items_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_MAILBOX_H_
