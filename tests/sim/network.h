// SimNetwork and SimTransport: packets between the nodes of the virtual world.
//
// A packet takes the pair's own delay plus a drawn jitter, plus its size over the link's bandwidth
// where one is set (per channel: bulk queues behind bulk only). Packets of a channel between two
// peers keep their order; the two channels, and different links, do not wait for each other.
// Faults: drawn loss, duplicates (as after a reconnect that sends again what had arrived), directed
// partitions that the sender notices or does not, clogs that hold packets or refuse them, processes
// that die with or without a word, and a filter that sees each packet and may drop or delay it.
//
// A link is one process's connection to an address. It is made at the first Send and waits for a
// listener as long as it takes. When the listener's process dies, those connected to it hear
// OnLinkLost after a drawn delay; a machine that vanishes silently is noticed by a timeout, or when
// another process answers at its address. What was on its way is lost.
#ifndef STARLING_TESTS_SIM_NETWORK_H_
#define STARLING_TESTS_SIM_NETWORK_H_

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "runtime/base/rng.h"
#include "runtime/env/transport.h"
#include "tests/sim/scheduler.h"
#include "tests/sim/trace.h"

namespace starling::sim {

struct NetworkOptions {
  // One-way, drawn once per pair of nodes.
  absl::Duration delay_min = absl::Microseconds(100);
  absl::Duration delay_max = absl::Milliseconds(2);
  absl::Duration jitter = absl::Microseconds(500);  // added per packet, uniform in [0, jitter)
  double loss = 0;                                  // chance that a packet vanishes, whatever it is
  double duplicates = 0;                            // chance that it arrives a second time, later
  double bandwidth = 0;         // bytes per second of each link and channel; 0: no limit
  size_t queue_packets = 4096;  // waiting or on their way, per link and channel; more is refused
  absl::Duration link_lost_min = absl::Milliseconds(1);  // from a death to OnLinkLost
  absl::Duration link_lost_max = absl::Milliseconds(50);
  absl::Duration silent_timeout = absl::Seconds(30);  // the same, when the machine vanished
  absl::Duration reconnect = absl::Milliseconds(20);  // between tries; grows to 1 s
};

struct NetworkCounters {
  uint64_t sent = 0;  // accepted by Send
  uint64_t delivered = 0;
  uint64_t lost = 0;     // by drawn loss, partition, filter, or a death on the way
  uint64_t refused = 0;  // queue full
  uint64_t duplicated = 0;
  uint64_t links_lost = 0;  // OnLinkLost calls
  uint64_t bytes = 0;       // accepted by Send
};

// A packet about to travel, as the filter sees it.
struct PacketInfo {
  NodeId from;
  NodeId to;
  Channel channel;
  const Packet& packet;
};

struct PacketFate {
  bool drop = false;
  absl::Duration extra_delay = absl::ZeroDuration();
};

class SimTransport;

class SimNetwork {
 public:
  // Both outlive the network. `trace` may be null.
  SimNetwork(Scheduler* scheduler, Trace* trace, NetworkOptions options, uint64_t seed);
  ~SimNetwork();

  // The address of port `port` of a machine of its own for `node`.
  static Endpoint AddressOf(NodeId node, uint32_t port);

  // Listens at `address`, where nobody may listen yet. The network outlives its transports.
  std::unique_ptr<SimTransport> Attach(NodeId node, const Endpoint& address);

  // What becomes of each packet that has a connection; empty: nothing special.
  void SetFilter(std::function<PacketFate(const PacketInfo&)> filter);
  // Sees each packet that is handed to a connection; for traces.
  void SetTap(std::function<void(const PacketInfo&)> tap) { tap_ = std::move(tap); }
  // From now on packets from one to the other vanish, and no link is made that way. The sender
  // hears soon that its link is lost, unless `silent`: then it hears nothing.
  void Partition(NodeId from, NodeId to, bool silent = false);
  void Heal(NodeId from, NodeId to);
  // No partition, clog, jam or loss any more.
  void HealAll();
  // The world ends: no connection is left, and nobody is told.
  void CutAll() { links_.clear(); }
  // Packets from one to the other are held for `duration`, then arrive in order.
  void Clog(NodeId from, NodeId to, absl::Duration duration);
  // Send from one to the other answers resource exhausted for `duration`: the queue stays full.
  void Jam(NodeId from, NodeId to, absl::Duration duration);
  // 0: no limit.
  void SetBandwidth(NodeId from, NodeId to, double bytes_per_second);
  void SetLoss(double loss) { options_.loss = loss; }

