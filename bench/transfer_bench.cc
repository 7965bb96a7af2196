// Tensors through ZmqTransport over tcp and ipc, against a plain socket program that reuses its
// buffer, in turn in the same run.
//
// A message holds one fp32 tensor, cut into frames as the wire format cuts it (8 MiB). Four are
// under way at a time, each acknowledged by a control packet; the time runs from the first send to
// the last acknowledgement. "frames": the receiver has the frames as they came; "tensor": it has
// decoded them into one contiguous tensor. Sender and receiver are threads with an event loop and a
// transport each. The plain program streams without acknowledgements.
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/bench.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/zmq_transport.h"
#include "runtime/wire/wire.h"

namespace starling::bench {
namespace {

constexpr size_t kWindow = 4;

class OnPacketFn final : public TransportHandler {
 public:
  explicit OnPacketFn(std::function<void(Packet)> on_packet) : on_packet_(std::move(on_packet)) {}
  void OnPacket(Packet packet) override { on_packet_(std::move(packet)); }
  void OnLinkLost(const Endpoint& peer) override { STARLING_CHECK_MSG(false, peer.control); }

 private:
  const std::function<void(Packet)> on_packet_;
};

Message ResultOf(Blob data) {
  Message message;
  message.run = RunId{1};
  Result result;
  result.data = std::move(data);
  message.body = std::move(result);
  return message;
}

Packet Acknowledgement() {
  Packet packet;
  packet.envelope = Blob::OfString("ack");
  return packet;
}

std::string Listen(Wire wire, const char* side) {
  if (wire == Wire::kTcp) return "tcp://127.0.0.1:*";
  return absl::StrCat("ipc:///tmp/starling-bench-", getpid(), "-", side);
}

ZmqTransport::Options OptionsFor(Wire wire, const char* side) {
  ZmqTransport::Options options;
  options.listen = Listen(wire, side);
  return options;
}

// The receiving thread: acknowledges each packet when it has it as asked, until the sender says
// that it was the last.
class Receiver {
 public:
  Receiver(Wire wire, bool decode, const Endpoint& sender,
           const std::function<void(Endpoint)>& on_bound)
      : thread_([this, wire, decode, sender, on_bound] { Main(wire, decode, sender, on_bound); }) {}
  ~Receiver() {
    loop_->Stop();
    thread_.join();
  }

 private:
  void Main(Wire wire, bool decode, const Endpoint& sender,
            const std::function<void(Endpoint)>& on_bound) {
    EventLoop loop;
    auto transport = ZmqTransport::Create(&loop, OptionsFor(wire, "receiver"));
    STARLING_CHECK_MSG(transport.ok(), std::string(transport.status().message()));
    loop_ = &loop;
    Message kept;
    OnPacketFn handler([&](Packet packet) {
      if (decode) {
        absl::StatusOr<Message> message = DecodeMessage(std::move(packet), WireLimits());
        STARLING_CHECK(message.ok());
        kept = *std::move(message);
      }
      const absl::Status sent = (*transport)->Send(sender, Channel::kControl, Acknowledgement());
      STARLING_CHECK_MSG(sent.ok(), std::string(sent.message()));
    });
    (*transport)->SetHandler(&handler);
    on_bound((*transport)->address());
    loop.Run();
  }

