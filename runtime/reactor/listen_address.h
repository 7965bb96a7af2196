// Where to listen and what to tell others: the rules for `swarm.listen` and `swarm.advertise`.
#ifndef STARLING_RUNTIME_REACTOR_LISTEN_ADDRESS_H_
#define STARLING_RUNTIME_REACTOR_LISTEN_ADDRESS_H_

#include <string>

#include "absl/status/statusor.h"
#include "runtime/env/transport.h"

namespace starling {

// The addresses to bind: "tcp://host:*" gives two free ports, "tcp://host:N" the ports N and N+1,
// "ipc://path" that path and "path-bulk". Invalid argument: anything else.
absl::StatusOr<Endpoint> ListenEndpoint(const std::string& listen);

// What others are told, from the addresses that were bound (real ports) and the wish to advertise:
// "" for the bound ones, "tcp://host" for that host with the bound ports, "tcp://host:N" for the
// ports N and N+1 (of a gateway, say). Invalid argument: it cannot be parsed, or every interface is
// listened on and nothing names one.
absl::StatusOr<Endpoint> AdvertisedEndpoint(const Endpoint& bound, const std::string& advertise);

// Whether a peer's endpoint is one that may be connected to: "tcp://host:port" or "ipc://path".
bool IsConnectable(const std::string& endpoint);

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_LISTEN_ADDRESS_H_
