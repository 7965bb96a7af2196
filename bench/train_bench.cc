// How fast a swarm on this machine trains, beside one process and beside whatever else is named, in
// turn.
//
// Every contender trains the same model (10.9 M parameters unless told otherwise) with the same 16
// microbatches per step, one after the other, in every round:
//
//   single    starling train --single-process, two threads: the baseline
//   2x1 ...   a swarm of 2 stages of 1 replica each, and so on, one thread each
//   others    commands given as --peer NAME=COMMAND, which print a line of JSON with "step_s" per
//             step
//   control   the baseline once more
//
// Of each run the tokens/s of the median step counts, without those at its start; of all rounds the
// median. "step end" is what the end of a step takes, by the replicas' own account (`time` in
// metrics.jsonl): the share of their steps in which they reduce, wait for the decision or apply,
// median over replicas, steps and rounds. Where control and baseline differ by more than 5 % in a
// round, the table says so: then the machine was not quiet enough to tell such differences.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "bench/bench.h"
#include "bench/loopback_run.h"
#include "runtime/app/child_process.h"
#include "runtime/base/status_macros.h"
#include "runtime/config/run_file.h"

namespace starling::bench {
namespace {

constexpr char kBaseline[] = "single";
constexpr char kControl[] = "control";
constexpr char kEndShape[] = "3x2";  // whose steps' end has a goal
constexpr double kEndGoal = 0.05;

struct Contender {
  std::string name;
  std::vector<std::string> arguments;  // of `starling train RUN_FILE`
  std::string command;                 // or this, for a shell
};

// Of the steps of one run, without those at its start.
struct Run {
  std::vector<double> step_s;
  std::vector<double> ends;  // of each step and replica that told: the share of its end
  double cpu_s = 0;          // of it and its children
};

std::string RunToml(const ScratchFolder& scratch, int steps) {
  return absl::StrCat(
      "[model]\npreset = \"gpt\"\nlayers = 6\nwidth = 384\nheads = 6\ncontext = 128\n",
      "[data]\ntext = [\"", scratch.text(), "\"]\n[train]\nsteps = ", steps,
      "\nglobal_batch = 32\nmicrobatch = 2\neval_every = 0\n[optimizer]\nlr = "
      "1e-3\n[swarm]\nstages = 1\n",
      "[checkpoint]\nevery = 0\n");
}

// "2x1": 2 stages of 1 replica.
absl::StatusOr<Contender> Swarm(const std::string& shape) {
  const std::vector<std::string> parts = absl::StrSplit(shape, 'x');
  const auto is_count = [](const std::string& text) {
    return !text.empty() && text.size() < 4 &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  if (parts.size() != 2 || !is_count(parts[0]) || !is_count(parts[1])) {
    return absl::InvalidArgumentError(
        absl::StrCat("no swarm has the shape ", shape, ": write STAGESxREPLICAS, as in 2x1"));
  }
  return Contender{shape,
                   {absl::StrCat("--swarm.stages=", parts[0]),
                    absl::StrCat("--local.replicas=[", parts[1], "]"), "--local.threads=[1]"},
                   ""};
}

absl::StatusOr<std::vector<Contender>> Contenders(const BenchOptions& options) {
  const Contender single{kBaseline, {"--single-process", "--local.threads=[2]"}, ""};
  std::vector<Contender> all = {single};
  for (const std::string& shape : options.shapes) {
    STARLING_ASSIGN_OR_RETURN(all.emplace_back(), Swarm(shape));
  }
  for (const std::string& peer : options.peers) {
    const size_t equals = peer.find('=');
    if (equals == std::string::npos || equals == 0) {
      return absl::InvalidArgumentError(absl::StrCat("--peer ", peer, ": write NAME=COMMAND"));
    }
    all.push_back({peer.substr(0, equals), {}, peer.substr(equals + 1)});
  }
  all.push_back({kControl, single.arguments, ""});
  return all;
}

std::string FileText(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Of what a replica told of a step: the share in which it did nothing but end it.
double EndShare(const nlohmann::json& replica) {
  double all = 0;
  double end = 0;
  for (const auto& [part, seconds] : replica.items()) {
    if (part == "stage" || part == "replica" || part == "replicas") continue;
    all += seconds.get<double>();
    if (part == "reducing" || part == "deciding" || part == "applying")
      end += seconds.get<double>();
  }
  return all > 0 ? end / all : 0;
}

// From lines of JSON with "step_s", those without the first `warm`.
Run ReadSteps(const std::string& path, int warm) {
  Run run;
  std::istringstream lines(FileText(path));
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("step_s") || warm-- > 0) continue;
    run.step_s.push_back(json["step_s"]);
    if (!json.contains("time")) continue;
    for (const nlohmann::json& replica : json["time"]) run.ends.push_back(EndShare(replica));
  }
  return run;
}

class Rounds {
 public:
  Rounds(const BenchOptions& options, const ScratchFolder& scratch, std::string run_file, int warm)
      : options_(options), scratch_(scratch), run_file_(std::move(run_file)), warm_(warm) {}

