// Trace: what happened in a virtual run, as one hash and a short list of lines.
//
// The hash covers every event (time, node, what) and whatever else is mixed in, such as the bytes
// of each delivered envelope: two runs of one seed with different hashes have diverged. Lines are
// for people: changes of state, faults, verdicts; the newest kMaxLines are kept. Violations are
// what no run may show (a checker's finding); a test ends with EXPECT_THAT(trace.violations(),
// IsEmpty()).
#ifndef STARLING_TESTS_SIM_TRACE_H_
#define STARLING_TESTS_SIM_TRACE_H_

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "runtime/base/hash.h"
#include "tests/sim/scheduler.h"

namespace starling::sim {

class Trace {
 public:
  static constexpr size_t kMaxLines = 2000;
  static constexpr size_t kMaxViolations = 50;

  explicit Trace(const Scheduler* scheduler) : scheduler_(scheduler) {}

  void Event(const EventInfo& event);
  void Mix(uint64_t word);
  // A line, also mixed into the hash. `who` is a node's name or "world".
  void Line(const std::string& who, const std::string& text);
  void Violation(const std::string& text);

  Hash128 hash() const { return hasher_.Finish(); }
  const std::deque<std::string>& lines() const { return lines_; }
  const std::vector<std::string>& violations() const { return violations_; }
  std::string Text() const;  // the kept lines, one under another

 private:
  const Scheduler* const scheduler_;
  Hasher128 hasher_;
  std::deque<std::string> lines_;
  std::vector<std::string> violations_;
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_TRACE_H_
