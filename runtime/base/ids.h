// The names of things: strong integer types, so that a stage cannot be passed where a step is
// meant.
//
// `Value(id)` gives the number, `Next(id)` the following one; ids compare and order as their
// numbers.
#ifndef STARLING_RUNTIME_BASE_IDS_H_
#define STARLING_RUNTIME_BASE_IDS_H_

#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>

namespace starling {

enum class RunId : uint64_t {};      // drawn when a run directory is made
enum class PeerId : uint64_t {};     // drawn by a process when it starts
enum class StageId : uint32_t {};    // 0 is the stage that reads tokens
enum class Step : uint64_t {};       // optimizer steps, 1 to N
enum class Version : uint64_t {};    // of the parameters; step t takes version t-1 to t
enum class Era : uint32_t {};        // grows at every return to a checkpoint
enum class Epoch : uint32_t {};      // the reign of one trainer
enum class SegmentId : uint32_t {};  // counts the segments of one replica within one step

template <typename Id>
constexpr std::underlying_type_t<Id> Value(Id id) {
  static_assert(std::is_enum_v<Id>);
  return static_cast<std::underlying_type_t<Id>>(id);
}

template <typename Id>
constexpr Id Next(Id id) {
  return static_cast<Id>(Value(id) + 1);
}

// The version that step `t` computes on, and the one its decision makes.
constexpr Version VersionBefore(Step step) { return static_cast<Version>(Value(step) - 1); }
constexpr Version VersionAfter(Step step) { return static_cast<Version>(Value(step)); }

// One admission of a peer by a trainer. Unique within a run, and only ever grows (invariant I3).
// A peer that was fenced and comes back gets a new one. The trainer itself is (epoch, 0).
struct Incarnation {
  Epoch epoch{0};
  uint32_t counter = 0;

  friend bool operator==(const Incarnation& a, const Incarnation& b) {
    return a.epoch == b.epoch && a.counter == b.counter;
  }
  friend bool operator!=(const Incarnation& a, const Incarnation& b) { return !(a == b); }
  friend bool operator<(const Incarnation& a, const Incarnation& b) {
    return std::tie(a.epoch, a.counter) < std::tie(b.epoch, b.counter);
  }
};

// One try at a microbatch: who issued it, and its count of tries.
struct AttemptId {
  Incarnation issuer;
  uint32_t counter = 0;

  friend bool operator==(const AttemptId& a, const AttemptId& b) {
    return a.issuer == b.issuer && a.counter == b.counter;
  }
  friend bool operator!=(const AttemptId& a, const AttemptId& b) { return !(a == b); }
  friend bool operator<(const AttemptId& a, const AttemptId& b) {
    return std::tie(a.issuer, a.counter) < std::tie(b.issuer, b.counter);
  }
};

// What a microbatch is for. Evaluation is forward-only and leaves nothing behind.
enum class WorkKind : uint8_t { kTrain = 0, kEvaluate = 1 };

// A microbatch of a step. Two of one kind, step and index hold the same sequences, always.
struct MicrobatchId {
  Step step{0};
  WorkKind kind = WorkKind::kTrain;
  uint32_t index = 0;

  friend bool operator==(const MicrobatchId& a, const MicrobatchId& b) {
    return a.step == b.step && a.kind == b.kind && a.index == b.index;
  }
  friend bool operator!=(const MicrobatchId& a, const MicrobatchId& b) { return !(a == b); }
  friend bool operator<(const MicrobatchId& a, const MicrobatchId& b) {
    return std::tie(a.step, a.kind, a.index) < std::tie(b.step, b.kind, b.index);
  }
};

// A microbatch at a replica: which one, and which try.
struct WorkId {
  MicrobatchId id;
  AttemptId attempt;

  friend bool operator==(const WorkId& a, const WorkId& b) {
    return a.id == b.id && a.attempt == b.attempt;
  }
  friend bool operator!=(const WorkId& a, const WorkId& b) { return !(a == b); }
  friend bool operator<(const WorkId& a, const WorkId& b) {
    return a.id != b.id ? a.id < b.id : a.attempt < b.attempt;
  }
};

// For logs: "7", "2.13" (epoch.counter), "2.13#4", "step 12 microbatch 3".
std::string ToString(PeerId id);
std::string ToString(StageId id);
std::string ToString(const Incarnation& id);
std::string ToString(const AttemptId& id);
std::string ToString(const MicrobatchId& id);
std::string ToString(const WorkId& work);  // "step 12 microbatch 3 try 1.0#7"

}  // namespace starling

#endif  // STARLING_RUNTIME_BASE_IDS_H_
