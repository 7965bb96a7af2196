// Events: what happened, said once by the code that decided it. The app writes them to events.jsonl
// and the terminal, the virtual world to its trace.
#ifndef STARLING_RUNTIME_BASE_EVENT_H_
#define STARLING_RUNTIME_BASE_EVENT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace starling {

struct Event {
  using Value = std::variant<int64_t, double, std::string>;

  std::string name;  // "peer_lost", "replayed", ...
  std::vector<std::pair<std::string, Value>> fields;

  Event(std::string event_name) : name(std::move(event_name)) {}  // NOLINT: implicit on purpose
  template <typename Int, std::enable_if_t<std::is_integral_v<Int>, int> = 0>
  Event& With(std::string key, Int value) {
    fields.emplace_back(std::move(key), static_cast<int64_t>(value));
    return *this;
  }
  Event& With(std::string key, double value) {
    fields.emplace_back(std::move(key), value);
    return *this;
  }
  Event& With(std::string key, std::string value) {
    fields.emplace_back(std::move(key), std::move(value));
    return *this;
  }
};

// Called on the thread of the code that emits; must not call back into it.
using EventSink = std::function<void(const Event&)>;

// "peer_lost stage=1 reason=connection lost"
std::string ToString(const Event& event);

}  // namespace starling

#endif  // STARLING_RUNTIME_BASE_EVENT_H_
