// FakeTransport: records what is sent, and hands the test's packets to the handler.
//
//   FakeTransport transport(TestEndpoint("trainer"));
//   ...code under test sends...
//   std::vector<SentMessage> sent = transport.TakeMessages();
//   transport.Deliver(answer);       // calls the handler, at once
//
// Not thread-safe.
#ifndef STARLING_TESTS_TESTING_FAKE_TRANSPORT_H_
#define STARLING_TESTS_TESTING_FAKE_TRANSPORT_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "runtime/env/transport.h"
#include "runtime/wire/messages.h"

namespace starling {

// An endpoint that no other name has: control "fake://NAME/control", bulk "fake://NAME/bulk".
Endpoint TestEndpoint(const std::string& name);

struct SentPacket {
  Endpoint to;
  Channel channel = Channel::kControl;
  Packet packet;
};

struct SentMessage {
  Endpoint to;
  Channel channel = Channel::kControl;
  Message message;
};

class FakeTransport : public Transport {
 public:
  explicit FakeTransport(Endpoint address) : address_(std::move(address)) {}

  const Endpoint& address() const override { return address_; }
  void SetHandler(TransportHandler* handler) override { handler_ = handler; }
  absl::Status Send(const Endpoint& to, Channel channel, Packet packet) override;
  void Disconnect(const Endpoint& peer) override { disconnected_.push_back(peer); }

  // From now on every Send answers `status`, and queues nothing unless it is ok.
  void FailSends(absl::Status status) { send_status_ = std::move(status); }

  // What was queued since the last take, in order. TakeMessages decodes it, and aborts on a packet
  // that does not decode.
  std::vector<SentPacket> TakePackets();
  std::vector<SentMessage> TakeMessages();
  const std::vector<Endpoint>& disconnected() const { return disconnected_; }

  // Calls the handler. The message goes through the encoder; the receiver decodes it as in earnest.
  void Deliver(Packet packet);
  void Deliver(const Message& message);
  void LoseLink(const Endpoint& peer);

 private:
  Endpoint address_;
  TransportHandler* handler_ = nullptr;
  absl::Status send_status_;
  std::vector<SentPacket> sent_;
  std::vector<Endpoint> disconnected_;
};

}  // namespace starling

#endif  // STARLING_TESTS_TESTING_FAKE_TRANSPORT_H_
