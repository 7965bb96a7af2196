// What a peer must not be able to do to a decoder: crash it, or make it believe what is not there.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/rng.h"
#include "runtime/wire/wire.h"
#include "tests/runtime/wire/random_message.h"

namespace starling {
namespace {

using absl::StatusCode;

Blob BlobOf(const std::string& bytes) { return Blob::OfString(bytes); }

StatusCode CodeOfDecoding(Packet packet, const WireLimits& limits = WireLimits{}) {
  return DecodeMessage(std::move(packet), limits).status().code();
}

Message BackwardOf(std::vector<int64_t> shape) {
  Backward backward;
  backward.gradient = MutableBlob::Zeros(DType::kF32, std::move(shape)).Freeze();
  Message message;
  message.body = std::move(backward);
  return message;
}

// Replaces the first 8-byte word of the envelope that holds `from` by `to`.
Packet WithWord(Packet packet, uint64_t from, uint64_t to) {
  std::string bytes = packet.envelope.ToStringBytes();
  for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, &bytes[at], 8);
    if (word != from) continue;
    std::memcpy(&bytes[at], &to, 8);
    packet.envelope = BlobOf(bytes);
    return packet;
  }
  ADD_FAILURE() << "no word " << from << " in the envelope";
  return packet;
}

TEST(HostileWire, TruncatedEnvelopesAreRefusedAtEveryByte) {
  Rng rng(5);
  for (size_t kind = 0; kind < kMessageKinds; ++kind) {
    const Packet packet = EncodeMessage(RandomMessage(kind, &rng));
    const std::string bytes = packet.envelope.ToStringBytes();
    for (size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_EQ(CodeOfDecoding(Packet{BlobOf(bytes.substr(0, size)), packet.frames}),
                StatusCode::kInvalidArgument)
          << "kind " << kind << " cut at " << size;
    }
  }
}

TEST(HostileWire, TrailingBytesAreRefused) {
  Rng rng(6);
  for (size_t kind = 0; kind < kMessageKinds; ++kind) {
    Packet packet = EncodeMessage(RandomMessage(kind, &rng));
    for (size_t more : {1u, 8u, 64u}) {
      packet.envelope = BlobOf(packet.envelope.ToStringBytes() + std::string(more, '\0'));
      EXPECT_EQ(CodeOfDecoding(packet), StatusCode::kInvalidArgument);
    }
  }
}

TEST(HostileWire, TruncatedFramesAreRefusedAtEveryByte) {
  const Packet packet = EncodeMessage(BackwardOf({3, 7}));
  for (int64_t size = 0; size < 84; ++size) {
    EXPECT_EQ(CodeOfDecoding(Packet{packet.envelope, {packet.frames[0].Slice(0, size)}}),
              StatusCode::kInvalidArgument);
  }
}

TEST(HostileWire, WrongNumbersOfFramesAreRefused) {
  const Packet packet = EncodeMessage(BackwardOf({4, 4}), 16);
  ASSERT_EQ(packet.frames.size(), 4u);
  for (size_t count = 0; count < 8; ++count) {
    if (count == 4) continue;
    Packet wrong = packet;
    wrong.frames.resize(count, packet.frames[0]);
    EXPECT_EQ(CodeOfDecoding(wrong), StatusCode::kInvalidArgument) << count;
  }
}

TEST(HostileWire, AFrameThatNoTensorNamesIsRefused) {
  Message message;
  message.body = Ack{};
  Packet packet = EncodeMessage(message);
  packet.frames.push_back(BlobOf("surplus"));
  EXPECT_EQ(CodeOfDecoding(packet), StatusCode::kInvalidArgument);
}

TEST(HostileWire, ATensorThatNamesAnothersFrameIsRefused) {
  Forward forward;
  forward.input = Blob::OfFloats({1, 2});
  forward.targets = Blob::OfFloats({3, 4});
  Message message;
  message.body = forward;
  const Packet packet = EncodeMessage(message);
  // The second tensor's element type and first frame.
  const uint64_t f32 = static_cast<uint64_t>(DType::kF32);
  const uint64_t second_frame = uint64_t{1} << 32 | f32;
  EXPECT_EQ(CodeOfDecoding(WithWord(packet, second_frame, f32)), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOfDecoding(WithWord(packet, second_frame, uint64_t{2} << 32 | f32)),
            StatusCode::kInvalidArgument);
}

