// What the end of a step costs in a stage of two replicas: from the moment the later of them has
// sealed its segments to the moment the later of them has applied the update. In it are the round
// (pieces, sums, results), its hashes and norm, the decision with its sync, the update and the hash
// of the new state.
//
// Real peers and LibTorch devices of one thread each, over TCP on loopback, trainer in a process of
// its own. In the same run, in turn, what cannot be done without: half an addition pass and a whole
// AdamW pass by each replica, both at the same time, and the bytes that travel (each replica sends
// half a gradient and half a result: two gradients in all) at the speed of a plain TCP connection.
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/bench.h"
#include "bench/loopback_run.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/config/run_file.h"
#include "stages/model_layout.h"
#include "stages/optimizer.h"
#include "stages/torch_executor.h"

namespace starling::bench {
namespace {

constexpr double kGoal = 1.4;
constexpr uint32_t kReplicas = 2;

std::string RunToml(bool short_form) {
  return absl::StrCat("[model]\nlayers = ", short_form ? 1 : 6,
                      "\nwidth = 512\nheads = 8\ncontext = 16\n",
                      "[train]\nsteps = ", short_form ? 4 : 12,
                      "\nglobal_batch = 8\nmicrobatch = 1\neval_every = 0\nhash_every = 0\n",
                      "[swarm]\nstages = 1\nrebalance = \"0s\"\nverify_every = 0\n");
}

absl::StatusOr<std::unique_ptr<StageExecutor>> TorchDevice(const RunConfig& config, StageId stage) {
  TorchExecutor::Options options;
  options.model = config.model;
  options.layers = StageRanges(config)[Value(stage)];
  options.stage = stage;
  options.seed = config.train.seed;
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<TorchExecutor> device, TorchExecutor::Create(options));
  return std::unique_ptr<StageExecutor>(std::move(device));
}

// Of one step, in milliseconds.
struct Commit {
  double plan = 0;    // sealed to the first replica's segments being read: the trainer's answer
  double reduce = 0;  // to the first update: the round and the decision
  double apply = 0;   // to the end of the last one
  double all = 0;
};

double Ms(Clock::duration duration) { return 1e3 * Seconds(duration); }

// The calls of each replica, in order.
using Calls = std::map<uint32_t, std::vector<DeviceEvent>>;

const DeviceEvent* Last(const std::vector<DeviceEvent>& calls, DeviceCall call, Step step) {
  const DeviceEvent* found = nullptr;
  for (const DeviceEvent& event : calls) {
    if (event.call == call && event.step == step) found = &event;
  }
  return found;
}

const DeviceEvent* ApplyAfter(const std::vector<DeviceEvent>& calls, Clock::time_point after) {
  for (const DeviceEvent& event : calls) {
    if (event.call == DeviceCall::kApply && event.begin >= after) return &event;
  }
  return nullptr;
}

// Of the steps that both replicas took part in, without the first two of these.
std::vector<Commit> Commits(const std::vector<DeviceEvent>& events, uint64_t steps) {
  Calls calls;
  for (const DeviceEvent& event : events) calls[event.replica].push_back(event);
  std::vector<Commit> commits;
  for (uint64_t number = 1; number <= steps; ++number) {
    const Step step{number};
    Clock::time_point sealed{};
    Clock::time_point applied{};
    Clock::time_point read = Clock::time_point::max();
    Clock::time_point update = Clock::time_point::max();
    uint32_t members = 0;
    for (const auto& [replica, own] : calls) {
      const DeviceEvent* const seal = Last(own, DeviceCall::kSeal, step);
      const DeviceEvent* const reading = Last(own, DeviceCall::kRead, step);
      if (seal == nullptr || reading == nullptr) continue;
      const DeviceEvent* const apply = ApplyAfter(own, reading->end);
      if (apply == nullptr) continue;
      sealed = std::max(sealed, seal->end);
      read = std::min(read, reading->begin);
      update = std::min(update, apply->begin);
      applied = std::max(applied, apply->end);
      ++members;
    }
    if (members != kReplicas) continue;
    commits.push_back(
        {Ms(read - sealed), Ms(update - read), Ms(applied - update), Ms(applied - sealed)});
  }
  commits.erase(
      commits.begin(),
      commits.begin() + std::min<std::ptrdiff_t>(2, static_cast<std::ptrdiff_t>(commits.size())));
  return commits;
}

double MedianOf(const std::vector<Commit>& commits, double Commit::*part) {
  std::vector<double> values;
  for (const Commit& commit : commits) values.push_back(commit.*part);
  return Median(std::move(values));
}

// What a replica has to do at least, on memory of its own.
class Floor {
 public:
  explicit Floor(StageLayout layout)
      : layout_(std::move(layout)),
        state_(static_cast<size_t>(kStatePlanes * layout_.size), 0.5f),
        gradient_(Blob::OfFloats(std::vector<float>(static_cast<size_t>(layout_.size), 0.25f))),
        sum_(static_cast<size_t>(layout_.size) / kReplicas, 1.0f) {}

