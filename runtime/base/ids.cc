#include "runtime/base/ids.h"

#include <cinttypes>
#include <cstdio>

namespace starling {

std::string ToString(PeerId id) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016" PRIx64, Value(id));
  return text;
}

std::string ToString(StageId id) { return std::to_string(Value(id)); }

std::string ToString(const Incarnation& id) {
  return std::to_string(Value(id.epoch)) + "." + std::to_string(id.counter);
}

std::string ToString(const AttemptId& id) {
  return ToString(id.issuer) + "#" + std::to_string(id.counter);
}

std::string ToString(const MicrobatchId& id) {
  return "step " + std::to_string(Value(id.step)) +
         (id.kind == WorkKind::kTrain ? " microbatch " : " evaluation ") + std::to_string(id.index);
}

std::string ToString(const WorkId& work) {
  return ToString(work.id) + " try " + ToString(work.attempt);
}

}  // namespace starling
