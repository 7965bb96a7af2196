// EventsWriter: events.jsonl, one line per event.
//
//   {"time":"2026-11-21T20:15:02.125Z","event":"peer_lost","stage":1,"pid":123,"reason":"..."}
#ifndef STARLING_RUNTIME_OBSERVE_EVENTS_WRITER_H_
#define STARLING_RUNTIME_OBSERVE_EVENTS_WRITER_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "runtime/base/event.h"
#include "runtime/observe/line_file.h"

namespace starling {

// Without the newline. `now` is wall time.
std::string ToEventLine(absl::Time now, const Event& event);

class EventsWriter {
 public:
  explicit EventsWriter(std::unique_ptr<LineFile> file) : file_(std::move(file)) {}

  void Write(absl::Time now, const Event& event) { file_->Write(ToEventLine(now, event)); }

 private:
  const std::unique_ptr<LineFile> file_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_OBSERVE_EVENTS_WRITER_H_
