// One world per seed, run to its end: what swarm_test and `starling sim` have in common.
//
//   SeedResult result = RunSeed({42});
//   if (!result.ok()) ... result.violations, and again with a sink for the trace
//
// The same choice gives the same result, trace hash included, in whatever process.
#ifndef STARLING_TESTS_SIM_SEARCH_H_
#define STARLING_TESTS_SIM_SEARCH_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/hash.h"
#include "tests/sim/swarm_world.h"

namespace starling::sim {

enum class TraceDetail : uint8_t { kNone, kShort, kFull };

// A world: all that is not set here is drawn from the seed.
struct WorldChoice {
  uint64_t seed = 1;
  FaultSet faults = FaultSet::All();
  bool liveness = false;
  std::optional<bool> lossy{};
  std::optional<bool> tied{};
  std::optional<bool> delayed{};
  std::optional<uint32_t> stages{};
  std::optional<uint32_t> replicas{};
  std::optional<uint32_t> microbatches{};
  std::optional<int64_t> steps{};
};
SwarmOptions OptionsOf(const WorldChoice& choice);

struct SeedResult {
  bool ended = false;                   // false: no progress, or the run failed
  std::vector<std::string> violations;  // lines of the trace
  Hash128 trace_hash;
  uint64_t steps = 0;  // decided, repeated ones included
  uint64_t events = 0;
  absl::Duration virtual_time;

  bool ok() const { return ended && violations.empty(); }
};

// Gets what was drawn, then the lines of the trace.
using LineSink = std::function<void(const std::string&)>;

SeedResult RunSeed(const WorldChoice& choice, TraceDetail detail = TraceDetail::kNone,
                   const LineSink& sink = nullptr);

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_SEARCH_H_
