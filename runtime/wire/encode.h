// Message structs into a Cap'n Proto envelope. Internal to runtime/wire.
#ifndef STARLING_RUNTIME_WIRE_ENCODE_H_
#define STARLING_RUNTIME_WIRE_ENCODE_H_

#include "runtime/wire/frames.h"
#include "runtime/wire/messages.h"
#include "runtime/wire/starling.capnp.h"

namespace starling::wire {

// An incarnation as one number, as the schema has it.
inline uint64_t Pack(const Incarnation& incarnation) {
  return uint64_t{Value(incarnation.epoch)} << 32 | incarnation.counter;
}
inline Incarnation UnpackIncarnation(uint64_t packed) {
  return Incarnation{static_cast<Epoch>(packed >> 32), static_cast<uint32_t>(packed)};
}

// Fills the whole envelope; the blobs go to `frames`.
void PutMessage(const Message& message, FrameWriter* frames, schema::Envelope::Builder to);

}  // namespace starling::wire

#endif  // STARLING_RUNTIME_WIRE_ENCODE_H_
