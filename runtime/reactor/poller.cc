#include "runtime/reactor/poller.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>

#include "runtime/base/check.h"

namespace starling {
namespace {

constexpr int kEventsPerWait = 64;  // what is over comes with the next one

int DescriptorOf(void* socket) {
  int fd = -1;
  size_t size = sizeof(fd);
  STARLING_CHECK_EQ(zmq_getsockopt(socket, ZMQ_FD, &fd, &size), 0);
  return fd;
}

bool CanRead(void* socket) {
  int events = 0;
  size_t size = sizeof(events);
  while (zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) != 0) {
    STARLING_CHECK_MSG(zmq_errno() == EINTR, zmq_strerror(zmq_errno()));
  }
  return (events & ZMQ_POLLIN) != 0;
}

}  // namespace

Poller::Poller() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  STARLING_CHECK_MSG(epoll_ >= 0, "no epoll descriptor: too many open files");
}

Poller::~Poller() { close(epoll_); }

void Poller::Add(uint64_t key, int fd) { Insert(key, {fd, nullptr}); }

void Poller::AddSocket(uint64_t key, void* socket) {
  Insert(key, {DescriptorOf(socket), socket});
  again_.insert(key);  // what came before is not told
}

void Poller::Insert(uint64_t key, const Source& source) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = key;
  STARLING_CHECK_EQ(epoll_ctl(epoll_, EPOLL_CTL_ADD, source.fd, &event), 0);
  STARLING_CHECK(sources_.emplace(key, source).second);
}

void Poller::Remove(uint64_t key) {
  const auto source = sources_.find(key);
  if (source == sources_.end()) return;
  STARLING_CHECK_EQ(epoll_ctl(epoll_, EPOLL_CTL_DEL, source->second.fd, nullptr), 0);
  sources_.erase(source);
  again_.erase(key);
}

std::vector<uint64_t> Poller::Wait(int milliseconds) {
  std::vector<uint64_t> ready;
  for (auto key = again_.begin(); key != again_.end();) {
    if (CanRead(sources_.at(*key).socket)) {
      ready.push_back(*key++);
    } else {
      key = again_.erase(key);
    }
  }
  epoll_event events[kEventsPerWait];
  const int count = epoll_wait(epoll_, events, kEventsPerWait, ready.empty() ? milliseconds : 0);
  STARLING_CHECK(count >= 0 || errno == EINTR);
  for (int i = 0; i < count; ++i) {
    const uint64_t key = events[i].data.u64;
    if (again_.count(key) != 0) continue;  // it is among them
    void* const socket = sources_.at(key).socket;
    if (socket != nullptr) {
      if (!CanRead(socket)) continue;  // something else than a message
      again_.insert(key);
    }
    ready.push_back(key);
  }
  std::sort(ready.begin(), ready.end());
  return ready;
}

}  // namespace starling