  absl::StatusOr<Run> Take(const Contender& contender) {
    const std::string base = absl::StrCat(scratch_.path(), "/", contender.name, "-", ++runs_);
    SpawnOptions spawn;
    spawn.log = base + ".log";
    std::string steps = spawn.log;
    if (contender.command.empty()) {
      spawn.program = options_.program;
      spawn.arguments = {"starling", "train", run_file_, "--run-dir", base};
      for (const std::string& key : options_.overrides) spawn.arguments.push_back("--" + key);
      spawn.arguments.insert(spawn.arguments.end(), contender.arguments.begin(),
                             contender.arguments.end());
      steps = base + "/metrics.jsonl";
    } else {
      spawn.program = "/bin/sh";
      spawn.arguments = {"sh", "-c", contender.command};
    }
    STARLING_ASSIGN_OR_RETURN(const pid_t pid, Spawn(spawn));
    int status = 0;
    rusage used{};
    wait4(pid, &status, 0, &used);
    Run run = ReadSteps(steps, warm_);
    if (status != 0 || run.step_s.empty()) {
      return absl::InternalError(absl::StrCat(contender.name, " failed (", DescribeExit(status),
                                              "): ", FileText(spawn.log)));
    }
    const auto seconds = [](const timeval& t) {
      return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
    };
    run.cpu_s = seconds(used.ru_utime) + seconds(used.ru_stime);
    return run;
  }

 private:
  const BenchOptions& options_;
  const ScratchFolder& scratch_;
  const std::string run_file_;
  const int warm_;
  int runs_ = 0;
};

struct Result {
  std::vector<double> tokens_per_s;  // by round
  std::vector<double> cpu_s;
  std::vector<double> ends;  // of all rounds
};
using Results = std::map<std::string, Result>;

// The largest difference of control and baseline in one round.
double ControlSpread(const Results& results) {
  double most = 0;
  const std::vector<double>& single = results.at(kBaseline).tokens_per_s;
  const std::vector<double>& control = results.at(kControl).tokens_per_s;
  for (size_t i = 0; i < single.size(); ++i)
    most = std::max(most, std::abs(control[i] / single[i] - 1));
  return most;
}

nlohmann::json Show(const std::vector<Contender>& contenders, const Results& results) {
  nlohmann::json rows;
  const double baseline = Median(results.at(kBaseline).tokens_per_s);
  std::printf("%-12s %10s %10s %10s %9s  %s\n", "", "tokens/s", "of single", "CPU s/run",
              "step end", "rounds");
  for (const Contender& contender : contenders) {
    const Result& result = results.at(contender.name);
    const double rate = Median(result.tokens_per_s);
    const std::string end =
        result.ends.empty() ? "" : absl::StrFormat("%.1f %%", 100 * Median(result.ends));
    std::printf("%-12s %10.0f %10.3f %10.1f %9s ", contender.name.c_str(), rate, rate / baseline,
                Median(result.cpu_s), end.c_str());
    for (const double round : result.tokens_per_s) std::printf(" %.0f", round);
    std::printf("\n");
    rows[contender.name] = {{"tokens_per_s", rate},
                            {"of_single", rate / baseline},
                            {"rounds", result.tokens_per_s},
                            {"cpu_s", Median(result.cpu_s)}};
    if (!end.empty()) {
      rows[contender.name]["end_share"] = Median(result.ends);
      rows[contender.name]["ends"] = result.ends.size();
    }
  }
  if (const auto shape = results.find(kEndShape); shape != results.end()) {
    std::printf("the end of a step in %s, median of %zu: %.1f %% of it; goal: at most %.0f %%\n",
                kEndShape, shape->second.ends.size(), 100 * Median(shape->second.ends),
                100 * kEndGoal);
    rows[kEndShape]["end_goal"] = kEndGoal;
  }
  const double spread = ControlSpread(results);
  return {{"contenders", rows}, {"control_spread", spread}, {"trusted", ShowControl(spread)}};
}

}  // namespace

absl::StatusOr<nlohmann::json> RunTraining(const BenchOptions& options) {
  const int rounds = options.rounds > 0 ? options.rounds : options.short_form ? 1 : 5;
  const int warm = options.short_form ? 1 : 2;
  const int steps = options.short_form ? 4 : 9;
  const ScratchFolder scratch;
  const std::string run_file = scratch.path() + "/bench.toml";
  std::ofstream(run_file) << RunToml(scratch, steps);
  STARLING_ASSIGN_OR_RETURN(const RunConfig config,
                            ParseRunFile(FileText(run_file), run_file, options.overrides));
  STARLING_ASSIGN_OR_RETURN(const std::vector<Contender> contenders, Contenders(options));
  const double tokens = static_cast<double>(config.train.global_batch * config.model.context);
  std::printf("\nTraining: tokens/s of the median step, median of %d rounds in turn\n", rounds);
  Rounds runs(options, scratch, run_file, warm);
  Results results;
  for (int round = 1; round <= rounds; ++round) {
    for (const Contender& contender : contenders) {
      STARLING_ASSIGN_OR_RETURN(const Run run, runs.Take(contender));
      Result& result = results[contender.name];
      result.tokens_per_s.push_back(tokens / Median(run.step_s));
      result.cpu_s.push_back(run.cpu_s);
      result.ends.insert(result.ends.end(), run.ends.begin(), run.ends.end());
      std::fprintf(stderr, "round %d %s: %.0f tokens/s\n", round, contender.name.c_str(),
                   result.tokens_per_s.back());
    }
  }
  nlohmann::json json = Show(contenders, results);
  json["tokens_per_step"] = tokens;
  return json;
}

}  // namespace starling::bench
