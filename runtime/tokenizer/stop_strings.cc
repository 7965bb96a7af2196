#include "runtime/tokenizer/stop_strings.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/match.h"

namespace starling {
namespace {

std::vector<std::string> LongestFirst(std::vector<std::string> stops) {
  std::stable_sort(stops.begin(), stops.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
  return stops;
}

}  // namespace

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(LongestFirst(std::move(stops))) {}

std::string StopStrings::Push(const std::string& piece) {
  if (stops_.empty()) return piece;
  std::string shown;
  for (const char byte : piece) {
    if (stopped_) break;
    waiting_.push_back(byte);
    for (const std::string& stop : stops_) {
      if (!absl::EndsWith(waiting_, stop)) continue;
      shown.append(waiting_, 0, waiting_.size() - stop.size());
      waiting_.clear();
      stopped_ = true;
      break;
    }
    const size_t clear = waiting_.size() - PossibleBeginning();
    shown.append(waiting_, 0, clear);
    waiting_.erase(0, clear);
  }
  return shown;
}

size_t StopStrings::PossibleBeginning() const {
  for (size_t length = waiting_.size(); length > 0; --length) {
    const size_t begin = waiting_.size() - length;
    for (const std::string& stop : stops_) {
      if (stop.size() > length && stop.compare(0, length, waiting_, begin, length) == 0) {
        return length;
      }
    }
  }
  return 0;
}

}  // namespace starling
