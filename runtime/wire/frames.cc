#include "runtime/wire/frames.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace starling::wire {
namespace {

// The bytes of a tensor, when it is decoded, whose numbers came from a peer. Dimensions of 0 count
// as 1 on the way, so that no product of the others can overflow either.
absl::StatusOr<size_t> CheckedBytes(DType dtype, const std::vector<int64_t>& shape,
                                    const WireLimits& limits) {
  if (shape.size() > limits.max_rank) {
    return absl::InvalidArgumentError("a tensor of " + std::to_string(shape.size()) +
                                      " dimensions");
  }
  size_t bound = SizeOf(dtype);
  bool empty = false;
  for (int64_t extent : shape) {
    if (extent < 0) return absl::InvalidArgumentError("a tensor with a negative dimension");
    if (extent == 0) {
      empty = true;
      continue;
    }
    if (static_cast<uint64_t>(extent) > limits.max_message_bytes / bound) {
      return absl::InvalidArgumentError("a tensor larger than any message");
    }
    bound *= static_cast<size_t>(extent);
  }
  return empty ? 0 : bound;
}

// Encoded bytes need no alignment.
bool Aligned(const Blob& tensor) {
  return tensor.encoded() ||
         reinterpret_cast<uintptr_t>(tensor.data()) % SizeOf(tensor.dtype()) == 0;
}

Blob TensorOver(const Blob& frame, DType dtype, Encoding encoding, std::vector<int64_t> shape) {
  return encoding == Encoding::kRaw
             ? Blob(frame.owner(), frame.data(), dtype, std::move(shape))
             : Blob::Encoded(frame.owner(), frame.data(), encoding, std::move(shape));
}

MutableBlob RoomFor(DType dtype, Encoding encoding, std::vector<int64_t> shape) {
  return encoding == Encoding::kRaw ? MutableBlob::Uninitialized(dtype, std::move(shape))
                                    : MutableBlob::ForEncoded(encoding, std::move(shape));
}

}  // namespace

FrameWriter::FrameWriter(size_t max_frame_bytes) : max_frame_bytes_(max_frame_bytes) {
  STARLING_CHECK_GT(max_frame_bytes, 0u);
  STARLING_CHECK_EQ(max_frame_bytes % 8, 0u);
}

FrameRange FrameWriter::Add(const Blob& blob) {
  const FrameRange range{
      static_cast<uint32_t>(frames_.size()),
      static_cast<uint32_t>((blob.size_bytes() + max_frame_bytes_ - 1) / max_frame_bytes_)};
  for (size_t begin = 0; begin < blob.size_bytes(); begin += max_frame_bytes_) {
    const size_t size = std::min(max_frame_bytes_, blob.size_bytes() - begin);
    frames_.emplace_back(blob.owner(), blob.data() + begin, DType::kU8,
                         std::vector<int64_t>{static_cast<int64_t>(size)});
  }
  return range;
}

FrameReader::FrameReader(std::vector<Blob> frames, const WireLimits& limits)
    : frames_(std::move(frames)), limits_(limits) {}

absl::Status FrameReader::Check() const {
  if (frames_.size() > limits_.max_frames) {
    return absl::ResourceExhaustedError("a packet of " + std::to_string(frames_.size()) +
                                        " frames");
  }
  size_t total = 0;
  for (const Blob& frame : frames_) {
    if (frame.size_bytes() > limits_.max_frame_bytes) {
      return absl::ResourceExhaustedError("a frame of " + std::to_string(frame.size_bytes()) +
                                          " bytes");
    }
    total += frame.size_bytes();
  }
  if (total > limits_.max_message_bytes) {
    return absl::ResourceExhaustedError("a message of " + std::to_string(total) + " bytes");
  }
  return absl::OkStatus();
}

absl::StatusOr<Blob> FrameReader::Next(uint8_t dtype_number, uint8_t codec,
                                       std::vector<int64_t> shape, FrameRange range) {
  if (dtype_number > static_cast<uint8_t>(DType::kBF16)) {
    return absl::InvalidArgumentError("unknown element type " + std::to_string(dtype_number));
  }
  if (codec > static_cast<uint8_t>(kLastEncoding)) {
    return absl::InvalidArgumentError("unknown codec " + std::to_string(codec));
  }
  const DType dtype = static_cast<DType>(dtype_number);
  const Encoding encoding = static_cast<Encoding>(codec);
  STARLING_ASSIGN_OR_RETURN(size_t bytes, CheckedBytes(dtype, shape, limits_));
  if (encoding != Encoding::kRaw) {
    if (dtype != DType::kF32) return absl::InvalidArgumentError("only f32 can be encoded");
    bytes = EncodedBytes(encoding, bytes / SizeOf(dtype));
  }
  if (range.first != next_ || range.count > frames_.size() - next_) {
    return absl::InvalidArgumentError("a tensor's frames are missing or out of order");
  }
  const size_t first = next_;
  next_ += range.count;
  size_t held = 0;
  for (size_t i = first; i < next_; ++i) {
    if (frames_[i].empty()) return absl::InvalidArgumentError("an empty frame");
    held += frames_[i].size_bytes();
  }
  if (held != bytes) {
    return absl::InvalidArgumentError("a tensor of " + std::to_string(bytes) +
                                      " bytes whose frames hold " + std::to_string(held));
  }
  if (range.count == 1) {
    Blob tensor = TensorOver(frames_[first], dtype, encoding, shape);
    if (Aligned(tensor)) return tensor;
  }
  MutableBlob joined = RoomFor(dtype, encoding, std::move(shape));
  std::byte* to = joined.data();
  for (size_t i = first; i < next_; ++i) {
    std::memcpy(to, frames_[i].data(), frames_[i].size_bytes());
    to += frames_[i].size_bytes();
  }
  return std::move(joined).Freeze();
}

absl::Status FrameReader::Finish() const {
  if (next_ == frames_.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(std::to_string(frames_.size() - next_) +
                                    " frames belong to no tensor");
}

}  // namespace starling::wire
