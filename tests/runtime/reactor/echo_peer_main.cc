// A process with a transport: tells its address ("control bulk") on its output, and sends every
// packet back to the address that the packet's envelope holds in the same form. It goes with its
// parent.
#include <signal.h>
#include <sys/prctl.h>

#include <cstdio>
#include <sstream>
#include <string>
#include <utility>

#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/zmq_transport.h"

namespace starling {
namespace {

class Echo final : public TransportHandler {
 public:
  explicit Echo(Transport* transport) : transport_(transport) {}

  void OnPacket(Packet packet) override {
    Endpoint sender;
    std::istringstream(packet.envelope.ToStringBytes()) >> sender.control >> sender.bulk;
    const absl::Status sent = transport_->Send(sender, Channel::kControl, std::move(packet));
    if (!sent.ok()) std::fprintf(stderr, "%s\n", sent.ToString().c_str());
  }
  void OnLinkLost(const Endpoint& /*peer*/) override {}

 private:
  Transport* const transport_;
};

int Main() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  EventLoop loop;
  auto transport = ZmqTransport::Create(&loop, {});
  if (!transport.ok()) return 1;
  Echo echo(transport->get());
  (*transport)->SetHandler(&echo);
  const Endpoint& address = (*transport)->address();
  std::printf("%s %s\n", address.control.c_str(), address.bulk.c_str());
  std::fflush(stdout);
  loop.Run();
  return 0;
}

}  // namespace
}  // namespace starling

int main() { return starling::Main(); }