  const NetworkCounters& counters() const { return counters_; }
  const NetworkOptions& options() const { return options_; }

 private:
  friend class SimTransport;

  using Pair = std::pair<NodeId, NodeId>;
  enum class LinkState : uint8_t { kIdle, kConnecting, kUp };

  // One connection from its making to its end; deliveries hold it.
  struct Connection {
    uint64_t target = 0;  // serial of the listening transport
    NodeId to = kNobody;
    absl::Time cut = absl::InfiniteFuture();  // what had not left the sender by then is lost
    std::array<size_t, 2> on_the_way{};       // by channel
    bool break_scheduled = false;
  };
  struct Link {
    LinkState state = LinkState::kIdle;
    std::shared_ptr<Connection> connection;  // when up
    std::deque<std::pair<Channel, Packet>> waiting;
    std::array<size_t, 2> waiting_count{};
    std::array<absl::Time, 2> busy_until{absl::InfinitePast(), absl::InfinitePast()};
    std::array<absl::Time, 2> last_arrival{absl::InfinitePast(), absl::InfinitePast()};
    absl::Duration next_try = absl::ZeroDuration();
    Scheduler::EventId try_event = 0;
  };
  using LinkKey = std::pair<uint64_t, Endpoint>;  // sender's serial, address

  absl::Status Send(SimTransport* from, const Endpoint& to, Channel channel, Packet packet);
  void Disconnect(SimTransport* from, const Endpoint& to);
  void Detach(SimTransport* transport, bool silent);
  void TryConnect(uint64_t from_serial, const Endpoint& to);
  void Transmit(SimTransport* from, const Endpoint& to, Link* link, Channel channel, Packet packet);
  void Deliver(const std::shared_ptr<Connection>& connection, Channel channel, absl::Time departs,
               Packet packet);
  void BreakLater(NodeId node, uint64_t from_serial, const Endpoint& to, Connection* connection,
                  absl::Duration delay);
  void Break(uint64_t from_serial, const Endpoint& to);
  absl::Duration DrawBetween(absl::Duration low, absl::Duration high);
  absl::Duration DelayOf(NodeId from, NodeId to) const;
  bool Jammed(NodeId from, const Link& link, const Endpoint& to) const;
  // Puts one copy on its way.
  void Travel(Link* link, Channel channel, absl::Time departs, absl::Time arrives, Packet packet);
  bool Blocked(NodeId from, NodeId to) const { return partitions_.count({from, to}) > 0; }

  Scheduler* const scheduler_;
  Trace* const trace_;
  NetworkOptions options_;
  const uint64_t seed_;
  Rng rng_;
  uint64_t last_serial_ = 0;
  std::map<uint64_t, SimTransport*> live_;          // by serial
  std::map<std::string, SimTransport*> listeners_;  // by control address
  std::map<LinkKey, Link> links_;
  std::map<Pair, bool> partitions_;  // silent?
  std::map<Pair, absl::Time> clogs_;
  std::map<Pair, absl::Time> jams_;
  std::map<Pair, double> bandwidths_;
  std::function<PacketFate(const PacketInfo&)> filter_;
  std::function<void(const PacketInfo&)> tap_;
  NetworkCounters counters_;
};

// One process's end. Destroying it is the death of the process, as others see it.
class SimTransport : public Transport {
 public:
  ~SimTransport() override;
  SimTransport(const SimTransport&) = delete;
  SimTransport& operator=(const SimTransport&) = delete;

  const Endpoint& address() const override { return address_; }
  void SetHandler(TransportHandler* handler) override { handler_ = handler; }
  absl::Status Send(const Endpoint& to, Channel channel, Packet packet) override;
  void Disconnect(const Endpoint& peer) override;

  // Ends it now: nothing is sent or received any more. Silent: nobody is told.
  void Close(bool silent);

 private:
  friend class SimNetwork;
  SimTransport(SimNetwork* network, NodeId node, uint64_t serial, Endpoint address);

  SimNetwork* const network_;
  const NodeId node_;
  const uint64_t serial_;
  const Endpoint address_;
  TransportHandler* handler_ = nullptr;
  bool closed_ = false;
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_NETWORK_H_
