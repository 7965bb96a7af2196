#include "tests/sim/trace.h"

#include <cstdio>
#include <cstring>
#include <utility>

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
  if (all_) Note(NameOf(event.node), {"event", {}, {}, event.what});
}

void Trace::Mix(uint64_t word) { hasher_.Update(&word, sizeof(word)); }

const std::string& Trace::NameOf(NodeId node) const {
  static const std::string world = "world";
  const auto found = names_.find(node);
  return found == names_.end() ? world : found->second;
}

std::string Trace::Render(const std::string& who, const TraceLine& line) const {
  char text[128];
  const auto column = [](const std::optional<uint64_t>& number) {
    return number ? std::to_string(*number) : std::string("-");
  };
  std::snprintf(text, sizeof(text), "%12.6f %-16s %-18s %5s %5s  ", Seconds(scheduler_->Now()),
                who.c_str(), line.what.c_str(), column(line.step).c_str(),
                column(line.microbatch).c_str());
  return text + line.detail;
}

void Trace::Line(const std::string& who, const TraceLine& line) {
  lines_.push_back(Render(who, line));
  hasher_.Update(lines_.back().data(), lines_.back().size());
  if (sink_) sink_(lines_.back());
  if (lines_.size() > kMaxLines) lines_.pop_front();
}

void Trace::Line(const std::string& who, const starling::Event& event) {
  TraceLine line;
  line.what = event.name;
  for (const auto& [key, value] : event.fields) {
    const int64_t* number = std::get_if<int64_t>(&value);
    if (number != nullptr && key == "step") {
      line.step = static_cast<uint64_t>(*number);
    } else if (number != nullptr && key == "microbatch") {
      line.microbatch = static_cast<uint64_t>(*number);
    } else {
      starling::Event field("");
      field.fields.emplace_back(key, value);
      line.detail += ToString(field).substr(line.detail.empty() ? 1 : 0);
    }
  }
  Line(who, line);
}

void Trace::Note(const std::string& who, const TraceLine& line) {
  if (sink_ && all_) sink_(Render(who, line));
}

void Trace::SetSink(std::function<void(const std::string& line)> sink, bool all) {
  sink_ = std::move(sink);
  all_ = all;
}

void Trace::Violation(const std::string& text) {
  Line("checker", TraceLine{"VIOLATION", {}, {}, text});
  if (violations_.size() < kMaxViolations) violations_.push_back(lines_.back());
}

std::string Trace::Text() const {
  std::string text;
  for (const std::string& line : lines_) text += line + "\n";
  return text;
}

}  // namespace starling::sim
