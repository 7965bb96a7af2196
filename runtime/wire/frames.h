// Tensors to packet frames and back. Internal to runtime/wire.
#ifndef STARLING_RUNTIME_WIRE_FRAMES_H_
#define STARLING_RUNTIME_WIRE_FRAMES_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/wire/wire.h"

namespace starling::wire {

struct FrameRange {
  uint32_t first = 0;
  uint32_t count = 0;
};

// Collects the frames of a packet being encoded, without copying bytes.
class FrameWriter {
 public:
  explicit FrameWriter(size_t max_frame_bytes);

  FrameRange Add(const Blob& blob);
  std::vector<Blob> Take() && { return std::move(frames_); }

 private:
  size_t max_frame_bytes_;
  std::vector<Blob> frames_;
};

// Hands out the frames of a received packet, in order and each once.
class FrameReader {
 public:
  FrameReader(std::vector<Blob> frames, const WireLimits& limits);

  // The frames as a whole are within the limits. Call first.
  absl::Status Check() const;
  // The next tensor. Errors as for DecodeMessage.
  absl::StatusOr<Blob> Next(uint8_t dtype, uint8_t codec, std::vector<int64_t> shape,
                            FrameRange range);
  // No frame is left.
  absl::Status Finish() const;

 private:
  std::vector<Blob> frames_;
  const WireLimits& limits_;
  size_t next_ = 0;
};

}  // namespace starling::wire

#endif  // STARLING_RUNTIME_WIRE_FRAMES_H_
