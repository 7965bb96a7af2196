// `starling-bench`: what `starling bench` becomes (exec). Measured numbers of this machine, each
// beside what it should be compared with, taken in turn in the same run.
#include <stdlib.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "bench/bench.h"
#include "bench/google_bench.h"
#include "runtime/app/child_process.h"
#include "runtime/app/heap.h"
#include "runtime/app/threads.h"
#include "runtime/app/version.h"

namespace starling::bench {
namespace {

#ifdef STARLING_GOOGLE_BENCHMARK
constexpr auto kHot = RunHot;
constexpr auto kScale = RunScale;
#else
absl::StatusOr<nlohmann::json> LeftOut(const BenchOptions&) {
  std::printf("\nLeft out: this was built without Google Benchmark (Debian: libbenchmark-dev)\n");
  return nlohmann::json();
}
constexpr auto kHot = LeftOut;
constexpr auto kScale = LeftOut;
#endif

struct NamedSection {
  const char* name;
  const char* what;
  Section run;
};

const std::vector<NamedSection>& Sections() {
  static const auto* const all = new std::vector<NamedSection>{
      {"codecs", "the codecs of tensors against memcpy, one core", RunCodecs},
      {"hot", "envelopes, the mailbox, rounds, the update, snapshots, without a link", kHot},
      {"scale", "wiring, ledger, placement, plans and Views for 10 to 10,000", kScale},
      {"transfer", "tensors over tcp and ipc, against a plain socket program", RunTransfer},
      {"hop", "from one replica's device to the next one's, nothing computed", RunHops},
      {"commit", "the end of a step in a stage of two replicas", RunCommit},
      {"training", "swarms of several shapes against one process", RunTraining},
  };
  return *all;
}

std::string Processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

double LoadAverage() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : -1;
}

std::string StarlingProgram() {
  const std::string self = ProgramPath();
  return absl::StrCat(self.substr(0, self.rfind('/') + 1), "starling");
}

int Main(int argc, char** argv) {
  CLI::App app("Measured numbers of this machine", "starling bench");
  BenchOptions options;
  std::vector<std::string> what;
  std::string json;
  std::string help = "What to measure; all of it if nothing is named:";
  std::vector<std::string> names;
  for (const NamedSection& section : Sections()) {
    names.emplace_back(section.name);
    absl::StrAppend(&help, "\n", section.name, ": ", section.what);
  }
  app.add_option("what", what, help)->check(CLI::IsMember(names));
  app.add_flag("--short", options.short_form, "That it works, not how fast: fewer rounds");
  app.add_option("--rounds", options.rounds, "Of everything that is taken in turn")
      ->check(CLI::Range(1, 1000));
  app.add_option("--shapes", options.shapes, "training: STAGESxREPLICAS of the swarms, with commas")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  app.add_option("--peer", options.peers,
                 "training: NAME=COMMAND, taken in turn with the others; it prints a line of JSON "
                 "with step_s for each step, of as many tokens; repeatable")
      ->allow_extra_args(false);
  app.add_option("--set", options.overrides,
                 "training: section.key=value of the run file; repeatable")
      ->allow_extra_args(false);
  app.add_option("--json", json, "Write everything measured to this file");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "starling: %s; see starling bench --help\n", error.what());
    return 2;
  }
  if (what.empty()) what = names;
  options.program = StarlingProgram();
  nlohmann::json results;
  const double load = LoadAverage();
  std::printf("%s, %d cores, load average %.1f, starling %s\n", Processor().c_str(), Cores(), load,
              StarlingVersion());
  for (const NamedSection& section : Sections()) {
    if (std::find(what.begin(), what.end(), section.name) == what.end()) continue;
    const absl::StatusOr<nlohmann::json> result = section.run(options);
    if (!result.ok()) {
      std::fprintf(stderr, "starling: bench %s: %s\n", section.name,
                   std::string(result.status().message()).c_str());
      return 1;
    }
    results[section.name] = *result;
  }
  if (json.empty()) return 0;
  results["about"] = {{"processor", Processor()},
                      {"cores", Cores()},
                      {"load_before", load},
                      {"load_after", LoadAverage()},
                      {"version", StarlingVersion()}};
  std::ofstream file(json);
  file << results.dump(1) << "\n";
  if (file.flush()) return 0;
  std::fprintf(stderr, "starling: cannot write %s\n", json.c_str());
  return 1;
}

}  // namespace
}  // namespace starling::bench

int main(int argc, char** argv) {
  starling::KeepFreedMemory();  // as the programs that it measures
  return starling::bench::Main(argc, argv);
}
