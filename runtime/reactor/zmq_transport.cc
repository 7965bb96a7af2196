#include "runtime/reactor/zmq_transport.h"

#include <errno.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/reactor/listen_address.h"
#include "runtime/reactor/system_error.h"

namespace starling {
namespace {

constexpr Channel kChannels[] = {Channel::kControl, Channel::kBulk};

// Packets read per turn of the loop, so that timers and the other channel get their turn.
constexpr int kControlPerTurn = 64;
constexpr int kBulkPerTurn = 8;

// A DEALER is sent nothing by honest peers: only the handshake must fit.
constexpr int64_t kDealerReadBytes = 4096;

constexpr int kHandshakeFailures = ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                                   ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                                   ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;

size_t IndexOf(Channel channel) { return static_cast<size_t>(channel); }

int ToMilliseconds(absl::Duration duration) {
  const int64_t ms = absl::ToInt64Milliseconds(duration);
  return static_cast<int>(std::clamp<int64_t>(ms, 0, std::numeric_limits<int>::max()));
}

void SetCommon(const std::string& address, ZmqSocket* socket) {
  if (address.find('[') != std::string::npos) socket->Set(ZMQ_IPV6, 1);
  socket->Set(ZMQ_TCP_KEEPALIVE, 1);
  socket->Set(ZMQ_TCP_KEEPALIVE_IDLE, 10);  // seconds
  socket->Set(ZMQ_TCP_KEEPALIVE_INTVL, 3);
  socket->Set(ZMQ_TCP_KEEPALIVE_CNT, 3);
}

absl::Status BindError(const std::string& address, int error) {
  const std::string message = SystemMessage("cannot listen on " + address, zmq_strerror(error));
  switch (error) {
    case EADDRINUSE:
      return absl::UnavailableError(message);
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(message);
    case EMFILE:
    case ENFILE:
    case EMTHREAD:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::InvalidArgumentError(message);
  }
}

}  // namespace

ZmqTransport::ZmqTransport(EventLoop* loop, Options options)
    : loop_(loop), options_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<ZmqTransport>> ZmqTransport::Create(EventLoop* loop,
                                                                   Options options) {
  STARLING_ASSIGN_OR_RETURN(const Endpoint listen, ListenEndpoint(options.listen));
  std::unique_ptr<ZmqTransport> transport(new ZmqTransport(loop, std::move(options)));
  STARLING_RETURN_IF_ERROR(transport->Bind(listen));
  return transport;
}

ZmqTransport::~ZmqTransport() {
  for (auto& [peer, link] : links_) {
    for (std::unique_ptr<Line>& line : link.lines) {
      if (line == nullptr) continue;
      loop_->Remove(line->watch);
      line->dealer.Set(ZMQ_LINGER, ToMilliseconds(options_.linger));
    }
  }
  for (std::unique_ptr<Inbound>& inbound : inbound_) {
    if (inbound == nullptr) continue;
    loop_->Remove(inbound->watch);
    loop_->Remove(inbound->monitor_watch);
  }
}

absl::Status ZmqTransport::Bind(const Endpoint& listen) {
  const std::string* const addresses[] = {&listen.control, &listen.bulk};
  for (Channel channel : kChannels) {
    const size_t i = IndexOf(channel);
    STARLING_ASSIGN_OR_RETURN(inbound_[i], OpenInbound(*addresses[i]));
    Inbound* const inbound = inbound_[i].get();
    inbound->watch = loop_->AddReadableSocket(
        inbound->router.get(), [this, inbound, channel] { OnReadable(inbound, channel); });
    inbound->monitor_watch = loop_->AddReadableSocket(
        inbound->monitor->readable(), [this, inbound] { OnInboundEvents(inbound); });
  }
  STARLING_ASSIGN_OR_RETURN(address_, AdvertisedEndpoint({inbound_[0]->router.LastEndpoint(),
                                                          inbound_[1]->router.LastEndpoint()},
                                                         options_.advertise));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ZmqTransport::Inbound>> ZmqTransport::OpenInbound(
    const std::string& address) {
  STARLING_ASSIGN_OR_RETURN(ZmqSocket router, ZmqSocket::Open(context_, ZMQ_ROUTER));
  SetCommon(address, &router);
  router.SetInt64(ZMQ_MAXMSGSIZE, options_.max_message_bytes);
  router.Set(ZMQ_RCVHWM, options_.receive_queue);
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<ZmqMonitor> monitor,
                            ZmqMonitor::Attach(&context_, router, kHandshakeFailures));
  if (zmq_bind(router.get(), address.c_str()) != 0) return BindError(address, zmq_errno());
  return std::make_unique<Inbound>(std::move(router), std::move(monitor));
}

void ZmqTransport::SetHandler(TransportHandler* handler) {
  STARLING_CHECK_MSG(handler_ == nullptr, "the handler is set already");
  handler_ = handler;
}

absl::Status ZmqTransport::CheckSize(const Packet& packet, int64_t* bytes) const {
  *bytes = static_cast<int64_t>(packet.envelope.size_bytes());
  for (const Blob& frame : packet.frames) *bytes += static_cast<int64_t>(frame.size_bytes());
  if (*bytes > options_.max_message_bytes) {
    return absl::InvalidArgumentError("a packet of " + std::to_string(*bytes) +
                                      " bytes is over the limit of " +
                                      std::to_string(options_.max_message_bytes));
  }
  if (packet.frames.size() + 1 > static_cast<size_t>(options_.max_frames)) {
    return absl::InvalidArgumentError("a packet of " + std::to_string(packet.frames.size() + 1) +
                                      " frames is over the limit of " +
                                      std::to_string(options_.max_frames));
  }
  return absl::OkStatus();
}

absl::Status ZmqTransport::Send(const Endpoint& to, Channel channel, Packet packet) {
  int64_t bytes = 0;
  STARLING_RETURN_IF_ERROR(CheckSize(packet, &bytes));
  STARLING_ASSIGN_OR_RETURN(Line* const line, FindOrOpenLine(to, channel));
  ZmqFrame envelope(packet.envelope);
  if (!envelope.Send(line->dealer, !packet.frames.empty())) {
    ++stats_.refused_full;
    return absl::ResourceExhaustedError("the queue to " + to.control + " is full (" +
                                        std::to_string(options_.send_queue) + " packets)");
  }
  for (size_t i = 0; i < packet.frames.size(); ++i) {
    ZmqFrame frame(packet.frames[i]);
    // Once its first frame is taken, all of a message is, or none if the connection goes meanwhile.
    if (!frame.Send(line->dealer, i + 1 < packet.frames.size())) break;
  }
  ++stats_.packets_sent;
  stats_.bytes_sent += static_cast<uint64_t>(bytes);
  return absl::OkStatus();
}

absl::StatusOr<ZmqTransport::Line*> ZmqTransport::FindOrOpenLine(const Endpoint& to,
                                                                 Channel channel) {
  const auto found = links_.find(to);
  if (found != links_.end() && found->second.lines[IndexOf(channel)] != nullptr) {
    return found->second.lines[IndexOf(channel)].get();
  }
  // Of a peer that is only known by its control address, nothing else can be asked.
  const bool control_only = channel == Channel::kControl && to.bulk.empty();
  if (!IsConnectable(to.control) || (!control_only && !IsConnectable(to.bulk))) {
    return absl::InvalidArgumentError("no peer can be at \"" + to.control + "\", \"" + to.bulk +
                                      "\"");
  }
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<Line> line,
                            OpenLine(channel == Channel::kControl ? to.control : to.bulk));
  line->watch = loop_->AddReadableSocket(line->monitor->readable(),
                                         [this, to, channel] { OnLineEvents(to, channel); });
  if (found == links_.end()) ++stats_.links_opened;
  std::unique_ptr<Line>& place = links_[to].lines[IndexOf(channel)];
  place = std::move(line);
  return place.get();
}

