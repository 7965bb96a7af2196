// Messages to packets and back: the only code that knows the wire format (starling.capnp,
// docs/wire.md).
//
//   Packet packet = EncodeMessage(message);
//   absl::StatusOr<Message> got = DecodeMessage(std::move(packet), WireLimits{});
//
// Pure functions, callable from any thread.
#ifndef STARLING_RUNTIME_WIRE_WIRE_H_
#define STARLING_RUNTIME_WIRE_WIRE_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "runtime/env/transport.h"
#include "runtime/wire/messages.h"

namespace starling {

// The first words of every envelope. The format grows only when an older build could not read a
// Hello well enough to refuse it in words; ordinary incompatibility is kProtocolVersion's business.
constexpr uint32_t kEnvelopeMagic = 0x4c525453;  // "STRL"
constexpr uint32_t kEnvelopeFormat = 1;

// A tensor larger than this is split over several frames, which costs the receiver one copy. A
// multiple of every element size.
constexpr size_t kMaxFrameBytes = size_t{8} << 20;

// What a decoder accepts. A transport should refuse larger frames before it stores them
// (max_envelope_bytes and max_frame_bytes, whichever is more).
struct WireLimits {
  size_t max_envelope_bytes = size_t{4} << 20;
  size_t max_frame_bytes = kMaxFrameBytes;
  size_t max_frames = 1024;                    // of one packet
  size_t max_message_bytes = size_t{2} << 30;  // of one packet's frames together
  size_t max_rank = 8;                         // dimensions of a tensor
};

// The packet shares the bytes of the message's blobs; only the envelope is written. Tensors are
// split into frames of `max_frame_bytes` (a multiple of 8). Whether the packet is within a
// receiver's limits is the sender's business: lists, texts and tensors are as long as it made them.
Packet EncodeMessage(const Message& message, size_t max_frame_bytes = kMaxFrameBytes);

// Trusts nothing in the packet; never throws or aborts. A tensor of one frame that is encoded, or
// aligned to its element size, shares the frame's bytes, any other is copied into one run.
//   invalid argument: not an envelope of this format, truncated or trailing bytes, an unknown body,
//     code, element type or codec, an encoded tensor that is not f32 or not where one may be, a
//     shape that is negative, too large or not that of its frames, frames missing, out of order or
//     left over.
//   resource exhausted: larger than `limits`.
// Whether the values make sense (stage numbers, expected shapes and element types, counts that
// belong together) is for the receiver to check, except that counts with a sign are never negative.
absl::StatusOr<Message> DecodeMessage(Packet packet, const WireLimits& limits);

}  // namespace starling

#endif  // STARLING_RUNTIME_WIRE_WIRE_H_
