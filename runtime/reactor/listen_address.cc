#include "runtime/reactor/listen_address.h"

#include <cctype>
#include <optional>

#include "runtime/base/status_macros.h"

namespace starling {
namespace {

const char kTcp[] = "tcp://";
const char kIpc[] = "ipc://";
constexpr int kMaxPort = 65535;
constexpr size_t kMaxIpcPath = 100;  // the system's limit is 107, and "-bulk" is added

bool StartsWith(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

struct HostPort {
  std::string host;
  std::string port;  // digits, "*", or empty where none was given
};

// Of "tcp://host:port". An IPv6 address stands in brackets.
std::optional<HostPort> SplitTcp(const std::string& address) {
  if (!StartsWith(address, kTcp)) return std::nullopt;
  const std::string rest = address.substr(sizeof(kTcp) - 1);
  const size_t colon = rest.rfind(':');
  const size_t bracket = rest.rfind(']');
  HostPort parts;
  if (colon == std::string::npos || (bracket != std::string::npos && colon < bracket)) {
    parts.host = rest;
  } else {
    parts = {rest.substr(0, colon), rest.substr(colon + 1)};
    if (parts.port.empty()) return std::nullopt;
  }
  // ZeroMQ takes "source;target": not from peers.
  if (parts.host.empty() || parts.host.find_first_of(" ;/@") != std::string::npos) {
    return std::nullopt;
  }
  return parts;
}

std::optional<int> PortNumber(const std::string& port) {
  if (port.empty() || port.size() > 5) return std::nullopt;
  int number = 0;
  for (char digit : port) {
    if (std::isdigit(static_cast<unsigned char>(digit)) == 0) return std::nullopt;
    number = number * 10 + (digit - '0');
  }
  if (number < 1 || number > kMaxPort) return std::nullopt;
  return number;
}

Endpoint TcpPair(const std::string& host, const std::string& control, const std::string& bulk) {
  return {kTcp + host + ":" + control, kTcp + host + ":" + bulk};
}

bool IsEveryInterface(const std::string& host) {
  return host == "*" || host == "0.0.0.0" || host == "[::]";
}

}  // namespace

absl::StatusOr<Endpoint> ListenEndpoint(const std::string& listen) {
  if (StartsWith(listen, kIpc)) {
    const std::string path = listen.substr(sizeof(kIpc) - 1);
    if (path.empty() || path == "*" || path.size() > kMaxIpcPath) {
      return absl::InvalidArgumentError("cannot listen on " + listen +
                                        ": ipc:// needs a path of 1 to 100 characters");
    }
    return Endpoint{listen, listen + "-bulk"};
  }
  const std::optional<HostPort> parts = SplitTcp(listen);
  if (parts.has_value() && parts->port == "*") return TcpPair(parts->host, "*", "*");
  const std::optional<int> port = parts.has_value() ? PortNumber(parts->port) : std::nullopt;
  if (!port.has_value() || *port == kMaxPort) {
    return absl::InvalidArgumentError(
        "cannot listen on " + listen +
        ": give tcp://HOST:PORT (PORT and PORT+1 are used), tcp://HOST:* or ipc://PATH");
  }
  return TcpPair(parts->host, std::to_string(*port), std::to_string(*port + 1));
}

absl::StatusOr<Endpoint> AdvertisedEndpoint(const Endpoint& bound, const std::string& advertise) {
  const std::optional<HostPort> control = SplitTcp(bound.control);
  const std::optional<HostPort> bulk = SplitTcp(bound.bulk);
  if (advertise.empty()) {
    if (control.has_value() && IsEveryInterface(control->host)) {
      return absl::InvalidArgumentError(
          "listening on every interface (" + bound.control +
          ") needs an address to tell the others: set swarm.advertise to tcp://HOST");
    }
    return bound;
  }
  const std::optional<HostPort> parts = SplitTcp(advertise);
  if (parts.has_value() && !IsEveryInterface(parts->host)) {
    if (parts->port.empty() && control.has_value() && bulk.has_value()) {
      return TcpPair(parts->host, control->port, bulk->port);
    }
    const std::optional<int> port = PortNumber(parts->port);
    if (port.has_value() && *port < kMaxPort) {
      return TcpPair(parts->host, std::to_string(*port), std::to_string(*port + 1));
    }
  }
  return absl::InvalidArgumentError("cannot advertise " + advertise +
                                    ": give tcp://HOST or tcp://HOST:PORT");
}

bool IsConnectable(const std::string& endpoint) {
  if (StartsWith(endpoint, kIpc)) return endpoint.size() > sizeof(kIpc) - 1;
  const std::optional<HostPort> parts = SplitTcp(endpoint);
  return parts.has_value() && parts->host != "*" && PortNumber(parts->port).has_value();
}

}  // namespace starling
