#include "runtime/wire/wire.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/exception.h>
#include <kj/io.h>

#include <cstring>
#include <exception>
#include <string>
#include <utility>

#include "runtime/base/status_macros.h"
#include "runtime/wire/decode.h"
#include "runtime/wire/encode.h"
#include "runtime/wire/frames.h"

namespace starling {
namespace {

constexpr size_t kScratchWords = 256;
constexpr size_t kWordBytes = sizeof(capnp::word);
// The deepest value is Envelope > Apply > Decision > groups > members > segments > hash.
constexpr int kMaxNesting = 16;

// Each word is visited about once; more means pointers that share what they point to.
uint64_t TraversalWords(size_t envelope_bytes) { return 2 * (envelope_bytes / kWordBytes) + 64; }

absl::Status DecodeAligned(const Blob& envelope, const WireLimits& limits, std::vector<Blob> frames,
                           Message* to) {
  const kj::ArrayPtr<const capnp::word> words(reinterpret_cast<const capnp::word*>(envelope.data()),
                                              envelope.size_bytes() / kWordBytes);
  capnp::ReaderOptions options;
  options.traversalLimitInWords = TraversalWords(envelope.size_bytes());
  options.nestingLimit = kMaxNesting;
  capnp::FlatArrayMessageReader reader(words, options);
  if (reader.getEnd() != words.end()) {
    return absl::InvalidArgumentError("bytes behind the envelope");
  }
  wire::FrameReader frame_reader(std::move(frames), limits);
  STARLING_RETURN_IF_ERROR(frame_reader.Check());
  STARLING_RETURN_IF_ERROR(wire::GetMessage(reader.getRoot<schema::Envelope>(), &frame_reader, to));
  return frame_reader.Finish();
}

absl::Status Decode(Packet packet, const WireLimits& limits, Message* to) {
  Blob envelope = std::move(packet.envelope);
  const size_t bytes = envelope.size_bytes();
  if (bytes > limits.max_envelope_bytes) {
    return absl::ResourceExhaustedError("an envelope of " + std::to_string(bytes) + " bytes");
  }
  if (bytes == 0 || bytes % kWordBytes != 0) {
    return absl::InvalidArgumentError("an envelope of " + std::to_string(bytes) + " bytes");
  }
  if (reinterpret_cast<uintptr_t>(envelope.data()) % kWordBytes != 0) {
    envelope = Blob::CopyOf(envelope.data(), DType::kU8, {static_cast<int64_t>(bytes)});
  }
  return DecodeAligned(envelope, limits, std::move(packet.frames), to);
}

}  // namespace

Packet EncodeMessage(const Message& message, size_t max_frame_bytes) {
  capnp::word scratch[kScratchWords];
  std::memset(static_cast<void*>(scratch), 0, sizeof(scratch));
  capnp::MallocMessageBuilder builder(kj::ArrayPtr<capnp::word>(scratch, kScratchWords));
  wire::FrameWriter frames(max_frame_bytes);
  wire::PutMessage(message, &frames, builder.initRoot<schema::Envelope>());

  const size_t bytes = capnp::computeSerializedSizeInWords(builder) * kWordBytes;
  MutableBlob envelope = MutableBlob::Uninitialized(DType::kU8, {static_cast<int64_t>(bytes)});
  kj::ArrayOutputStream out(
      kj::ArrayPtr<kj::byte>(reinterpret_cast<kj::byte*>(envelope.data()), bytes));
  capnp::writeMessage(out, builder);
  return Packet{std::move(envelope).Freeze(), std::move(frames).Take()};
}

absl::StatusOr<Message> DecodeMessage(Packet packet, const WireLimits& limits) {
  try {
    Message message;
    STARLING_RETURN_IF_ERROR(Decode(std::move(packet), limits, &message));
    return message;
  } catch (const kj::Exception& error) {
    return absl::InvalidArgumentError(std::string("malformed envelope: ") +
                                      error.getDescription().cStr());
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(std::string("malformed message: ") + error.what());
  }
}

}  // namespace starling
