// `starling-sim`: what `starling sim` becomes. The virtual world from the command line.
#include <chrono>
#include <cstdio>
#include <iterator>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#ifdef STARLING_PLANT_BUGS
#include "tests/sim/planted_bugs.h"
#endif
#include "tests/sim/search.h"

namespace starling::sim {
namespace {

constexpr int kFound = 1;
constexpr int kUsage = 2;

#ifdef STARLING_PLANT_BUGS
void AddPlanting(CLI::App* app) {
  app->add_option_function<std::string>(
         "--plant", [](const std::string& name) { PlantBug(*BugOf(name)); },
         "Turn this mistake on: a name of runtime/base/planted.h, as in docs/testing.md")
      ->check(
          [](const std::string& name) { return BugOf(name) ? "" : "no bug is called " + name; });
}
#else
void AddPlanting(CLI::App* app) {}
#endif

struct Arguments {
  WorldChoice world;
  uint64_t seeds = 0;
  uint64_t first = 1;
  std::string faults = "all";
  std::string trace = "short";
  bool hashes = false;
  bool stop = false;
};

// How long the user has been waiting; the worlds have clocks of their own.
class Stopwatch {
 public:
  double Seconds() const { return std::chrono::duration<double>(Now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;  // style: allow
  static Clock::time_point Now() { return Clock::now(); }
  const Clock::time_point start_ = Now();
};

void PrintVerdict(uint64_t seed, const SeedResult& result) {
  for (const std::string& violation : result.violations) {
    std::printf("violation: %s\n", violation.c_str());
  }
  std::printf("trace hash %s\n", ToHex(result.trace_hash).c_str());
  std::printf("verdict: seed %llu %s: %llu steps, %llu events, %.3f virtual seconds\n",
              static_cast<unsigned long long>(seed),  // NOLINT: what %llu takes
              result.ok() ? "ok" : "VIOLATES",
              static_cast<unsigned long long>(result.steps),   // NOLINT
              static_cast<unsigned long long>(result.events),  // NOLINT
              absl::ToDoubleSeconds(result.virtual_time));
}

// The command that runs `seed` alone in the same world.
std::string CommandFor(uint64_t seed, const Arguments& arguments) {
  const WorldChoice& world = arguments.world;
  std::string command = absl::StrCat("starling sim --seed ", seed);
  if (arguments.faults != "all") absl::StrAppend(&command, " --faults ", arguments.faults);
  if (world.liveness) absl::StrAppend(&command, " --liveness");
  if (world.lossy) absl::StrAppend(&command, *world.lossy ? " --lossy" : " --raw");
  if (world.tied) absl::StrAppend(&command, " --tied ", *world.tied ? "true" : "false");
  if (world.delayed) absl::StrAppend(&command, *world.delayed ? " --delayed" : " --undelayed");
  if (world.stages) absl::StrAppend(&command, " --stages ", *world.stages);
  if (world.replicas) absl::StrAppend(&command, " --replicas ", *world.replicas);
  if (world.microbatches) absl::StrAppend(&command, " --microbatches ", *world.microbatches);
  if (world.steps) absl::StrAppend(&command, " --steps ", *world.steps);
  return command;
}

int RunOne(const Arguments& arguments) {
  const TraceDetail detail = arguments.trace == "full"    ? TraceDetail::kFull
                             : arguments.trace == "short" ? TraceDetail::kShort
                                                          : TraceDetail::kNone;
  const SeedResult result =
      RunSeed(arguments.world, detail, [](const std::string& line) { std::puts(line.c_str()); });
  PrintVerdict(arguments.world.seed, result);
  return result.ok() ? 0 : kFound;
}

int RunMany(Arguments arguments) {
  const Stopwatch watch;
  double said = 0;
  uint64_t steps = 0;
  uint64_t bad = 0;
  for (uint64_t done = 0; done < arguments.seeds; ++done) {
    const uint64_t seed = arguments.first + done;
    if (arguments.stop) {  // said before, for the run may abort
      std::printf("seed %llu\n", static_cast<unsigned long long>(seed));  // NOLINT
      std::fflush(stdout);
    }
    arguments.world.seed = seed;
    const SeedResult result = RunSeed(arguments.world);
    steps += result.steps;
    if (arguments.hashes) {
      std::printf("seed %llu %s\n", static_cast<unsigned long long>(seed),  // NOLINT
                  ToHex(result.trace_hash).c_str());
    }
    if (!result.ok()) {
      ++bad;
      PrintVerdict(seed, result);
      std::printf("replay: %s\n", CommandFor(seed, arguments).c_str());
      if (arguments.stop) return kFound;
    }
    const double seconds = watch.Seconds();
    const bool last = done + 1 == arguments.seeds;
    if (last || seconds - said >= 5) {
      said = seconds;
      std::printf("%llu of %llu seeds, %llu with violations; %.0f s, %.1f seeds/s, %.0f steps/s\n",
                  static_cast<unsigned long long>(done + 1),         // NOLINT
                  static_cast<unsigned long long>(arguments.seeds),  // NOLINT
                  static_cast<unsigned long long>(bad), seconds,     // NOLINT
                  static_cast<double>(done + 1) / seconds, static_cast<double>(steps) / seconds);
      std::fflush(stdout);
    }
  }
  return bad == 0 ? 0 : kFound;
}

// Two flags of which at most one is given; neither: as drawn.
void AddEither(CLI::App* app, std::optional<bool>* choice, const char* yes, const char* yes_help,
               const char* no, const char* no_help) {
  auto* chosen = app->add_flag_callback(
      yes, [choice] { *choice = true; }, yes_help);
  app->add_flag_callback(
         no, [choice] { *choice = false; }, no_help)
      ->excludes(chosen);
}

void AddOptions(CLI::App* app, Arguments* arguments) {
  WorldChoice& world = arguments->world;
  auto* seed =
      app->add_option("--seed", world.seed, "Replay this seed's world")->capture_default_str();
  auto* seeds = app->add_option("--seeds", arguments->seeds, "Search this many seeds")
                    ->check(CLI::PositiveNumber);
  seeds->excludes(seed);
  app->add_option("--first", arguments->first, "The first of them")
      ->needs(seeds)
      ->capture_default_str();
  app->add_flag("--hashes", arguments->hashes, "Print the trace hash of each")->needs(seeds);
  app->add_flag("--stop", arguments->stop, "End at the first violation")->needs(seeds);
  app->add_option("--trace", arguments->trace, "full, short or none")
      ->check(CLI::IsMember({"full", "short", "none"}))
      ->excludes(seeds)
      ->capture_default_str();
  app->add_flag("--liveness", world.liveness,
                "After the faults only a core is left, for good: it must go on");
  AddEither(app, &world.lossy, "--lossy", "int8 boundaries and bf16 rounds, instead of as drawn",
            "--raw", "Raw ones");
  app->add_option("--tied", world.tied,
                  "true or false, instead of what is drawn: the first and the last stage share a "
                  "parameter");
  AddEither(app, &world.delayed, "--delayed", "With delayed commit, instead of as drawn",
            "--undelayed", "Without");
  app->add_option("--faults", arguments->faults,
                  "Kinds to draw from: all, none, or names; \"all,-clog\" leaves one out")
      ->capture_default_str();
  app->add_option("--stages", world.stages, "Instead of what is drawn")->check(CLI::Range(1, 1000));
  app->add_option("--replicas", world.replicas, "The same")->check(CLI::Range(1, 1000));
  app->add_option("--microbatches", world.microbatches, "The same")->check(CLI::Range(1, 4096));
  app->add_option("--steps", world.steps, "The same")->check(CLI::Range(1, 1000000));
}

int Main(int argc, char** argv) {
  CLI::App app("The virtual world: the swarm's own code, with drawn faults, checked at every event",
               "starling sim");
  Arguments arguments;
  AddOptions(&app, &arguments);
  AddPlanting(&app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : kUsage;
  }
  const auto faults = FaultSet::Parse(arguments.faults);
  if (!faults.ok()) {
    std::fprintf(stderr, "starling: %s\n", std::string(faults.status().message()).c_str());
    return kUsage;
  }
  arguments.world.faults = *faults;
  return arguments.seeds > 0 ? RunMany(arguments) : RunOne(arguments);
}

}  // namespace
}  // namespace starling::sim

int main(int argc, char** argv) { return starling::sim::Main(argc, argv); }