  EventLoop* loop_ = nullptr;
  std::thread thread_;
};

double TransferSeconds(Wire wire, bool decode, const Blob& tensor, size_t messages) {
  EventLoop loop;
  auto transport = ZmqTransport::Create(&loop, OptionsFor(wire, "sender"));
  STARLING_CHECK_MSG(transport.ok(), std::string(transport.status().message()));
  size_t sent = 0;
  size_t acknowledged = 0;
  OnPacketFn handler([&](const Packet&) { ++acknowledged; });
  (*transport)->SetHandler(&handler);
  Endpoint to;
  bool bound = false;
  Receiver receiver(wire, decode, (*transport)->address(), [&](Endpoint address) {
    loop.Post([&, address = std::move(address)] {
      to = address;
      bound = true;
    });
  });
  loop.RunUntil([&bound] { return bound; }, absl::Seconds(10));
  const auto send_until = [&](size_t count, size_t all) {
    while (sent < all && sent - acknowledged < count) {
      const absl::Status status =
          (*transport)->Send(to, Channel::kBulk, EncodeMessage(ResultOf(tensor)));
      STARLING_CHECK_MSG(status.ok(), std::string(status.message()));
      ++sent;
    }
    return acknowledged == all;
  };
  // Connects, and touches what is touched once.
  STARLING_CHECK(loop.RunUntil([&] { return send_until(kWindow, kWindow); }, absl::Seconds(60)));
  const Clock::time_point begin = Clock::now();
  STARLING_CHECK(
      loop.RunUntil([&] { return send_until(kWindow, kWindow + messages); }, absl::Seconds(300)));
  return Seconds(Clock::now() - begin);
}

struct Way {
  const char* name;
  std::function<double()> seconds;
};

}  // namespace

double SmallPacketUs(int trips) {
  EventLoop loop;
  auto transport = ZmqTransport::Create(&loop, OptionsFor(Wire::kTcp, "sender"));
  STARLING_CHECK_MSG(transport.ok(), std::string(transport.status().message()));
  size_t back = 0;
  OnPacketFn handler([&](const Packet&) { ++back; });
  (*transport)->SetHandler(&handler);
  Endpoint to;
  bool bound = false;
  Receiver receiver(Wire::kTcp, true, (*transport)->address(), [&](Endpoint address) {
    loop.Post([&, address = std::move(address)] {
      to = address;
      bound = true;
    });
  });
  loop.RunUntil([&bound] { return bound; }, absl::Seconds(10));
  const Blob tensor = MutableBlob::Zeros(DType::kF32, {512}).Freeze();
  std::vector<double> us;
  for (int i = 0; i < trips; ++i) {
    const Clock::time_point begin = Clock::now();
    const absl::Status sent =
        (*transport)->Send(to, Channel::kBulk, EncodeMessage(ResultOf(tensor)));
    STARLING_CHECK_MSG(sent.ok(), std::string(sent.message()));
    loop.RunUntil([&back, i] { return back > static_cast<size_t>(i); }, absl::Seconds(10));
    us.push_back(1e6 * Seconds(Clock::now() - begin) / 2);
  }
  return Median(std::move(us));
}

absl::StatusOr<nlohmann::json> RunTransfer(const BenchOptions& options) {
  const int rounds = options.rounds > 0 ? options.rounds : options.short_form ? 1 : 5;
  const size_t total = (options.short_form ? size_t{128} : size_t{768}) << 20;
  nlohmann::json rows = nlohmann::json::array();
  std::printf(
      "\nTensors through the transport, GB/s, median of %d rounds in turn (of the plain socket)\n",
      rounds);
  std::printf("%-5s %8s %8s %16s %16s\n", "", "MiB", "plain", "frames", "one tensor");
  for (const Wire wire : {Wire::kTcp, Wire::kIpc}) {
    for (const size_t mib : {size_t{1}, size_t{4}, size_t{16}, size_t{64}}) {
      const size_t bytes = mib << 20;
      const size_t messages = total / bytes;
      const Blob tensor =
          MutableBlob::Zeros(DType::kF32, {static_cast<int64_t>(bytes / 4)}).Freeze();
      const Way ways[] = {
          {"plain", [&] { return PlainTransferSeconds(wire, bytes, messages); }},
          {"frames", [&] { return TransferSeconds(wire, false, tensor, messages); }},
          {"tensor", [&] { return TransferSeconds(wire, true, tensor, messages); }},
      };
      std::map<std::string, std::vector<double>> rates;
      for (int round = 0; round < rounds; ++round) {
        for (const Way& way : ways) {
          rates[way.name].push_back(static_cast<double>(messages * bytes) / way.seconds() / 1e9);
        }
      }
      const double plain = Median(rates["plain"]);
      const double frames = Median(rates["frames"]);
      const double whole = Median(rates["tensor"]);
      const char* const name = wire == Wire::kTcp ? "tcp" : "ipc";
      std::printf("%-5s %8zu %8.2f %8.2f (%.2f) %8.2f (%.2f)\n", name, mib, plain, frames,
                  frames / plain, whole, whole / plain);
      std::fflush(stdout);
      rows.push_back({{"wire", name},
                      {"bytes", bytes},
                      {"plain_gb_s", rates["plain"]},
                      {"frames_gb_s", rates["frames"]},
                      {"tensor_gb_s", rates["tensor"]},
                      {"frames_share", frames / plain},
                      {"tensor_share", whole / plain}});
    }
  }
  std::printf("goal: at least 0.90 as frames, 0.70 as one tensor, over tcp\n");
  return rows;
}

}  // namespace starling::bench
