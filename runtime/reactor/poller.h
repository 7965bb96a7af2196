// Poller: which of many file descriptors and ZeroMQ sockets can be read. A wait costs what can be
// read, not what is watched: a trainer of a thousand peers watches several thousand sockets.
//
// It is an epoll set. A ZeroMQ socket is in it with the descriptor that libzmq gives (ZMQ_FD),
// which tells of changes only: so a socket that could be read is looked at again in the next wait,
// until it has nothing more. For that to be enough nothing may be sent on a socket that is watched.
//
// Threads: one.
#ifndef STARLING_RUNTIME_REACTOR_POLLER_H_
#define STARLING_RUNTIME_REACTOR_POLLER_H_

#include <cstdint>
#include <map>
#include <set>
#include <vector>

namespace starling {

class Poller {
 public:
  Poller();
  ~Poller();
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // Each under a key of its own, open until it is removed. A descriptor may be added once.
  void Add(uint64_t key, int fd);
  void AddSocket(uint64_t key, void* socket);
  void Remove(uint64_t key);

  // The keys of what can be read, ascending; waits for the first at most so many milliseconds, -1
  // without end. May come back early with none.
  std::vector<uint64_t> Wait(int milliseconds);

 private:
  struct Source {
    int fd = -1;
    void* socket = nullptr;  // none: a plain descriptor
  };

  void Insert(uint64_t key, const Source& source);

  const int epoll_;
  std::map<uint64_t, Source> sources_;
  std::set<uint64_t> again_;  // sockets that could be read when they were last looked at
};

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_POLLER_H_
