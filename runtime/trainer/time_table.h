// TimeTable: where the replicas' time went, of late and since they joined, for the bottleneck
// report (bottleneck.h).
//
// Reactor thread; a step costs a few additions per replica.
#ifndef STARLING_RUNTIME_TRAINER_TIME_TABLE_H_
#define STARLING_RUNTIME_TRAINER_TIME_TABLE_H_

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/step_times.h"
#include "runtime/trainer/bottleneck.h"
#include "runtime/trainer/observer.h"

namespace starling {

enum class TimeSpan : uint8_t {
  kRecent,  // about the last eight steps, newer ones counting more
  kWhole,   // of each replica all its steps
};

class TimeTable {
 public:
  struct StepFacts {
    double feeding_s = 0;
    uint64_t bytes_forward = 0;
    uint64_t outputs = 0;  // that those bytes were of
  };
  // Replicas that are not in it have left.
  void OnStep(const std::vector<ReplicaTimes>& times, const StepFacts& facts);

  // Without what the configuration says: microbatches, in_flight, codecs.
  TimePicture Picture(TimeSpan span) const;

 private:
  // A sum of steps of which older ones may count less.
  struct Sum {
    double steps = 0;
    std::array<double, kStepParts> ns{};
    double microbatches = 0;
    double sent = 0;
    double sending_ns = 0;

    void Add(const StepTimes& times, double keep);
  };
  struct Row {
    StageId stage{0};
    Sum recent;
    Sum whole;
  };
  struct Facts {
    double steps = 0;
    double feeding_s = 0;
    double bytes = 0;
    double outputs = 0;

    void Add(const StepFacts& facts, double keep);
  };

  std::map<Incarnation, Row> rows_;
  Facts recent_;
  Facts whole_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_TIME_TABLE_H_
