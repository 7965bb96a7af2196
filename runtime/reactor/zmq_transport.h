// ZmqTransport: packets over ZeroMQ, on an EventLoop.
//
// It binds two ROUTER sockets, one per channel, which only receive. To each destination it opens a
// DEALER socket per channel on first use, which only sends, and watches its connection: when one
// that was up is lost, both are closed, what they held is dropped, OnLinkLost is called once, and
// the next Send opens new ones. A peer whose process is killed is noticed at once, one whose
// machine or network vanishes after TCP keepalive has failed (about 20 s when idle; with data under
// way the system's retransmission limit holds). A peer that is merely stopped (SIGSTOP) is never
// reported: judging that is the failure detector's.
//
// Frames of 8 KiB and more are sent and received without a copy (those not aligned to 4 bytes are
// copied on receipt); a sent Blob is let go on ZeroMQ's thread.
//
// Bounds: per destination and channel `send_queue` packets (ZeroMQ counts those that have left in
// lots of half of that, so a queue that drains may refuse from the half on), per incoming
// connection `receive_queue`; no frame of more than `max_message_bytes` is read from the network,
// no packet of more in sum or of more than `max_frames` frames is handed on. Bytes that are not
// ZeroMQ's, and messages that do not come from a DEALER, are dropped and counted.
//
// The order within a channel holds as long as the connection does.
//
// Threads: all calls on the reactor thread, callbacks too. One thread of ZeroMQ's does the I/O.
#ifndef STARLING_RUNTIME_REACTOR_ZMQ_TRANSPORT_H_
#define STARLING_RUNTIME_REACTOR_ZMQ_TRANSPORT_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/env/transport.h"
#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/zmq_socket.h"

namespace starling {

class ZmqTransport final : public Transport {
 public:
  struct Options {
    // "tcp://127.0.0.1:*", "tcp://0.0.0.0:49200" (control there, bulk at the next port),
    // "ipc://PATH".
    std::string listen = "tcp://127.0.0.1:*";
    // "tcp://HOST" or "tcp://HOST:PORT": what others are told. Empty: what was bound.
    std::string advertise;
    int64_t max_message_bytes = int64_t{256} << 20;     // of a packet, all frames together
    int max_frames = 1024;                              // of a packet, the envelope too
    int send_queue = 1024;                              // packets, per destination and channel
    int receive_queue = 1024;                           // packets, per incoming connection
    absl::Duration reconnect = absl::Milliseconds(50);  // first interval; it doubles up to
    absl::Duration reconnect_limit = absl::Seconds(1);  // this one
    // On destruction, how long queued packets (a last Stop or Leave) may still go out. Only as long
    // as some are left.
    absl::Duration linger = absl::Milliseconds(500);
  };

  // What has happened since it was made.
  struct Stats {
    uint64_t packets_sent = 0;  // queued
    uint64_t bytes_sent = 0;
    uint64_t packets_received = 0;
    uint64_t bytes_received = 0;
    uint64_t refused_full = 0;       // sends into a full queue
    uint64_t dropped_malformed = 0;  // messages that are no packets, or over the limits
    uint64_t failed_handshakes = 0;  // connections that do not speak ZeroMQ's protocol
    uint64_t links_opened = 0;
    uint64_t links_lost = 0;
  };

  // `loop` must outlive it.
  //   unavailable: the address is in use (by another process).
  //   invalid argument: it cannot be parsed, or is none of this machine's.
  //   permission denied, resource exhausted: as the system says.
  // All name the address in one line.
  static absl::StatusOr<std::unique_ptr<ZmqTransport>> Create(EventLoop* loop, Options options);
  ~ZmqTransport() override;

  const Endpoint& address() const override { return address_; }
  void SetHandler(TransportHandler* handler) override;
  // Also invalid argument: the packet is over the limits. Also resource exhausted: no socket is
  // left.
  absl::Status Send(const Endpoint& to, Channel channel, Packet packet) override;
  void Disconnect(const Endpoint& peer) override;

  const Stats& stats() const { return stats_; }

 private:
  // One DEALER and what is known of its connection.
  struct Line {
    Line(ZmqSocket dealer_socket, std::unique_ptr<ZmqMonitor> dealer_monitor)
        : dealer(std::move(dealer_socket)), monitor(std::move(dealer_monitor)) {}
    ZmqSocket dealer;
    std::unique_ptr<ZmqMonitor> monitor;  // after the socket that it watches: goes first
    EventLoop::WatchId watch{};
    bool up = false;
  };
  struct Link {
    std::array<std::unique_ptr<Line>, 2> lines;  // by channel
  };
  struct Inbound {
    Inbound(ZmqSocket router_socket, std::unique_ptr<ZmqMonitor> router_monitor)
        : router(std::move(router_socket)), monitor(std::move(router_monitor)) {}
    ZmqSocket router;
    std::unique_ptr<ZmqMonitor> monitor;
    EventLoop::WatchId watch{};
    EventLoop::WatchId monitor_watch{};
  };

  ZmqTransport(EventLoop* loop, Options options);

  absl::Status Bind(const Endpoint& listen);
  absl::StatusOr<std::unique_ptr<Inbound>> OpenInbound(const std::string& address);
  absl::StatusOr<Line*> FindOrOpenLine(const Endpoint& to, Channel channel);
  absl::StatusOr<std::unique_ptr<Line>> OpenLine(const std::string& address);
  absl::Status CheckSize(const Packet& packet, int64_t* bytes) const;
  void OnReadable(Inbound* inbound, Channel channel);
  std::optional<Packet> ReceivePacket(const ZmqSocket& router, bool* any);
  void OnInboundEvents(Inbound* inbound);
  void OnLineEvents(const Endpoint& peer, Channel channel);
  void CloseLink(const Endpoint& peer);

  EventLoop* const loop_;
  const Options options_;
  ZmqContext context_;  // goes after all sockets
  TransportHandler* handler_ = nullptr;
  Endpoint address_;
  Stats stats_;
  std::array<std::unique_ptr<Inbound>, 2> inbound_;  // by channel
  std::map<Endpoint, Link> links_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_ZMQ_TRANSPORT_H_
