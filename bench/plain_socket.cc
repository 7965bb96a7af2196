// The plain socket program that transports are measured against.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <thread>
#include <utility>
#include <vector>

#include "bench/bench.h"
#include "runtime/base/check.h"

namespace starling::bench {
namespace {

void WriteAll(int fd, const std::byte* bytes, size_t size) {
  while (size > 0) {
    const ssize_t written = write(fd, bytes, size);
    STARLING_CHECK(written > 0);
    bytes += written;
    size -= static_cast<size_t>(written);
  }
}

void ReadAll(int fd, std::byte* bytes, size_t size) {
  while (size > 0) {
    const ssize_t got = read(fd, bytes, size);
    STARLING_CHECK(got > 0);
    bytes += got;
    size -= static_cast<size_t>(got);
  }
}

}  // namespace

void ConnectTcp(int ends[2]) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  STARLING_CHECK_EQ(bind(listener, any, length), 0);
  STARLING_CHECK_EQ(listen(listener, 1), 0);
  STARLING_CHECK_EQ(getsockname(listener, any, &length), 0);
  ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  STARLING_CHECK_EQ(connect(ends[0], any, length), 0);
  ends[1] = accept(listener, nullptr, nullptr);
  STARLING_CHECK(ends[1] >= 0);
  close(listener);
  const int on = 1;
  for (int i = 0; i < 2; ++i) setsockopt(ends[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

double PlainTransferSeconds(Wire wire, size_t message_bytes, size_t messages) {
  int ends[2];
  if (wire == Wire::kTcp) {
    ConnectTcp(ends);
  } else {
    STARLING_CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  }
  const int sender = ends[0];
  const int receiver = ends[1];
  std::vector<std::byte> from(message_bytes, std::byte{1});
  std::vector<std::byte> to(message_bytes, std::byte{0});
  const Clock::time_point begin = Clock::now();
  std::thread writer([&, fd = sender] {
    for (size_t i = 0; i < messages; ++i) WriteAll(fd, from.data(), message_bytes);
  });
  for (size_t i = 0; i < messages; ++i) ReadAll(receiver, to.data(), message_bytes);
  const double took = Seconds(Clock::now() - begin);
  writer.join();
  close(sender);
  close(receiver);
  return took;
}

}  // namespace starling::bench
