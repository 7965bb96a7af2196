// A Cap'n Proto envelope into message structs. Internal to runtime/wire.
#ifndef STARLING_RUNTIME_WIRE_DECODE_H_
#define STARLING_RUNTIME_WIRE_DECODE_H_

#include "absl/status/status.h"
#include "runtime/wire/frames.h"
#include "runtime/wire/messages.h"
#include "runtime/wire/starling.capnp.h"

namespace starling::wire {

// Reads the whole envelope, magic and format included. Errors as for DecodeMessage; kj's exceptions
// pass through.
absl::Status GetMessage(schema::Envelope::Reader from, FrameReader* frames, Message* to);

}  // namespace starling::wire

#endif  // STARLING_RUNTIME_WIRE_DECODE_H_
