// Fuzzes DecodeMessage: whatever the bytes, it answers; what it accepts, it encodes and accepts
// again as the same message.
//
// An input is a number of frames (1 byte), their sizes (2 bytes each), the frames, and the
// envelope. Built without libFuzzer, `wire_fuzz COUNT SEED` tries COUNT mutations of valid packets,
// and `wire_fuzz FILE...` replays inputs (from libFuzzer, or from anywhere).
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/base/rng.h"
#include "runtime/wire/wire.h"
#include "tests/runtime/wire/random_message.h"

namespace starling {
namespace {

Packet PacketOf(const std::string& input) {
  size_t at = 0;
  const auto take = [&](size_t wanted) {
    const std::string taken = input.substr(at, wanted);
    at += taken.size();
    return taken;
  };
  const auto number = [&] {
    size_t value = 0;
    for (char c : take(2)) value = value << 8 | static_cast<unsigned char>(c);
    return value;
  };
  std::vector<size_t> sizes(input.empty() ? 0 : static_cast<unsigned char>(take(1)[0]) % 16);
  for (size_t& size : sizes) size = number();
  Packet packet;
  for (size_t size : sizes) packet.frames.push_back(Blob::OfString(take(size)));
  packet.envelope = Blob::OfString(take(std::string::npos));
  return packet;
}

void FuzzOne(const std::string& input) {
  absl::StatusOr<Message> message = DecodeMessage(PacketOf(input), WireLimits{});
  if (!message.ok()) return;
  absl::StatusOr<Message> again = DecodeMessage(EncodeMessage(*message), WireLimits{});
  // What shared bytes in the input is written out, and may then be too large.
  if (absl::IsResourceExhausted(again.status())) return;
  STARLING_CHECK_MSG(again.ok(), again.status().ToString());
  STARLING_CHECK(Describe(*again) == Describe(*message));
}

}  // namespace
}  // namespace starling

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  starling::FuzzOne(std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}

#ifndef STARLING_LIBFUZZER

namespace starling {
namespace {

// The inverse of PacketOf.
std::string InputOf(const Packet& packet) {
  std::string input(1, static_cast<char>(packet.frames.size()));
  for (const Blob& frame : packet.frames) {
    input.push_back(static_cast<char>(frame.size_bytes() >> 8));
    input.push_back(static_cast<char>(frame.size_bytes()));
  }
  for (const Blob& frame : packet.frames) input += frame.ToStringBytes();
  return input + packet.envelope.ToStringBytes();
}

void Mutate(std::string* input, Rng* rng) {
  const size_t at = rng->Below(input->size());
  switch (rng->Below(6)) {
    case 0:
      (*input)[at] ^= static_cast<char>(1 << rng->Below(8));
      break;
    case 1:
      (*input)[at] = static_cast<char>(rng->Chance(0.5) ? 0xff : rng->Next());
      break;
    case 2:
      input->resize(at + 1);
      break;
    case 3:
      input->insert(at, 1 + rng->Below(16), static_cast<char>(rng->Next()));
      break;
    case 4:  // a run of bytes from elsewhere in the input: pointers that overlap
      input->replace(at & ~size_t{7}, 8, input->substr(rng->Below(input->size()) & ~size_t{7}, 8));
      break;
    case 5:
      input->erase(at, 8 * rng->Below(3));
      if (input->empty()) input->push_back(0);
      break;
  }
}

void FuzzMany(uint64_t count, uint64_t seed) {
  Rng rng(seed);
  for (uint64_t i = 0; i < count; ++i) {
    std::string input = InputOf(EncodeMessage(RandomMessage(rng.Below(kMessageKinds), &rng)));
    for (uint64_t mutations = rng.Below(5); mutations > 0; --mutations) Mutate(&input, &rng);
    FuzzOne(input);
  }
}

bool FuzzFile(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return false;
  FuzzOne(std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()));
  return true;
}

}  // namespace
}  // namespace starling

int main(int argc, char** argv) {
  char* end = nullptr;
  const uint64_t count = argc > 1 ? std::strtoull(argv[1], &end, 10) : 50000;
  if (argc > 1 && *end != '\0') {
    for (int i = 1; i < argc; ++i) {
      if (!starling::FuzzFile(argv[i])) {
        std::fprintf(stderr, "wire_fuzz: cannot read %s\n", argv[i]);
        return 2;
      }
    }
    return 0;
  }
  starling::FuzzMany(count, argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  return 0;
}

#endif  // STARLING_LIBFUZZER
