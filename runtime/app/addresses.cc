#include "runtime/app/addresses.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/reactor/listen_address.h"

namespace starling {
namespace {

constexpr char kTcp[] = "tcp://";

// Where the port's colon is in "tcp://HOST:PORT"; npos without a port.
size_t PortColon(const std::string& address) {
  const size_t colon = address.rfind(':');
  const size_t bracket = address.rfind(']');
  if (colon == std::string::npos || colon < sizeof(kTcp) - 1) return std::string::npos;
  return bracket != std::string::npos && colon < bracket ? std::string::npos : colon;
}

}  // namespace

absl::StatusOr<std::string> ParseAddress(const std::string& text) {
  const std::string address = text.find("://") == std::string::npos ? kTcp + text : text;
  if (IsConnectable(address)) return address;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is no address: give tcp://HOST:PORT, as the trainer prints it"));
}

std::string HostOf(const std::string& address) {
  if (!absl::StartsWith(address, kTcp)) return "";
  const size_t begin = sizeof(kTcp) - 1;
  const size_t colon = PortColon(address);
  return colon == std::string::npos ? address.substr(begin) : address.substr(begin, colon - begin);
}

std::string PortOf(const std::string& address) {
  const size_t colon = absl::StartsWith(address, kTcp) ? PortColon(address) : std::string::npos;
  return colon == std::string::npos ? "" : address.substr(colon + 1);
}

bool IsLoopback(const std::string& address) {
  if (!absl::StartsWith(address, kTcp)) return true;
  const std::string host = HostOf(address);
  return absl::StartsWith(host, "127.") || host == "localhost" || host == "[::1]" || host == "lo";
}

std::string LocalAddressTowards(const std::string& address) {
  addrinfo hints = {};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(HostOf(address).c_str(), PortOf(address).c_str(), &hints, &found) != 0) return "";
  std::string local;
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in name = {};
  socklen_t length = sizeof(name);
  char text[INET_ADDRSTRLEN] = {};
  if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0 &&
      getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) == 0 &&
      inet_ntop(AF_INET, &name.sin_addr, text, sizeof(text)) != nullptr) {
    local = text;
  }
  if (fd >= 0) close(fd);
  freeaddrinfo(found);
  return local;
}

bool RefusesConnections(const std::string& endpoint) {
  constexpr int kLimitMs = 500;
  if (!absl::StartsWith(endpoint, kTcp)) return false;
  addrinfo hints = {};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(HostOf(endpoint).c_str(), PortOf(endpoint).c_str(), &hints, &found) != 0) {
    return false;
  }
  int error = 0;
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
    error = errno;
    pollfd connected = {fd, POLLOUT, 0};
    socklen_t length = sizeof(error);
    if (error == EINPROGRESS && poll(&connected, 1, kLimitMs) == 1) {
      getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    }
  }
  if (fd >= 0) close(fd);
  freeaddrinfo(found);
  return error == ECONNREFUSED;
}

}  // namespace starling
