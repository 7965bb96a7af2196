#include "runtime/base/event.h"

#include <sstream>

namespace starling {

std::string ToString(const Event& event) {
  std::ostringstream text;
  text << event.name;
  for (const auto& [key, value] : event.fields) {
    text << ' ' << key << '=';
    std::visit([&text](const auto& v) { text << v; }, value);
  }
  return text.str();
}

}  // namespace starling
