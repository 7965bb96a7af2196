#include "runtime/app/ask_trainer.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/app/addresses.h"
#include "runtime/app/run_plan.h"
#include "runtime/base/status_macros.h"
#include "runtime/membership/outbox.h"
#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/posix_disk.h"
#include "runtime/reactor/zmq_transport.h"
#include "runtime/wire/wire.h"

namespace starling {
namespace {

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

absl::StatusOr<Message> AskAt(const std::string& address, const MakeQuestion& make) {
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
  std::optional<Message> answer;
  Message message;
  message.body = make(transport->address());
  outbox.Send(Endpoint{address, ""}, Incarnation{}, std::move(message),
              [&answer](const Message& reply) { answer = reply; });
  loop.RunUntil([&answer] { return answer.has_value(); }, kLimit);
  outbox.CancelAll();
  if (answer) return *std::move(answer);
  return absl::UnavailableError(
      absl::StrCat("no trainer answers at ", address, " within ", absl::FormatDuration(kLimit)));
}

}  // namespace

absl::StatusOr<Message> AskTrainer(const std::string& target, const MakeQuestion& make) {
  PosixDisk disk;
  const bool is_folder = disk.Exists(target);
  const bool is_address = !is_folder && absl::StrContains(target, ":");
  if (!is_folder && !is_address) {
    return absl::NotFoundError(absl::StrCat(
        target, " does not exist: give a run's directory, or its address tcp://HOST:PORT"));
  }
  STARLING_ASSIGN_OR_RETURN(const std::string address,
                            is_folder ? ReadAddress(disk, target) : ParseAddress(target));
  absl::StatusOr<Message> answer = AskAt(address, make);
  if (!answer.ok() && is_folder) {
    return absl::UnavailableError(absl::StrCat(
        answer.status().message(), ": the run is not being trained now; `starling resume ", target,
        "` goes on with it"));
  }
  return answer;
}

}  // namespace starling