TEST(HostileWire, EmptyFramesAreRefused) {
  Packet packet = EncodeMessage(BackwardOf({4, 4}), 32);
  ASSERT_EQ(packet.frames.size(), 2u);
  packet.frames[0] = BlobOf(std::string(64, 'x'));  // together still right
  packet.frames[1] = BlobOf("");
  EXPECT_EQ(CodeOfDecoding(packet), StatusCode::kInvalidArgument);
}

TEST(HostileWire, ShapesThatAreNotThoseOfTheFramesAreRefused) {
  constexpr uint64_t kRows = 1237;
  const Packet packet = EncodeMessage(BackwardOf({static_cast<int64_t>(kRows), 3}));
  const uint64_t wrong[] = {0,
                            kRows - 1,
                            kRows + 1,
                            uint64_t{1} << 31,
                            uint64_t{1} << 32,
                            (uint64_t{1} << 62) + kRows,  // times 4 bytes: wraps to the right size
                            uint64_t{1} << 62,
                            std::numeric_limits<int64_t>::max(),
                            uint64_t{1} << 63,
                            ~uint64_t{0}};
  for (uint64_t rows : wrong) {
    EXPECT_EQ(CodeOfDecoding(WithWord(packet, kRows, rows)), StatusCode::kInvalidArgument) << rows;
  }
  EXPECT_EQ(CodeOfDecoding(WithWord(packet, kRows, kRows)), StatusCode::kOk);
}

TEST(HostileWire, EmptyTensorsWithHugeOtherDimensionsAreRefused) {
  // 0 elements, but the product of the others overflows on the way.
  const Packet packet = EncodeMessage(BackwardOf({1237, 1259, 0}));
  const uint64_t huge = uint64_t{1} << 61;
  EXPECT_EQ(CodeOfDecoding(WithWord(WithWord(packet, 1237, huge), 1259, huge)),
            StatusCode::kInvalidArgument);
}

TEST(HostileWire, AListThatClaimsMoreThanTheEnvelopeHoldsIsRefused) {
  View view;
  view.members.resize(1);
  Message message;
  message.body = view;
  const Packet packet = EncodeMessage(message);
  // The list's tag: one element of 3 words and 1 pointer. Instead, 4 million elements of no size.
  const uint64_t one_member = uint64_t{1} << 48 | uint64_t{3} << 32 | 1 << 2;
  const uint64_t many_of_nothing = uint64_t{1} << 22 << 2;
  EXPECT_EQ(CodeOfDecoding(WithWord(packet, one_member, many_of_nothing)),
            StatusCode::kInvalidArgument);
}

Message EncodedBackwardOf(Encoding encoding, std::vector<int64_t> shape) {
  Backward backward;
  backward.gradient = MutableBlob::ForEncoded(encoding, std::move(shape)).Freeze();
  Message message;
  message.body = std::move(backward);
  return message;
}

TEST(HostileWire, EncodedTensorsWhoseBytesAreNotThoseOfTheirShapeAreRefused) {
  for (const Encoding encoding :
       {Encoding::kF16, Encoding::kBF16, Encoding::kInt8, Encoding::kInt4}) {
    const Packet good = EncodeMessage(EncodedBackwardOf(encoding, {2, 300}));
    ASSERT_EQ(CodeOfDecoding(good), StatusCode::kOk);
    for (const int more : {-1, 1, 132}) {
      Packet packet = good;
      std::string bytes = packet.frames[0].ToStringBytes();
      bytes.resize(static_cast<size_t>(static_cast<int>(bytes.size()) + more));
      packet.frames[0] = BlobOf(bytes);
      EXPECT_EQ(CodeOfDecoding(packet), StatusCode::kInvalidArgument);
    }
    EXPECT_EQ(CodeOfDecoding(WithWord(good, 300, 301)), StatusCode::kInvalidArgument);
  }
}

