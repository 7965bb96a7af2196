// Trace: what happened in a virtual run, as one hash and a short list of lines.
//
// The hash covers every event (time, node, what) and whatever else is mixed in, such as the bytes
// of each delivered envelope: two runs of one seed with different hashes have diverged. Lines are
// for people, one per change of state, fault or verdict, in columns (docs/testing.md):
//
//     0.142031 peer2/stage1     added                  2     5  attempt=1.0#7 segment=0
//     seconds  node             what                step    mb  details
//
// The newest kMaxLines are kept. Violations are what no run may show (a checker's finding); a test
// ends with EXPECT_THAT(trace.violations(), IsEmpty()).
#ifndef STARLING_TESTS_SIM_TRACE_H_
#define STARLING_TESTS_SIM_TRACE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "runtime/base/event.h"
#include "runtime/base/hash.h"
#include "tests/sim/scheduler.h"

namespace starling::sim {

// What a line says beside its time and node.
struct TraceLine {
  std::string what;  // one word
  std::optional<uint64_t> step{};
  std::optional<uint64_t> microbatch{};
  std::string detail{};
};

class Trace {
 public:
  static constexpr size_t kMaxLines = 2000;
  static constexpr size_t kMaxViolations = 50;

  explicit Trace(const Scheduler* scheduler) : scheduler_(scheduler) {}

  void Event(const EventInfo& event);
  void Mix(uint64_t word);
  // A line, also mixed into the hash. `who` is a node's name or "world".
  void Line(const std::string& who, const TraceLine& line);
  // The same from an event of the code under test; fields "step" and "microbatch" get columns.
  void Line(const std::string& who, const starling::Event& event);
  void Violation(const std::string& text);

  // How a node is called in lines.
  void Name(NodeId node, const std::string& name) { names_[node] = name; }
  const std::string& NameOf(NodeId node) const;

  // Gets each line as it is made. With `all`, also a line for every event and what Note() says,
  // neither of which is in the hash.
  void SetSink(std::function<void(const std::string& line)> sink, bool all);
  bool wants_all() const { return all_; }
  void Note(const std::string& who, const TraceLine& line);

  Hash128 hash() const { return hasher_.Finish(); }
  const std::deque<std::string>& lines() const { return lines_; }
  const std::vector<std::string>& violations() const { return violations_; }
  std::string Text() const;  // the kept lines, one under another

 private:
  const Scheduler* const scheduler_;
  std::string Render(const std::string& who, const TraceLine& line) const;

  Hasher128 hasher_;
  std::map<NodeId, std::string> names_;
  std::function<void(const std::string&)> sink_;
  bool all_ = false;
  std::deque<std::string> lines_;
  std::vector<std::string> violations_;
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_TRACE_H_
