// Messages with random contents, and texts that tell any two apart.
#ifndef STARLING_TESTS_RUNTIME_WIRE_RANDOM_MESSAGE_H_
#define STARLING_TESTS_RUNTIME_WIRE_RANDOM_MESSAGE_H_

#include <cstddef>
#include <string>
#include <variant>

#include "runtime/base/rng.h"
#include "runtime/wire/messages.h"

namespace starling {

constexpr size_t kMessageKinds = std::variant_size_v<MessageBody>;

// A message whose body is alternative number `kind`. All fields of it, lists and optionals too, are
// random; enumerations are valid, signed counts not negative. Lists are short, tensors below 2 KiB.
Message RandomMessage(size_t kind, Rng* rng);

// Every field, floats to the bit, tensors with their element type, shape and bytes.
std::string Describe(const Message& message);

}  // namespace starling

#endif  // STARLING_TESTS_RUNTIME_WIRE_RANDOM_MESSAGE_H_
