// Addresses as users type them.
#ifndef STARLING_RUNTIME_APP_ADDRESSES_H_
#define STARLING_RUNTIME_APP_ADDRESSES_H_

#include <string>

#include "absl/status/statusor.h"

namespace starling {

// "host:port" or "tcp://host:port" or "ipc://path" as the endpoint to connect to. Invalid argument:
// it is none of these.
absl::StatusOr<std::string> ParseAddress(const std::string& text);

// Whether only this machine reaches the address ("tcp://127.0.0.1:*", "tcp://localhost:1", ipc).
bool IsLoopback(const std::string& address);

// "tcp://HOST:PORT" -> HOST, PORT; PORT may be empty. Empty for others.
std::string HostOf(const std::string& address);
std::string PortOf(const std::string& address);

// The address of this machine that `address` sees when we connect to it; empty if that cannot be
// told. Sends nothing.
std::string LocalAddressTowards(const std::string& address);

// Nobody listens at this TCP endpoint: the machine is reached and refuses the connection. False
// where that cannot be told, and for endpoints of other kinds. Waits for half a second at most.
bool RefusesConnections(const std::string& endpoint);

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_ADDRESSES_H_
