#include "runtime/wire/wire.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "tests/runtime/wire/random_message.h"

namespace starling {
namespace {

std::string BytesOf(const Packet& packet) {
  std::string bytes = packet.envelope.ToStringBytes();
  for (const Blob& frame : packet.frames) bytes += "|" + frame.ToStringBytes();
  return bytes;
}

Message ForwardOf(Blob input) {
  Forward forward;
  forward.input = std::move(input);
  Message message;
  message.body = std::move(forward);
  return message;
}

Blob FloatsCounting(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  return Blob::OfFloats(values);
}

// The bytes of `blob` at an address that is `offset` bytes past a multiple of 64.
Blob Misaligned(const Blob& blob, size_t offset) {
  MutableBlob room =
      MutableBlob::Uninitialized(DType::kU8, {static_cast<int64_t>(blob.size_bytes() + offset)});
  std::memcpy(room.data() + offset, blob.data(), blob.size_bytes());
  const Blob whole = std::move(room).Freeze();
  return Blob(whole.owner(), whole.data() + offset, blob.dtype(), blob.shape());
}

TEST(Wire, EveryKindComesBackTheSameInEveryField) {
  Rng rng(3);
  for (size_t kind = 0; kind < kMessageKinds; ++kind) {
    for (int round = 0; round < 100; ++round) {
      const Message message = RandomMessage(kind, &rng);
      const Packet packet = EncodeMessage(message);
      absl::StatusOr<Message> got = DecodeMessage(packet, WireLimits{});
      ASSERT_TRUE(got.ok()) << KindOf(message) << ": " << got.status();
      EXPECT_EQ(Describe(*got), Describe(message)) << KindOf(message);
      EXPECT_EQ(BytesOf(EncodeMessage(*got)), BytesOf(packet)) << KindOf(message);
    }
  }
}

TEST(Wire, DefaultMessagesOfEveryKindComeBackTheSame) {
  for (size_t kind = 0; kind < kMessageKinds; ++kind) {
    Rng rng(4);
    Message message = RandomMessage(kind, &rng);
    std::visit([](auto& body) { body = std::decay_t<decltype(body)>{}; }, message.body);
    absl::StatusOr<Message> got = DecodeMessage(EncodeMessage(message), WireLimits{});
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(Describe(*got), Describe(message));
  }
}

TEST(Wire, EveryStatusCodeComesBack) {
  for (int code = 0; code <= 16; ++code) {
    Message message;
    message.body = Ack{static_cast<absl::StatusCode>(code), "text"};
    absl::StatusOr<Message> got = DecodeMessage(EncodeMessage(message), WireLimits{});
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(static_cast<int>(std::get<Ack>(got->body).code), code);
  }
}

TEST(Wire, LongListsAndTextsComeBack) {
  Sealed sealed;
  sealed.segments.resize(3);
  for (SegmentSummary& segment : sealed.segments) segment.entries.resize(5000);
  sealed.segments[2].entries[4999].index = 77;
  Message message;
  message.body = sealed;
  absl::StatusOr<Message> got = DecodeMessage(EncodeMessage(message), WireLimits{});
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(Describe(*got), Describe(message));

  message.body = StatusReply{std::string(1000000, 'x')};
  got = DecodeMessage(EncodeMessage(message), WireLimits{});
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(std::get<StatusReply>(got->body).json.size(), 1000000u);
}

TEST(Wire, TensorsAreNotCopiedWhenAligned) {
  const Message message = ForwardOf(FloatsCounting(1000).Reshaped({10, 100}));
  const std::byte* const bytes = std::get<Forward>(message.body).input.data();
  const Packet packet = EncodeMessage(message);
  ASSERT_EQ(packet.frames.size(), 1u);
  EXPECT_EQ(packet.frames[0].data(), bytes);
  absl::StatusOr<Message> got = DecodeMessage(packet, WireLimits{});
  ASSERT_TRUE(got.ok()) << got.status();
  const Blob& input = std::get<Forward>(got->body).input;
  EXPECT_EQ(input.data(), bytes);
  EXPECT_EQ(input.shape(), (std::vector<int64_t>{10, 100}));
}

TEST(Wire, SharedBytesOutliveThePacket) {
  Blob input;
  {
    Packet packet = EncodeMessage(ForwardOf(FloatsCounting(1000)));
    absl::StatusOr<Message> got = DecodeMessage(std::move(packet), WireLimits{});
    ASSERT_TRUE(got.ok()) << got.status();
    input = std::get<Forward>(got->body).input;
  }
  EXPECT_EQ(input.As<float>()[999], 999.0f);
}

TEST(Wire, FramesAndEnvelopesAtAnyAddressDecode) {
  const Message message = ForwardOf(FloatsCounting(50));
  for (size_t offset = 0; offset < 8; ++offset) {
    Packet packet = EncodeMessage(message);
    packet.envelope = Misaligned(packet.envelope, offset);
    packet.frames[0] = Misaligned(packet.frames[0], offset);
    const std::byte* const frame = packet.frames[0].data();
    absl::StatusOr<Message> got = DecodeMessage(packet, WireLimits{});
    ASSERT_TRUE(got.ok()) << got.status();
    const Blob& input = std::get<Forward>(got->body).input;
    EXPECT_EQ(input.As<float>()[49], 49.0f);
    EXPECT_EQ(input.data() == frame, offset % 4 == 0) << offset;
  }
}

TEST(Wire, WiderElementsNeedTheirOwnAlignment) {
  const std::vector<int64_t> values = {1, 2, 3};
  Packet packet = EncodeMessage(ForwardOf(Blob::CopyOf(values.data(), DType::kI64, {3})));
  packet.frames[0] = Misaligned(packet.frames[0], 4);
  absl::StatusOr<Message> got = DecodeMessage(packet, WireLimits{});
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(std::get<Forward>(got->body).input.As<int64_t>()[2], 3);
}

TEST(Wire, LargeTensorsTravelInSeveralFramesAndAreJoined) {
  Piece piece;
  piece.data = FloatsCounting(1000);  // 4000 bytes
  Message message;
  message.body = piece;
  for (size_t max_frame_bytes : {8u, 1000u, 1024u, 3992u, 4000u, 4008u}) {
    const Packet packet = EncodeMessage(message, max_frame_bytes);
    EXPECT_EQ(packet.frames.size(), (4000 + max_frame_bytes - 1) / max_frame_bytes);
    absl::StatusOr<Message> got = DecodeMessage(packet, WireLimits{});
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(Describe(*got), Describe(message));
  }
}

TEST(Wire, TensorsAboveTheFrameLimitAreSplitByDefault) {
  const int64_t count = static_cast<int64_t>(kMaxFrameBytes / sizeof(float)) + 1;
  Piece piece;
  piece.data = FloatsCounting(count);
  Message message;
  message.body = piece;
  const Packet packet = EncodeMessage(message);
  ASSERT_EQ(packet.frames.size(), 2u);
  EXPECT_EQ(packet.frames[1].size_bytes(), sizeof(float));
  absl::StatusOr<Message> got = DecodeMessage(packet, WireLimits{});
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(std::get<Piece>(got->body).data.As<float>()[static_cast<size_t>(count) - 1],
            static_cast<float>(count - 1));
}

TEST(Wire, EmptyTensorsNeedNoFrameAndKeepTheirShape) {
  const Message message = ForwardOf(Blob::CopyOf(nullptr, DType::kF32, {4, 0, 128}));
  const Packet packet = EncodeMessage(message);
  EXPECT_TRUE(packet.frames.empty());
  absl::StatusOr<Message> got = DecodeMessage(packet, WireLimits{});
  ASSERT_TRUE(got.ok()) << got.status();
  const Forward& forward = std::get<Forward>(got->body);
  EXPECT_EQ(forward.input.shape(), (std::vector<int64_t>{4, 0, 128}));
  EXPECT_EQ(forward.input.dtype(), DType::kF32);
  EXPECT_TRUE(forward.input.empty());
  EXPECT_EQ(forward.targets.shape(), (std::vector<int64_t>{0}));
}

TEST(Wire, AScalarHasOneElement) {
  const float value = 2.5f;
  absl::StatusOr<Message> got =
      DecodeMessage(EncodeMessage(ForwardOf(Blob::CopyOf(&value, DType::kF32, {}))), WireLimits{});
  ASSERT_TRUE(got.ok()) << got.status();
  const Blob& input = std::get<Forward>(got->body).input;
  EXPECT_TRUE(input.shape().empty());
  EXPECT_EQ(input.As<float>()[0], 2.5f);
}

TEST(Wire, EncodedTensorsArriveAsTheyWereSent) {
  for (const Encoding encoding :
       {Encoding::kF16, Encoding::kBF16, Encoding::kInt8, Encoding::kInt4}) {
    for (const std::vector<int64_t>& shape :
         {std::vector<int64_t>{3, 7, 50}, {1}, {4, 0, 16}, {2, 512, 64}}) {
      MutableBlob made = MutableBlob::ForEncoded(encoding, shape);
      for (size_t i = 0; i < made.size_bytes(); ++i) made.data()[i] = std::byte(i * 7);
      const Blob sent = std::move(made).Freeze();
      for (const bool odd : {false, true}) {
        Packet packet = EncodeMessage(ForwardOf(sent), 1024);
        for (Blob& frame : packet.frames) frame = odd ? Misaligned(frame, 1) : frame;
        const absl::StatusOr<Message> got = DecodeMessage(std::move(packet), WireLimits{});
        ASSERT_TRUE(got.ok()) << got.status();
        const Blob& input = std::get<Forward>(got->body).input;
        EXPECT_EQ(input.encoding(), encoding);
        EXPECT_EQ(input.dtype(), DType::kF32);
        EXPECT_EQ(input.shape(), shape);
        EXPECT_EQ(input.ToStringBytes(), sent.ToStringBytes());
      }
    }
  }
}

TEST(Wire, TwoTensorsKeepApart) {
  Forward forward;
  forward.input = FloatsCounting(3);
  forward.targets = FloatsCounting(5);
  Message message;
  message.body = forward;
  absl::StatusOr<Message> got = DecodeMessage(EncodeMessage(message, 8), WireLimits{});
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(Describe(*got), Describe(message));
}

}  // namespace
}  // namespace starling
