// ProgressPrinter: what a person sees of a run, line by line.
//
//   step  57/200  loss 2.8121  norm 0.914  lr 2.91e-03  9312 tok/s  replicas 2/2/2  eta 1:04
//            lost replica of stage 1 (pid 123): connection lost
//
// Steps come with StepReport, everything else as events; events with nothing for a person to see
// (hashes, arrivals) are left out. Colour only on a terminal. Reads no clock.
#ifndef STARLING_RUNTIME_OBSERVE_PROGRESS_PRINTER_H_
#define STARLING_RUNTIME_OBSERVE_PROGRESS_PRINTER_H_

#include <cstdint>
#include <functional>
#include <string>

#include "runtime/base/event.h"
#include "runtime/trainer/observer.h"

namespace starling {

class ProgressPrinter {
 public:
  struct Options {
    int64_t total_steps = 0;
    bool terminal = false;
  };
  using Print = std::function<void(const std::string& line)>;  // without the newline

  ProgressPrinter(Options options, Print print) : options_(options), print_(std::move(print)) {}

  void OnStep(const StepReport& report);
  void OnEvent(const Event& event);
  // Any other sentence, set off in the same way.
  void Say(const std::string& sentence);

 private:
  const Options options_;
  const Print print_;
  double smooth_step_s_ = 0;
  int64_t steps_seen_ = 0;
};

// One sentence for a person; empty if there is nothing to say.
std::string ToSentence(const Event& event);

// "0:07", "1:02:03".
std::string FormatSeconds(double seconds);

}  // namespace starling

#endif  // STARLING_RUNTIME_OBSERVE_PROGRESS_PRINTER_H_
