#include "tests/sim/trace.h"

#include <cstdio>
#include <cstring>

#include "runtime/base/ids.h"

namespace starling::sim {
namespace {

double Seconds(absl::Time time) { return absl::ToDoubleSeconds(time - absl::UnixEpoch()) - 3600; }

}  // namespace

void Trace::Event(const EventInfo& event) {
  struct {
    int64_t nanos;
    uint64_t node;
  } head = {absl::ToUnixNanos(event.when), Value(event.node)};
  hasher_.Update(&head, sizeof(head));
  hasher_.Update(event.what, std::strlen(event.what));
}

void Trace::Mix(uint64_t word) { hasher_.Update(&word, sizeof(word)); }

void Trace::Line(const std::string& who, const std::string& text) {
  char head[32];
  std::snprintf(head, sizeof(head), "%12.6f ", Seconds(scheduler_->Now()));
  lines_.push_back(head + who + ": " + text);
  hasher_.Update(lines_.back().data(), lines_.back().size());
  if (lines_.size() > kMaxLines) lines_.pop_front();
}

void Trace::Violation(const std::string& text) {
  Line("VIOLATION", text);
  if (violations_.size() < kMaxViolations) violations_.push_back(lines_.back());
}

std::string Trace::Text() const {
  std::string text;
  for (const std::string& line : lines_) text += line + "\n";
  return text;
}

}  // namespace starling::sim
