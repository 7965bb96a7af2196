// A mutex that clang's thread-safety analysis understands. std::mutex, so that ThreadSanitizer sees
// it: Debian's Abseil is not instrumented, and absl::Mutex gives false reports.
#ifndef STARLING_RUNTIME_REACTOR_MUTEX_H_
#define STARLING_RUNTIME_REACTOR_MUTEX_H_

#include <mutex>

#include "absl/base/thread_annotations.h"

namespace starling {

class ABSL_LOCKABLE Mutex {
 public:
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(mutex) {
    mutex_->Lock();
  }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mutex_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_MUTEX_H_
