#include "tests/sim/swarm_faults.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace starling::sim {
namespace {

constexpr const char* kNames[kFaultKinds] = {
    "crash",         "stall",         "vanish",     "slow", "hiccup",
    "partition",     "oneway",        "clog",       "jam",  "full_disk",
    "trainer_crash", "trainer_stall", "everything", "loss", "duplicates"};

}  // namespace

const char* ToString(FaultKind kind) { return kNames[static_cast<int>(kind)]; }

FaultSet FaultSet::All() {
  FaultSet set;
  for (int i = 0; i < kFaultKinds; ++i) set.Set(static_cast<FaultKind>(i));
  return set;
}

void FaultSet::Set(FaultKind kind, bool on) {
  const uint32_t bit = 1u << static_cast<int>(kind);
  bits_ = on ? bits_ | bit : bits_ & ~bit;
}

std::vector<FaultKind> FaultSet::Kinds() const {
  std::vector<FaultKind> kinds;
  for (int i = 0; i < kFaultKinds; ++i) {
    if (Has(static_cast<FaultKind>(i))) kinds.push_back(static_cast<FaultKind>(i));
  }
  return kinds;
}

absl::StatusOr<FaultSet> FaultSet::Parse(const std::string& list) {
  FaultSet set;
  const std::vector<std::string> words = absl::StrSplit(list, ',');
  for (const std::string& word : words) {
    if (word == "all") {
      set = All();
      continue;
    }
    if (word == "none") {
      set = None();
      continue;
    }
    const bool off = !word.empty() && word[0] == '-';
    const std::string name = off ? word.substr(1) : word;
    bool known = false;
    std::string all;
    for (int i = 0; i < kFaultKinds; ++i) {
      absl::StrAppend(&all, ", ", kNames[i]);
      if (name != kNames[i]) continue;
      known = true;
      set.Set(static_cast<FaultKind>(i), !off);
    }
    if (!known) {
      return absl::InvalidArgumentError(
          absl::StrCat("no fault is called '", name, "': there are all, none", all));
    }
  }
  return set;
}

}  // namespace starling::sim
