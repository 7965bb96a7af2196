#include "tests/runtime/reactor/zmq_harness.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <random>

#include "runtime/base/check.h"
#include "runtime/reactor/listen_address.h"

namespace starling {
namespace {

bool IsFree(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool bound = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  close(fd);
  return bound;
}

}  // namespace

int FreePortPair() {
  std::random_device random;
  while (true) {
    const int port = 15000 + 2 * static_cast<int>(random() % 8000);
    if (IsFree(port) && IsFree(port + 1)) return port;
  }
}

Endpoint ZmqHarness::AddressOf(int peer) {
  if (listens_.count(peer) == 0) listens_[peer] = ListenOf(peer);
  return ListenEndpoint(listens_[peer]).value();
}

Transport& ZmqHarness::Start(int peer, TransportHandler* handler) {
  AddressOf(peer);
  ZmqTransport::Options options;
  options.listen = listens_[peer];
  options.send_queue = kQueue;
  options.max_message_bytes = 32 << 20;
  auto transport = ZmqTransport::Create(&loop_, options);
  STARLING_CHECK_MSG(transport.ok(), transport.status().ToString());
  (*transport)->SetHandler(handler);
  transports_[peer] = *std::move(transport);
  return *transports_[peer];
}

}  // namespace starling
