// Bottleneck: what limits a run, and what would help, in words, from where its replicas' time went.
//
// Each cause is weighed by the share of the step that would be saved if it were gone, by the
// arithmetic of a pipeline:
//
//   A microbatch passes every stage, so the stage that computes most sets the pace. Where it
//   computes more than the others (on average), cuts or replicas are wrong by the difference.
//   What it waits is looked for where it can come from. With M microbatches, R replicas of that
//   stage, c seconds of computing per microbatch there and C at all stages together:
//     too few microbatches  while the first go down and the last come back, C - c s pass
//     too few in flight     a microbatch is away for C s, so w of them keep w / C per second going;
//                           where that is less than R / c, the stage waits
//     links                 the same with the way from stage to stage added to C
//   The end of the step, evaluations, copies of the state, codecs, threads and the reading of data
//   take what they take.
//
// Nothing is blamed for less than kLeastBlame of the step: then computing is what it is, and the
// run is balanced. Waiting that none of these explains counts from kLeastUnexplained on: passes
// that take now longer, now shorter make a pipeline wait here and there. Pure functions; any
// thread.
#ifndef STARLING_RUNTIME_TRAINER_BOTTLENECK_H_
#define STARLING_RUNTIME_TRAINER_BOTTLENECK_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/encoding.h"
#include "runtime/base/ids.h"
#include "runtime/base/step_times.h"

namespace starling {

constexpr double kLeastBlame = 0.10;
constexpr double kLeastUnexplained = 0.20;

// One replica's time of a step, on the average over some steps.
struct MeanTimes {
  Incarnation replica;
  StageId stage{0};
  std::array<double, kStepParts> seconds{};
  double microbatches = 0;  // whose backward pass it ran, per step
  double sending_s = 0;     // from sending an output until the next stage had it; 0: not known

  double operator[](StepPart part) const { return seconds[static_cast<size_t>(part)]; }
  double& operator[](StepPart part) { return seconds[static_cast<size_t>(part)]; }
  double total_s() const;
  double busy_s() const;                                      // passes, with codecs and threads
  double passes_s() const;                                    // those of training
  double busy_share() const { return busy_s() / total_s(); }  // where total_s() is above 0
  double share(StepPart part) const;
};

// A run, seen by its trainer.
struct TimePicture {
  std::vector<MeanTimes> replicas;       // of all stages, by name; some may have no times (yet)
  double microbatches = 0;               // of a step
  double in_flight = 0;                  // at most: swarm.window
  double feeding_s = 0;                  // of a step: the trainer's reading of data
  double boundary_bytes = 0;             // of one output, as sent
  Encoding boundaries = Encoding::kRaw;  // the wider of both directions
  Encoding round = Encoding::kRaw;
};

enum class Cause : uint8_t {
  kUnknown,          // no replica has told its times yet
  kComputing,        // nothing else stands out
  kStage,            // one stage computes more than the others
  kReplica,          // one replica is slower than its siblings, and they wait for it
  kFewMicrobatches,  // per step
  kWindow,           // too few microbatches in flight
  kLinks,            // between stages
  kSlots,            // outputs that the next stage does not take
  kWaiting,          // for input, and none of these says why
  kData,             // the trainer's reading
  kRound,            // gradients are summed and agreed on
  kUpdate,           // the optimizer
  kEvaluation,
  kCopies,   // of the state: checkpoints, newcomers, hashes
  kCodecs,   // of boundaries
  kThreads,  // handing work from thread to thread
};
const char* ToString(Cause cause);  // "stage", "links", ...

struct Bottleneck {
  Cause cause = Cause::kUnknown;
  std::optional<StageId> stage;
  double share = 0;    // of the step, that would be saved at most
  double speedup = 1;  // at most, if it were gone
  std::string reason;  // a sentence
  std::string advice;  // another; may be empty
};

// Every cause that is to blame, the gravest first; never empty.
std::vector<Bottleneck> FindBottlenecks(const TimePicture& picture);

// Reason and advice, as sentences, with what it would bring at most.
std::string ToWords(const Bottleneck& found);

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_BOTTLENECK_H_
