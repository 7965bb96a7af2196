// Transport: packets between peers, not reliable on its own.
//
// A packet is one envelope (encoded by runtime/wire) and any number of tensor frames. It arrives
// whole or not at all, at most once, possibly late; packets of one channel between two peers keep
// their order, the two channels do not wait for each other (a heartbeat must not queue behind a
// 32 MB tensor).
//
// Threads: every call and every callback happens on the reactor thread. No callback runs inline.
#ifndef STARLING_RUNTIME_ENV_TRANSPORT_H_
#define STARLING_RUNTIME_ENV_TRANSPORT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/base/blob.h"

namespace starling {

enum class Channel : uint8_t { kControl = 0, kBulk = 1 };

// Where a peer is reached: one ZeroMQ endpoint per channel ("tcp://10.0.0.7:49200").
struct Endpoint {
  std::string control;
  std::string bulk;

  bool empty() const { return control.empty(); }
  friend bool operator==(const Endpoint& a, const Endpoint& b) {
    return a.control == b.control && a.bulk == b.bulk;
  }
  friend bool operator!=(const Endpoint& a, const Endpoint& b) { return !(a == b); }
  friend bool operator<(const Endpoint& a, const Endpoint& b) {
    return a.control != b.control ? a.control < b.control : a.bulk < b.bulk;
  }
};

struct Packet {
  Blob envelope;             // u8
  std::vector<Blob> frames;  // u8; the envelope says what they hold. Aligned to 4 bytes or better
};

class TransportHandler {
 public:
  virtual ~TransportHandler() = default;

  virtual void OnPacket(Packet packet) = 0;

  // A connection to `peer` that had been up is gone (its process died, or the network did). Packets
  // on their way may be lost. Called once per loss; sending again starts a new connection.
  virtual void OnLinkLost(const Endpoint& peer) = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;

  // Where others reach this peer. Fixed for the transport's life.
  virtual const Endpoint& address() const = 0;

  // The handler must outlive the transport. Set once, before the first packet can arrive.
  virtual void SetHandler(TransportHandler* handler) = 0;

  // Queues a packet. Connects on first use and keeps trying to.
  //   resource exhausted: the queue to that peer is full; nothing was queued.
  //   invalid argument: the endpoint cannot be parsed.
  virtual absl::Status Send(const Endpoint& to, Channel channel, Packet packet) = 0;

  // Forgets the connection; queued packets are dropped and no OnLinkLost follows.
  virtual void Disconnect(const Endpoint& peer) = 0;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_ENV_TRANSPORT_H_