// Element type f32 and the codec stand in one word.
TEST(HostileWire, UnknownCodecsAndEncodedTokensAreRefused) {
  const Packet good = EncodeMessage(EncodedBackwardOf(Encoding::kInt8, {2, 300}));
  EXPECT_EQ(CodeOfDecoding(WithWord(good, 0x0303, 0x0503)), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOfDecoding(WithWord(good, 0x0303, 0xff03)), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOfDecoding(WithWord(good, 0x0303, 0x0301)), StatusCode::kInvalidArgument);
}

TEST(HostileWire, EncodedTensorsAreRefusedWhereNoneBelongs) {
  const Blob encoded = MutableBlob::ForEncoded(Encoding::kInt8, {2, 300}).Freeze();
  Forward forward;
  forward.input = encoded;
  forward.targets = encoded;
  Message message;
  message.body = forward;
  EXPECT_EQ(CodeOfDecoding(EncodeMessage(message)), StatusCode::kInvalidArgument);
  Chunk chunk;
  chunk.bytes = encoded;
  message.body = chunk;
  EXPECT_EQ(CodeOfDecoding(EncodeMessage(message)), StatusCode::kInvalidArgument);
}

// No more is reserved than the limit on what tensors decode to.
TEST(HostileWire, EncodedTensorsThatDecodeToMoreThanAMessageAreRefused) {
  WireLimits limits;
  limits.max_message_bytes = 4096;
  EXPECT_EQ(CodeOfDecoding(EncodeMessage(EncodedBackwardOf(Encoding::kInt4, {1024})), limits),
            StatusCode::kOk);
  EXPECT_EQ(CodeOfDecoding(EncodeMessage(EncodedBackwardOf(Encoding::kInt4, {1025})), limits),
            StatusCode::kInvalidArgument);
}

TEST(HostileWire, TensorsOfTooManyDimensionsAreRefused) {
  EXPECT_EQ(CodeOfDecoding(EncodeMessage(BackwardOf({1, 1, 1, 1, 1, 1, 1, 1}))), StatusCode::kOk);
  EXPECT_EQ(CodeOfDecoding(EncodeMessage(BackwardOf({1, 1, 1, 1, 1, 1, 1, 1, 1}))),
            StatusCode::kInvalidArgument);
}

TEST(HostileWire, NegativeCountsAreRefused) {
  Notice notice;
  notice.tokens = -1;
  Message message;
  message.body = notice;
  EXPECT_EQ(CodeOfDecoding(EncodeMessage(message)), StatusCode::kInvalidArgument);

  Reduce reduce;
  reduce.plan.parts = {RoundPart{0, -5, 0}};
  message.body = reduce;
  EXPECT_EQ(CodeOfDecoding(EncodeMessage(message)), StatusCode::kInvalidArgument);
}

// All parts of a step's time, or none.
TEST(HostileWire, StepTimesOfAnotherNumberOfPartsAreRefused) {
  Message message;
  message.body = Sealed();
  const Packet packet = EncodeMessage(message);
  std::string bytes = packet.envelope.ToStringBytes();
  // A pointer to a list of so many words: its upper half is the count and the kind, 5.
  const auto upper = [](size_t parts) { return static_cast<uint32_t>(parts << 3 | 5); };
  size_t changed = 0;
  for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
    uint32_t halves[2];
    std::memcpy(halves, bytes.data() + at, sizeof(halves));
    if ((halves[0] & 3) != 1 || halves[1] != upper(kStepParts)) continue;
    halves[1] = upper(kStepParts - 1);
    std::memcpy(&bytes[at], halves, sizeof(halves));
    ++changed;
  }
  ASSERT_EQ(changed, 1u);
  EXPECT_EQ(CodeOfDecoding(packet), StatusCode::kOk);
  EXPECT_EQ(CodeOfDecoding(Packet{BlobOf(bytes), {}}), StatusCode::kInvalidArgument);
}

TEST(HostileWire, UnknownCodesAreRefused) {
  for (int code : {17, 18, 255}) {
    Message message;
    message.body = Ack{static_cast<StatusCode>(code), ""};
    EXPECT_EQ(CodeOfDecoding(EncodeMessage(message)), StatusCode::kInvalidArgument) << code;
  }
  Notice notice;
  notice.progress = static_cast<Progress>(3);
  Message message;
  message.body = notice;
  EXPECT_EQ(CodeOfDecoding(EncodeMessage(message)), StatusCode::kInvalidArgument);
}

