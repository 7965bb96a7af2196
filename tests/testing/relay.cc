#include "tests/testing/relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "runtime/base/check.h"

namespace starling {
namespace {

constexpr int kPairAttempts = 1000;
constexpr size_t kReadBytes = 64 << 10;
constexpr size_t kWaitingBound = 4 << 20;  // of a way; beyond it the sender has to wait

// A socket that listens on this port of loopback (0: any); -1 if it is taken.
int ListenOn(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  STARLING_CHECK(fd >= 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(fd, 64) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

int PortOf(int fd) {
  sockaddr_in address{};
  socklen_t length = sizeof(address);
  STARLING_CHECK_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
  return ntohs(address.sin_port);
}

// -1: nobody listens there.
int ConnectUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  STARLING_CHECK(path.size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  STARLING_CHECK(fd >= 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    close(fd);
    return -1;
  }
  STARLING_CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
  return fd;
}

}  // namespace

Relay::Relay(std::string path)
    : path_(std::move(path)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  // A port and the next one: the peer's control and bulk channels.
  for (int i = 0; i < kPairAttempts && listeners_[1] < 0; ++i) {
    listeners_[0] = ListenOn(0);
    port_ = PortOf(listeners_[0]);
    if (port_ < 65535) listeners_[1] = ListenOn(port_ + 1);
    if (listeners_[1] < 0) close(listeners_[0]);
  }
  STARLING_CHECK_MSG(listeners_[1] >= 0, "no two free ports beside each other");
  thread_ = std::thread([this] { Main(); });
}

Relay::~Relay() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  eventfd_write(wake_, 1);
  thread_.join();
  for (int fd : {listeners_[0], listeners_[1], wake_}) close(fd);
}

void Relay::SetDelay(absl::Duration delay) {
  const std::lock_guard<std::mutex> lock(mutex_);
  settings_.delay = delay;
}

void Relay::SetBandwidth(int64_t bytes_per_s) {
  const std::lock_guard<std::mutex> lock(mutex_);
  settings_.bytes_per_s = bytes_per_s;
}

void Relay::SetStalled(bool stalled) {
  const std::lock_guard<std::mutex> lock(mutex_);
  settings_.stalled = stalled;
  eventfd_write(wake_, 1);
}

void Relay::SetCut(bool cut) {
  const std::lock_guard<std::mutex> lock(mutex_);
  settings_.cut = cut;
  eventfd_write(wake_, 1);
}

uint64_t Relay::bytes_passed() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return passed_;
}

void Relay::Main() {
  while (Turn()) {
  }
  while (!connections_.empty()) {
    Close(&connections_.front());
    connections_.pop_front();
  }
}

bool Relay::Turn() {
  Settings settings;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (ending_) return false;
    settings = settings_;
  }
  for (auto it = connections_.begin(); settings.cut && it != connections_.end();) {
    Close(&*it);
    it = connections_.erase(it);
  }
  std::vector<pollfd> files = {
      {wake_, POLLIN, 0}, {listeners_[0], POLLIN, 0}, {listeners_[1], POLLIN, 0}};
  if (!settings.stalled) {
    for (const Connection& connection : connections_) {
      for (const Way* way : {&connection.in, &connection.out}) {
        const bool readable = !way->ended && way->waiting_bytes < kWaitingBound;
        if (readable) files.push_back({way->from, POLLIN, 0});
        const bool due = !way->waiting.empty() && way->waiting.front().due <= absl::Now();
        if (due) files.push_back({way->to, POLLOUT, 0});
      }
    }
  }
  poll(files.data(), files.size(), NextDue(settings.stalled));
  eventfd_t ignored = 0;
  eventfd_read(wake_, &ignored);
  Accept(listeners_[0], path_, settings.cut);
  Accept(listeners_[1], path_ + "-bulk", settings.cut);
  if (settings.stalled) return true;
  uint64_t passed = 0;
  for (auto it = connections_.begin(); it != connections_.end();) {
    bool open = true;
    for (Way* way : {&it->in, &it->out}) {
      Read(settings, way);
      open = Write(way, &passed) && open && !(way->ended && way->waiting.empty());
    }
    if (open) {
      ++it;
    } else {
      Close(&*it);
      it = connections_.erase(it);
    }
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  passed_ += passed;
  return true;
}

void Relay::Accept(int listener, const std::string& path, bool cut) {
  const int outside = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (outside < 0) return;
  const int inside = cut ? -1 : ConnectUnix(path);
  if (inside < 0) {
    close(outside);
    return;
  }
  const int on = 1;
  setsockopt(outside, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  Connection& connection = connections_.emplace_back();
  connection.outside = connection.in.from = connection.out.to = outside;
  connection.inside = connection.in.to = connection.out.from = inside;
}

void Relay::Read(const Settings& settings, Way* way) {
  while (!way->ended && way->waiting_bytes < kWaitingBound) {
    std::string bytes(kReadBytes, '\0');
    const ssize_t got = recv(way->from, bytes.data(), bytes.size(), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
      way->ended = true;
      return;
    }
    bytes.resize(static_cast<size_t>(got));
    way->free = std::max(way->free, absl::Now());
    if (settings.bytes_per_s > 0) {
      way->free +=
          absl::Seconds(static_cast<double>(got) / static_cast<double>(settings.bytes_per_s));
    }
    way->waiting_bytes += bytes.size();
    way->waiting.push_back({way->free + settings.delay, std::move(bytes), 0});
  }
}

// Sends what is due. False: the connection is lost.
bool Relay::Write(Way* way, uint64_t* passed) {
  while (!way->waiting.empty() && way->waiting.front().due <= absl::Now()) {
    Chunk& chunk = way->waiting.front();
    const ssize_t sent = send(way->to, chunk.bytes.data() + chunk.sent,
                              chunk.bytes.size() - chunk.sent, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    chunk.sent += static_cast<size_t>(sent);
    way->waiting_bytes -= static_cast<size_t>(sent);
    *passed += static_cast<uint64_t>(sent);
    if (chunk.sent == chunk.bytes.size()) way->waiting.pop_front();
  }
  return true;
}

int Relay::NextDue(bool stalled) const {
  absl::Time next = absl::InfiniteFuture();
  for (const Connection& connection : connections_) {
    for (const Way* way : {&connection.in, &connection.out}) {
      // What is due already waits for room, which poll sees.
      if (!way->waiting.empty() && way->waiting.front().due > absl::Now()) {
        next = std::min(next, way->waiting.front().due);
      }
    }
  }
  if (stalled || next == absl::InfiniteFuture()) return -1;
  return static_cast<int>(absl::ToInt64Milliseconds(next - absl::Now())) + 1;
}

void Relay::Close(Connection* connection) {
  close(connection->outside);
  close(connection->inside);
}

}  // namespace starling
