// `starling leave` and `starling pause`: orders to a trainer. They come back when the order is
// given, not when it is carried out.
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/app/ask_trainer.h"
#include "runtime/app/commands.h"
#include "runtime/app/terminal.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

absl::Status Give(const std::string& target, Order order) {
  STARLING_ASSIGN_OR_RETURN(const Message reply,
                            AskTrainer(target, [&order](const Endpoint& reply_address) {
                              order.reply_address = reply_address;
                              return MessageBody(order);
                            }));
  const auto* answer = std::get_if<Ack>(&reply.body);
  if (answer == nullptr) {
    return absl::InternalError(absl::StrCat("the trainer of ", target, " did not understand"));
  }
  if (answer->code != absl::StatusCode::kOk) return absl::Status(answer->code, answer->text);
  PrintLine(answer->text);
  return absl::OkStatus();
}

}  // namespace

absl::Status OrderLeave(const OrderArgs& args) {
  if (args.replica.empty() == (args.stage < 0)) {
    return absl::InvalidArgumentError(
        "name a replica or a peer (`starling status` lists them), or a stage with --stage");
  }
  Order order;
  order.kind = OrderKind::kLeave;
  order.replica = args.replica;
  if (args.stage >= 0) order.stage = StageId{static_cast<uint32_t>(args.stage)};
  return Give(args.target, std::move(order));
}

absl::Status OrderPause(const OrderArgs& args) {
  Order order;
  order.kind = args.off ? OrderKind::kUnpause : OrderKind::kPause;
  return Give(args.target, std::move(order));
}

}  // namespace starling
