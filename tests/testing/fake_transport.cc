#include "tests/testing/fake_transport.h"

#include <utility>

#include "runtime/base/check.h"
#include "runtime/wire/wire.h"

namespace starling {

Endpoint TestEndpoint(const std::string& name) {
  return Endpoint{"fake://" + name + "/control", "fake://" + name + "/bulk"};
}

absl::Status FakeTransport::Send(const Endpoint& to, Channel channel, Packet packet) {
  if (!send_status_.ok()) return send_status_;
  sent_.push_back(SentPacket{to, channel, std::move(packet)});
  return absl::OkStatus();
}

std::vector<SentPacket> FakeTransport::TakePackets() { return std::exchange(sent_, {}); }

std::vector<SentMessage> FakeTransport::TakeMessages() {
  std::vector<SentMessage> messages;
  for (SentPacket& sent : TakePackets()) {
    absl::StatusOr<Message> message = DecodeMessage(std::move(sent.packet), WireLimits{});
    STARLING_CHECK_MSG(message.ok(), message.status().ToString());
    messages.push_back(SentMessage{sent.to, sent.channel, *std::move(message)});
  }
  return messages;
}

void FakeTransport::Deliver(Packet packet) {
  STARLING_CHECK_MSG(handler_ != nullptr, "no handler set");
  handler_->OnPacket(std::move(packet));
}

void FakeTransport::Deliver(const Message& message) { Deliver(EncodeMessage(message)); }

void FakeTransport::LoseLink(const Endpoint& peer) {
  STARLING_CHECK_MSG(handler_ != nullptr, "no handler set");
  handler_->OnLinkLost(peer);
}

}  // namespace starling
