#include "tests/sim/search.h"

namespace starling::sim {
namespace {

constexpr absl::Duration kLimit = absl::Minutes(30);
// Enough that a core still has steps to take when the faults are over.
constexpr int64_t kStepsForLiveness = 400;

}  // namespace

SwarmOptions OptionsOf(const WorldChoice& choice) {
  SwarmOptions options = SwarmOptions::Drawn(choice.seed, choice.faults);
  options.liveness = choice.liveness;
  if (choice.lossy) options.lossy = *choice.lossy;
  if (choice.tied) options.tied = *choice.tied;
  if (choice.liveness) options.steps = kStepsForLiveness;
  if (choice.delayed) options.delayed = *choice.delayed;
  if (choice.stages) options.stages = *choice.stages;
  if (choice.replicas) options.replicas = *choice.replicas;
  if (choice.microbatches) options.microbatches = *choice.microbatches;
  if (choice.steps) options.steps = *choice.steps;
  return options;
}

SeedResult RunSeed(const WorldChoice& choice, TraceDetail detail, const LineSink& sink) {
  SwarmWorld swarm(OptionsOf(choice));
  if (sink != nullptr) {
    sink(swarm.Parameters());
    if (detail != TraceDetail::kNone) {
      swarm.SetTraceSink(sink, detail == TraceDetail::kFull);
    }
  }
  SeedResult result;
  result.ended = choice.liveness ? swarm.RunLiveness() : swarm.RunToEnd(kLimit);
  result.violations = swarm.violations();
  World& world = swarm.world();
  result.trace_hash = world.trace().hash();
  result.steps = swarm.steps().size();
  result.events = world.scheduler().events_run();
  result.virtual_time = world.Now() - world.start();
  return result;
}

}  // namespace starling::sim