absl::StatusOr<std::unique_ptr<ZmqTransport::Line>> ZmqTransport::OpenLine(
    const std::string& address) {
  STARLING_ASSIGN_OR_RETURN(ZmqSocket dealer, ZmqSocket::Open(context_, ZMQ_DEALER));
  SetCommon(address, &dealer);
  dealer.SetInt64(ZMQ_MAXMSGSIZE, kDealerReadBytes);
  dealer.Set(ZMQ_RCVHWM, 1);
  dealer.Set(ZMQ_SNDHWM, options_.send_queue);
  dealer.Set(ZMQ_RECONNECT_IVL, ToMilliseconds(options_.reconnect));
  dealer.Set(ZMQ_RECONNECT_IVL_MAX, ToMilliseconds(options_.reconnect_limit));
  STARLING_ASSIGN_OR_RETURN(
      std::unique_ptr<ZmqMonitor> monitor,
      ZmqMonitor::Attach(&context_, dealer,
                         ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                             ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                             ZMQ_EVENT_HANDSHAKE_FAILED_AUTH));
  if (zmq_connect(dealer.get(), address.c_str()) != 0) {
    return absl::InvalidArgumentError(
        SystemMessage("cannot connect to " + address, zmq_strerror(zmq_errno())));
  }
  return std::make_unique<Line>(std::move(dealer), std::move(monitor));
}

