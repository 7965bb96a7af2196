#include "tests/sim/planted_bugs.h"

#include <cstddef>

namespace starling {
namespace {

Bug planted = Bug::kNone;

}  // namespace

bool Planted(Bug bug) { return planted == bug; }

namespace sim {
namespace {

// In the order of the enumeration.
constexpr const char* kNames[] = {
    "none",
    "add_after_seal",
    "trust_notices",
    "skip_fence_acks",
    "forget_record",
    "reuse_attempt_name",
    "publish_before_sync",
    "act_before_sync",
    "sum_in_arrival_order",
    "apply_other_round",
    "forget_promise",
    "run_repeated_request",
    "reuse_incarnation",
    "ignore_stage_mask",
    "serve_before_caught_up",
    "never_repeat",
    "contested_as_baton",
    "forget_tied_stage",
    "apply_without_tie",
    "replay_on_newest",
};

}  // namespace

void PlantBug(Bug bug) { planted = bug; }

std::optional<Bug> BugOf(const std::string& name) {
  for (size_t i = 0; i < sizeof(kNames) / sizeof(kNames[0]); ++i) {
    if (name == kNames[i]) return static_cast<Bug>(i);
  }
  return std::nullopt;
}

}  // namespace sim
}  // namespace starling
