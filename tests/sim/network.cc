#include "tests/sim/network.h"

#include <algorithm>
#include <string>

#include "runtime/base/check.h"
#include "runtime/base/hash.h"
#include "runtime/base/ids.h"

namespace starling::sim {
namespace {

constexpr absl::Duration kMaxReconnect = absl::Seconds(1);

bool Parses(const std::string& endpoint) {
  if (endpoint.rfind("tcp://", 0) != 0) return false;
  const size_t colon = endpoint.rfind(':');
  if (colon <= 6 || colon + 1 >= endpoint.size()) return false;
  return endpoint.find_first_not_of("0123456789", colon + 1) == std::string::npos;
}

size_t SizeOf(const Packet& packet) {
  size_t bytes = packet.envelope.size_bytes();
  for (const Blob& frame : packet.frames) bytes += frame.size_bytes();
  return bytes;
}

}  // namespace

SimNetwork::SimNetwork(Scheduler* scheduler, Trace* trace, NetworkOptions options, uint64_t seed)
    : scheduler_(scheduler), trace_(trace), options_(options), seed_(seed), rng_(seed) {}

SimNetwork::~SimNetwork() { STARLING_CHECK_MSG(live_.empty(), "transports outlive the network"); }

Endpoint SimNetwork::AddressOf(NodeId node, uint32_t port) {
  const std::string host = "tcp://10.0." + std::to_string(Value(node) / 250) + "." +
                           std::to_string(Value(node) % 250 + 1);
  return Endpoint{host + ":" + std::to_string(2 * port), host + ":" + std::to_string(2 * port + 1)};
}

std::unique_ptr<SimTransport> SimNetwork::Attach(NodeId node, const Endpoint& address) {
  STARLING_CHECK_MSG(listeners_.count(address.control) == 0, "address in use: " + address.control);
  auto transport =
      std::unique_ptr<SimTransport>(new SimTransport(this, node, ++last_serial_, address));
  live_[transport->serial_] = transport.get();
  listeners_[address.control] = transport.get();
  return transport;
}

void SimNetwork::SetFilter(std::function<PacketFate(const PacketInfo&)> filter) {
  filter_ = std::move(filter);
}

void SimNetwork::Partition(NodeId from, NodeId to, bool silent) {
  partitions_[{from, to}] = silent;
}

void SimNetwork::Heal(NodeId from, NodeId to) { partitions_.erase({from, to}); }

void SimNetwork::HealAll() {
  partitions_.clear();
  clogs_.clear();
  jams_.clear();
  options_.loss = 0;
}

void SimNetwork::Clog(NodeId from, NodeId to, absl::Duration duration) {
  clogs_[{from, to}] = scheduler_->Now() + duration;
}

void SimNetwork::Jam(NodeId from, NodeId to, absl::Duration duration) {
  jams_[{from, to}] = scheduler_->Now() + duration;
}

bool SimNetwork::Jammed(NodeId from, const Link& link, const Endpoint& to) const {
  if (jams_.empty()) return false;
  NodeId target = kNobody;
  if (link.connection) {
    target = link.connection->to;
  } else if (auto listener = listeners_.find(to.control); listener != listeners_.end()) {
    target = listener->second->node_;
  }
  auto jam = jams_.find({from, target});
  return jam != jams_.end() && jam->second > scheduler_->Now();
}

void SimNetwork::SetBandwidth(NodeId from, NodeId to, double bytes_per_second) {
  bandwidths_[{from, to}] = bytes_per_second;
}

absl::Duration SimNetwork::DrawBetween(absl::Duration low, absl::Duration high) {
  return low + (high - low) * rng_.Unit();
}

absl::Duration SimNetwork::DelayOf(NodeId from, NodeId to) const {
  const double unit = ToUnit(MixAll(seed_, 0x64656c6179ULL, Value(from), Value(to)));
  return options_.delay_min + (options_.delay_max - options_.delay_min) * unit;
}

absl::Status SimNetwork::Send(SimTransport* from, const Endpoint& to, Channel channel,
                              Packet packet) {
  const bool needs_bulk = channel == Channel::kBulk || !to.bulk.empty();
  if (!Parses(to.control) || (needs_bulk && !Parses(to.bulk))) {
    return absl::InvalidArgumentError("not an endpoint: '" + to.control + "', '" + to.bulk + "'");
  }
  Link& link = links_[{from->serial_, to}];
  const size_t lane = static_cast<size_t>(channel);
  const size_t queued =
      link.waiting_count[lane] + (link.connection ? link.connection->on_the_way[lane] : 0);
  if (queued >= options_.queue_packets || Jammed(from->node_, link, to)) {
    ++counters_.refused;
    return absl::ResourceExhaustedError("queue to " + to.control + " is full");
  }
  ++counters_.sent;
  counters_.bytes += SizeOf(packet);
  if (link.state == LinkState::kUp) {
    Transmit(from, to, &link, channel, std::move(packet));
    return absl::OkStatus();
  }
  ++link.waiting_count[lane];
  link.waiting.emplace_back(channel, std::move(packet));
  if (link.state == LinkState::kIdle) {
    link.state = LinkState::kConnecting;
    link.next_try = options_.reconnect;
    link.try_event = scheduler_->After(
        DrawBetween(absl::ZeroDuration(), options_.jitter), from->node_, EventKind::kDelivery,
        "connect", [this, serial = from->serial_, to] { TryConnect(serial, to); });
  }
  return absl::OkStatus();
}

void SimNetwork::TryConnect(uint64_t from_serial, const Endpoint& to) {
  SimTransport* from = live_.at(from_serial);
  Link& link = links_.at({from_serial, to});
  auto listener = listeners_.find(to.control);
  const bool reachable = listener != listeners_.end() &&
                         !Blocked(from->node_, listener->second->node_) &&
                         !Blocked(listener->second->node_, from->node_);
  if (!reachable) {
    const absl::Duration wait = link.next_try * (0.5 + rng_.Unit());
    link.next_try = std::min(link.next_try * 2, kMaxReconnect);
    link.try_event = scheduler_->After(wait, from->node_, EventKind::kDelivery, "connect",
                                       [this, from_serial, to] { TryConnect(from_serial, to); });
    return;
  }
  link.state = LinkState::kUp;
  link.try_event = 0;
  link.connection = std::make_shared<Connection>();
  link.connection->target = listener->second->serial_;
  link.connection->to = listener->second->node_;
  std::deque<std::pair<Channel, Packet>> waiting = std::move(link.waiting);
  link.waiting.clear();
  link.waiting_count = {};
  for (auto& [channel, packet] : waiting) {
    Transmit(from, to, &link, channel, std::move(packet));
  }
}

void SimNetwork::Transmit(SimTransport* from, const Endpoint& to, Link* link, Channel channel,
                          Packet packet) {
  const std::shared_ptr<Connection>& connection = link->connection;
  const Pair pair{from->node_, connection->to};
  PacketFate fate;
  if (tap_) tap_(PacketInfo{pair.first, pair.second, channel, packet});
  if (filter_) fate = filter_(PacketInfo{pair.first, pair.second, channel, packet});
  const bool target_alive = live_.count(connection->target) > 0;
  const bool blocked = Blocked(pair.first, pair.second);
  const bool noticed = blocked && !partitions_.at(pair);
  if (noticed || (!target_alive && listeners_.count(to.control) > 0)) {
    BreakLater(from->node_, from->serial_, to, connection.get(),
               DrawBetween(options_.link_lost_min, options_.link_lost_max));
  }
  const bool lost = rng_.Chance(options_.loss);
  const absl::Duration jitter = options_.jitter * rng_.Unit();
  if (blocked || lost || fate.drop || !target_alive) {
    ++counters_.lost;
    return;
  }
  const size_t lane = static_cast<size_t>(channel);
  absl::Time departs = scheduler_->Now();
  auto limit = bandwidths_.find(pair);
  const double bandwidth = limit == bandwidths_.end() ? options_.bandwidth : limit->second;
  if (bandwidth > 0) {
    departs = std::max(departs, link->busy_until[lane]) +
              absl::Seconds(static_cast<double>(SizeOf(packet)) / bandwidth);
    link->busy_until[lane] = departs;
  }
  absl::Time arrives = departs + DelayOf(pair.first, pair.second) + jitter + fate.extra_delay;
  auto clog = clogs_.find(pair);
  if (clog != clogs_.end()) arrives = std::max(arrives, clog->second);
  // Drawn only where it can happen, so that other worlds keep their draws.
  if (options_.duplicates > 0 && rng_.Chance(options_.duplicates)) {
    ++counters_.duplicated;
    Travel(link, channel, departs, arrives + options_.delay_max * (4 * rng_.Unit()), packet);
  }
  arrives = std::max(arrives, link->last_arrival[lane]);
  link->last_arrival[lane] = arrives;
  Travel(link, channel, departs, arrives, std::move(packet));
}

// In order, but for a second copy, which comes when it comes.
void SimNetwork::Travel(Link* link, Channel channel, absl::Time departs, absl::Time arrives,
                        Packet packet) {
  const std::shared_ptr<Connection>& connection = link->connection;
  const size_t lane = static_cast<size_t>(channel);
  ++connection->on_the_way[lane];
  scheduler_->At(arrives, connection->to, EventKind::kDelivery, "packet",
                 [this, connection, channel, departs, packet = std::move(packet)]() mutable {
                   Deliver(connection, channel, departs, std::move(packet));
                 });
}

void SimNetwork::Deliver(const std::shared_ptr<Connection>& connection, Channel channel,
                         absl::Time departs, Packet packet) {
  --connection->on_the_way[static_cast<size_t>(channel)];
  auto target = live_.find(connection->target);
  if (target == live_.end() || target->second->handler_ == nullptr || departs > connection->cut) {
    ++counters_.lost;
    return;
  }
  ++counters_.delivered;
  if (trace_ != nullptr) {
    trace_->Mix(HashBytes(packet.envelope.data(), packet.envelope.size_bytes()).low);
  }
  target->second->handler_->OnPacket(std::move(packet));
}

void SimNetwork::BreakLater(NodeId node, uint64_t from_serial, const Endpoint& to,
                            Connection* connection, absl::Duration delay) {
  if (connection->break_scheduled) return;
  connection->break_scheduled = true;
  const std::weak_ptr<Connection> which = links_.at({from_serial, to}).connection;
  scheduler_->After(delay, node, EventKind::kDelivery, "link lost", [this, from_serial, to, which] {
    auto link = links_.find({from_serial, to});
    // The sender may have gone, or have given the connection up itself.
    if (link == links_.end() || which.expired() || link->second.connection != which.lock()) return;
    Break(from_serial, to);
  });
}

void SimNetwork::Break(uint64_t from_serial, const Endpoint& to) {
  Link& link = links_.at({from_serial, to});
  link.state = LinkState::kIdle;
  link.connection->cut = scheduler_->Now();
  link.connection = nullptr;
  ++counters_.links_lost;
  TransportHandler* handler = live_.at(from_serial)->handler_;
  if (handler != nullptr) handler->OnLinkLost(to);
}

void SimNetwork::Disconnect(SimTransport* from, const Endpoint& to) {
  auto found = links_.find({from->serial_, to});
  if (found == links_.end()) return;
  Link& link = found->second;
  if (link.connection) link.connection->cut = scheduler_->Now();
  link.connection = nullptr;
  scheduler_->Cancel(link.try_event);
  link.try_event = 0;
  link.state = LinkState::kIdle;
  counters_.lost += link.waiting.size();
  link.waiting.clear();
  link.waiting_count = {};
}

void SimNetwork::Detach(SimTransport* transport, bool silent) {
  live_.erase(transport->serial_);
  listeners_.erase(transport->address_.control);
  for (auto it = links_.lower_bound({transport->serial_, Endpoint{}});
       it != links_.end() && it->first.first == transport->serial_;) {
    if (it->second.connection) it->second.connection->cut = scheduler_->Now();
    scheduler_->Cancel(it->second.try_event);
    counters_.lost += it->second.waiting.size();
    it = links_.erase(it);
  }
  for (auto& [key, link] : links_) {
    if (!link.connection || link.connection->target != transport->serial_) continue;
    const absl::Duration delay = silent
                                     ? options_.silent_timeout
                                     : DrawBetween(options_.link_lost_min, options_.link_lost_max);
    // A silent death is noticed sooner if someone else answers at the address (Transmit).
    BreakLater(live_.at(key.first)->node_, key.first, key.second, link.connection.get(), delay);
    if (silent) link.connection->break_scheduled = false;
  }
}

SimTransport::SimTransport(SimNetwork* network, NodeId node, uint64_t serial, Endpoint address)
    : network_(network), node_(node), serial_(serial), address_(std::move(address)) {}

SimTransport::~SimTransport() { Close(false); }

absl::Status SimTransport::Send(const Endpoint& to, Channel channel, Packet packet) {
  if (closed_) return absl::OkStatus();  // the last words of a process that has been killed
  return network_->Send(this, to, channel, std::move(packet));
}

void SimTransport::Disconnect(const Endpoint& peer) {
  if (!closed_) network_->Disconnect(this, peer);
}

void SimTransport::Close(bool silent) {
  if (closed_) return;
  closed_ = true;
  network_->Detach(this, silent);
}

}  // namespace starling::sim
