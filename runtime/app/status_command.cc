#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "runtime/app/addresses.h"
#include "runtime/app/commands.h"
#include "runtime/app/terminal.h"
#include "runtime/base/status_macros.h"
#include "runtime/membership/outbox.h"
#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/posix_disk.h"
#include "runtime/reactor/zmq_transport.h"
#include "runtime/wire/wire.h"

namespace starling {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::Duration kLimit = absl::Seconds(3);

// Gives what arrives to an outbox.
class Replies final : public TransportHandler {
 public:
  explicit Replies(Outbox* outbox) : outbox_(outbox) {}
  void OnPacket(Packet packet) override {
    const absl::StatusOr<Message> message = DecodeMessage(std::move(packet), WireLimits());
    if (message.ok() && message->reply_to != 0) outbox_->OnReply(*message);
  }
  void OnLinkLost(const Endpoint& peer) override {}

 private:
  Outbox* const outbox_;
};

// The answer of the trainer at `address`, as it came.
absl::StatusOr<std::string> AskTrainer(const std::string& address) {
  EventLoop loop;
  ZmqTransport::Options options;
  if (!IsLoopback(address)) {
    options.listen = absl::StrCat("tcp://", LocalAddressTowards(address), ":*");
  }
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<ZmqTransport> transport,
                            ZmqTransport::Create(&loop, options));
  Outbox outbox(&loop, transport.get(), Outbox::Options());
  Replies replies(&outbox);
  transport->SetHandler(&replies);
  std::optional<std::string> answer;
  Message message;
  message.body = StatusRequest{transport->address()};
  outbox.Send(Endpoint{address, ""}, Incarnation{}, std::move(message),
              [&answer](const Message& reply) {
                if (const auto* status = std::get_if<StatusReply>(&reply.body)) {
                  answer = status->json;
                }
              });
  loop.RunUntil([&answer] { return answer.has_value(); }, kLimit);
  outbox.CancelAll();
  if (answer) return *answer;
  return absl::UnavailableError(
      absl::StrCat("no trainer answers at ", address, " within ", absl::FormatDuration(kLimit)));
}

std::string DescribeReplica(const Json& replica) {
  return absl::StrFormat("    %-8s version %-6d %6.0f tok/s  pid %d on %s (%s, %d thread%s)",
                         replica.value("state", "?"), replica.value("version", int64_t{0}),
                         replica.value("tokens_per_s", 0.0), replica.value("pid", int64_t{0}),
                         replica.value("host", "?"), replica.value("device", "?"),
                         replica.value("threads", 0), replica.value("threads", 0) == 1 ? "" : "s");
}

void PrintWords(const Json& status) {
  PrintLine(absl::StrCat(status.value("state", "?"), ": step ", status.value("step", int64_t{0}),
                         " of ", status.value("steps", int64_t{0}), ", version ",
                         status.value("version", int64_t{0}), ", era ", status.value("era", 0)));
  for (const Json& stage : status["stages"]) {
    const Json& replicas = stage["replicas"];
    PrintLine(absl::StrCat("  stage ", stage["stage"].get<int64_t>(), ", layers ",
                           stage["layers"][0].get<int64_t>(), "-",
                           stage["layers"][1].get<int64_t>() - 1, ":",
                           replicas.empty() ? " nobody serves it" : ""));
    for (const Json& replica : replicas) PrintLine(DescribeReplica(replica));
  }
  const std::string missing = status.value("waiting_for", "");
  PrintLine(missing.empty() ? "nothing is missing" : "missing: " + missing);
  PrintLine(absl::StrCat("more replicas: starling stage --join ", status.value("address", "?")));
}

}  // namespace

absl::Status ShowStatus(const StatusArgs& args) {
  PosixDisk disk;
  const bool is_folder = disk.Exists(args.target);
  const bool is_address = !is_folder && absl::StrContains(args.target, ":");
  if (!is_folder && !is_address) {
    return absl::NotFoundError(absl::StrCat(
        args.target, " does not exist: give a run's directory, or its address tcp://HOST:PORT"));
  }
  STARLING_ASSIGN_OR_RETURN(const std::string address,
                            is_folder ? ReadAddress(disk, args.target) : ParseAddress(args.target));
  absl::StatusOr<std::string> answer = AskTrainer(address);
  if (!answer.ok() && is_folder) {
    return absl::UnavailableError(absl::StrCat(
        answer.status().message(), ": the run is not being trained now; `starling resume ",
        args.target, "` goes on with it"));
  }
  STARLING_RETURN_IF_ERROR(answer.status());
  if (args.json) {
    PrintLine(*answer);
    return absl::OkStatus();
  }
  const Json status = Json::parse(*answer, nullptr, /*allow_exceptions=*/false);
  if (!status.is_object() || !status.contains("stages")) {
    return absl::InternalError(absl::StrCat("the trainer at ", address, " gave no status"));
  }
  try {
    PrintWords(status);
  } catch (const Json::exception& error) {
    return absl::InternalError(absl::StrCat(
        "the trainer at ", address, " gave a status that is not understood: ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace starling