void ZmqTransport::OnReadable(Inbound* inbound, Channel channel) {
  if (handler_ == nullptr) return;
  const int most = channel == Channel::kControl ? kControlPerTurn : kBulkPerTurn;
  bool any = true;
  for (int i = 0; i < most && any; ++i) {
    std::optional<Packet> packet = ReceivePacket(inbound->router, &any);
    if (packet.has_value()) handler_->OnPacket(*std::move(packet));
  }
}

// Reads one message to its end. None: there was none (`any` is false), or it is no packet.
std::optional<Packet> ZmqTransport::ReceivePacket(const ZmqSocket& router, bool* any) {
  ZmqFrame sender;
  *any = sender.Receive(router);
  if (!*any) return std::nullopt;
  Packet packet;
  bool more = sender.more();
  // Only ZeroMQ's protocol from version 3 on tells a type; other bytes may pass for an older one.
  bool good = more;
  int64_t bytes = 0;
  int frames = 0;
  while (more) {
    ZmqFrame frame;
    STARLING_CHECK(frame.Receive(router));
    more = frame.more();
    bytes += static_cast<int64_t>(frame.size());
    ++frames;
    good = good && bytes <= options_.max_message_bytes && frames <= options_.max_frames &&
           frame.SenderType() == "DEALER";
    if (!good) continue;
    if (frames == 1) {
      packet.envelope = frame.TakeBlob();
    } else {
      packet.frames.push_back(frame.TakeBlob());
    }
  }
  if (!good) {
    ++stats_.dropped_malformed;
    return std::nullopt;
  }
  ++stats_.packets_received;
  stats_.bytes_received += static_cast<uint64_t>(bytes);
  return packet;
}

void ZmqTransport::OnInboundEvents(Inbound* inbound) {
  while (inbound->monitor->Next() != 0) ++stats_.failed_handshakes;
}

void ZmqTransport::OnLineEvents(const Endpoint& peer, Channel channel) {
  const Endpoint lost = peer;  // the callback that holds `peer` goes with the link
  Line* const line = links_.at(lost).lines[IndexOf(channel)].get();
  while (const int event = line->monitor->Next()) {
    if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
      line->up = true;
    } else if (event == ZMQ_EVENT_DISCONNECTED && line->up) {
      CloseLink(lost);
      ++stats_.links_lost;
      if (handler_ != nullptr) handler_->OnLinkLost(lost);
      return;
    } else if (event != ZMQ_EVENT_DISCONNECTED) {
      // Something else listens there, and ZeroMQ does not try again: the next Send will.
      ++stats_.failed_handshakes;
      CloseLink(lost);
      return;
    }
  }
}

void ZmqTransport::Disconnect(const Endpoint& peer) { CloseLink(peer); }

void ZmqTransport::CloseLink(const Endpoint& peer) {
  const auto found = links_.find(peer);
  if (found == links_.end()) return;
  for (std::unique_ptr<Line>& line : found->second.lines) {
    if (line != nullptr) loop_->Remove(line->watch);
  }
  links_.erase(found);
}

}  // namespace starling
