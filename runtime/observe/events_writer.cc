#include "runtime/observe/events_writer.h"

#include <variant>

#include "nlohmann/json.hpp"

namespace starling {

std::string ToEventLine(absl::Time now, const Event& event) {
  nlohmann::ordered_json line = {
      {"time", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", now, absl::UTCTimeZone())},
      {"event", event.name}};
  for (const auto& [key, value] : event.fields) {
    std::visit([&line, &key = key](const auto& field) { line[key] = field; }, value);
  }
  // Texts from elsewhere (a peer's host name) need not be UTF-8.
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace starling