  void Add() {
    const float* const other = gradient_.As<float>().data();
    for (size_t i = 0; i < sum_.size(); ++i) sum_[i] += other[i];
  }
  void Update() {
    UpdateScalars scalars;
    scalars.step_size = 1e-3f;
    STARLING_CHECK(ApplyAdamW(layout_, scalars, {gradient_}, absl::MakeSpan(state_)).ok());
  }

 private:
  const StageLayout layout_;
  std::vector<float> state_;
  const Blob gradient_;
  std::vector<float> sum_;
};

}  // namespace

absl::StatusOr<nlohmann::json> RunCommit(const BenchOptions& options) {
  const int rounds = options.rounds > 0 ? options.rounds : options.short_form ? 1 : 5;
  LoopbackOptions run;
  run.program = options.program;
  run.run_toml = RunToml(options.short_form);
  run.replicas = {kReplicas};
  run.device = TorchDevice;
  STARLING_ASSIGN_OR_RETURN(
      const RunConfig config,
      ParseRunFile(run.run_toml + "[data]\ntext = [\"*\"]\n", "the bench's run", {}));
  const StageLayout layout = WholeModelLayout(config.model);
  const double gradient_bytes = 4.0 * static_cast<double>(layout.size);
  std::printf(
      "\nCommit of a stage of 2 replicas, %.1f MB of parameters, milliseconds, medians of a run's "
      "steps\n",
      gradient_bytes / 1e6);
  std::printf("%-6s %7s %7s %7s %7s | %6s %7s %7s %7s | %6s\n", "round", "commit", "plan", "round",
              "apply", "add", "adamw", "bytes", "sum", "ratio");
  nlohmann::json rows = nlohmann::json::array();
  std::vector<double> ratios;
  for (int round = 1; round <= rounds; ++round) {
    double add = 0;
    double update = 0;
    {
      Floor first(layout);
      Floor second(layout);
      Floor* const floors[] = {&first, &second};
      std::vector<double> adds;
      std::vector<double> updates;
      for (int i = 0; i < 5; ++i) {
        adds.push_back(1e3 * OnTwoThreads([&floors](int who) { floors[who]->Add(); }));
        updates.push_back(1e3 * OnTwoThreads([&floors](int who) { floors[who]->Update(); }));
      }
      add = Median(adds);
      update = Median(updates);
    }
    const size_t piece = static_cast<size_t>(gradient_bytes) / kReplicas;
    std::vector<double> transfers;
    for (int i = 0; i < 3; ++i) {
      transfers.push_back(1e3 * PlainTransferSeconds(Wire::kTcp, piece, 2 * kReplicas));
    }
    const double bytes = Median(transfers);
    STARLING_ASSIGN_OR_RETURN(const std::vector<DeviceEvent> events, RunOnLoopback(run));
    const std::vector<Commit> commits = Commits(events, static_cast<uint64_t>(config.train.steps));
    const double floor = add + update + bytes;
    const double all = MedianOf(commits, &Commit::all);
    ratios.push_back(all / floor);
    std::printf("%-6d %7.1f %7.1f %7.1f %7.1f | %6.1f %7.1f %7.1f %7.1f | %6.2f\n", round, all,
                MedianOf(commits, &Commit::plan), MedianOf(commits, &Commit::reduce),
                MedianOf(commits, &Commit::apply), add, update, bytes, floor, ratios.back());
    std::fflush(stdout);
    rows.push_back({{"commit_ms", all},
                    {"plan_ms", MedianOf(commits, &Commit::plan)},
                    {"round_ms", MedianOf(commits, &Commit::reduce)},
                    {"apply_ms", MedianOf(commits, &Commit::apply)},
                    {"steps", commits.size()},
                    {"add_ms", add},
                    {"adamw_ms", update},
                    {"bytes_ms", bytes},
                    {"ratio", ratios.back()}});
  }
  std::printf("median ratio %.2f; goal: at most %.1f\n", Median(ratios), kGoal);
  return nlohmann::json{{"parameter_bytes", gradient_bytes},
                        {"rounds", rows},
                        {"ratio", Median(ratios)},
                        {"goal", kGoal}};
}

}  // namespace starling::bench
