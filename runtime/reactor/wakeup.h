// A file descriptor that is readable while something waits to be looked at (an eventfd).
#ifndef STARLING_RUNTIME_REACTOR_WAKEUP_H_
#define STARLING_RUNTIME_REACTOR_WAKEUP_H_

namespace starling {

// Threads: any. Aborts where the system has no descriptor left.
class Wakeup {
 public:
  Wakeup();
  ~Wakeup();
  Wakeup(const Wakeup&) = delete;
  Wakeup& operator=(const Wakeup&) = delete;

  int fd() const { return fd_; }
  void Signal();  // makes fd() readable
  void Clear();   // makes it not readable
  void Wait();    // blocks until it is readable

 private:
  int fd_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_WAKEUP_H_