TEST(HostileWire, AnotherMagicFormatOrBodyIsRefusedInWords) {
  Message message;
  message.run = static_cast<RunId>(1);
  message.body = Ack{};
  const Packet packet = EncodeMessage(message);
  const uint64_t first = uint64_t{kEnvelopeFormat} << 32 | kEnvelopeMagic;

  auto got = DecodeMessage(WithWord(packet, first, first + 1), WireLimits{});
  EXPECT_EQ(got.status().code(), StatusCode::kInvalidArgument);
  got = DecodeMessage(WithWord(packet, first, first + (uint64_t{1} << 32)), WireLimits{});
  EXPECT_EQ(got.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(got.status().message()).find("format 2"), std::string::npos);

  // The union's tag follows the 56 bytes of the other numbers.
  std::string bytes = packet.envelope.ToStringBytes();
  const size_t tag = bytes.find(std::string("\x1b\0\0\0\0\0\0\0", 8), 16);  // 27: Ack
  ASSERT_NE(tag, std::string::npos);
  const std::string unknown = std::to_string(kMessageKinds);
  bytes[tag] = static_cast<char>(kMessageKinds);
  got = DecodeMessage(Packet{BlobOf(bytes), {}}, WireLimits{});
  EXPECT_EQ(got.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(got.status().message()).find("kind of message " + unknown),
            std::string::npos);
}

TEST(HostileWire, EverythingAboveItsLimitIsRefusedAsTooLarge) {
  const Packet packet = EncodeMessage(BackwardOf({16, 16}), 256);
  ASSERT_EQ(packet.frames.size(), 4u);
  EXPECT_EQ(CodeOfDecoding(packet), StatusCode::kOk);
  WireLimits limits;
  limits.max_envelope_bytes = packet.envelope.size_bytes() - 1;
  EXPECT_EQ(CodeOfDecoding(packet, limits), StatusCode::kResourceExhausted);
  limits = WireLimits{};
  limits.max_frame_bytes = 255;
  EXPECT_EQ(CodeOfDecoding(packet, limits), StatusCode::kResourceExhausted);
  limits = WireLimits{};
  limits.max_frames = 3;
  EXPECT_EQ(CodeOfDecoding(packet, limits), StatusCode::kResourceExhausted);
  limits = WireLimits{};
  limits.max_message_bytes = 1023;
  EXPECT_EQ(CodeOfDecoding(packet, limits), StatusCode::kResourceExhausted);
}

TEST(HostileWire, RandomBytesNeverDecode) {
  Rng rng(7);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes(8 * rng.Below(40), '\0');
    for (char& c : bytes) c = static_cast<char>(rng.Chance(0.7) ? rng.Below(4) : rng.Next());
    EXPECT_EQ(CodeOfDecoding(Packet{BlobOf(bytes), {}}), StatusCode::kInvalidArgument);
  }
}

TEST(HostileWire, FlippedBitsNeverCrashAndWhatDecodesEncodesAgain) {
  Rng rng(8);
  int decoded = 0;
  for (int round = 0; round < 40000; ++round) {
    const Packet packet = EncodeMessage(RandomMessage(rng.Below(kMessageKinds), &rng));
    std::string bytes = packet.envelope.ToStringBytes();
    for (uint64_t flips = 1 + rng.Below(4); flips > 0; --flips) {
      bytes[rng.Below(bytes.size())] ^= static_cast<char>(1 << rng.Below(8));
    }
    absl::StatusOr<Message> got = DecodeMessage(Packet{BlobOf(bytes), packet.frames}, WireLimits{});
    if (!got.ok()) continue;
    ++decoded;
    absl::StatusOr<Message> again = DecodeMessage(EncodeMessage(*got), WireLimits{});
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(Describe(*again), Describe(*got));
  }
  // Most flips hit a value, which nothing can notice.
  EXPECT_GT(decoded, 1000);
}

}  // namespace
}  // namespace starling
