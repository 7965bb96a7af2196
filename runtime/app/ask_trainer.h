// One question to a trainer from a command: `starling status`, `leave`, `pause`.
#ifndef STARLING_RUNTIME_APP_ASK_TRAINER_H_
#define STARLING_RUNTIME_APP_ASK_TRAINER_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/env/transport.h"
#include "runtime/wire/messages.h"

namespace starling {

// Makes the question, given where the answer is to go.
using MakeQuestion = std::function<MessageBody(const Endpoint& reply_address)>;

// Asks the trainer of `target` (a run's directory, or an address) and waits for its answer.
//   not found: no such run; unavailable: no trainer answers.
absl::StatusOr<Message> AskTrainer(const std::string& target, const MakeQuestion& make);

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_ASK_TRAINER_H_
