#include "tests/cluster/cluster_testing.h"

#include <signal.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <random>
#include <set>
#include <sstream>
#include <tuple>
#include <utility>

#include "gtest/gtest.h"
#include "runtime/base/rng.h"
#include "tests/runtime/reactor/temporary_folder.h"

namespace starling {
namespace {

constexpr int kTextFiles = 12;
constexpr size_t kTextFileBytes = 20000;

std::vector<std::string> MadeUpWords(Rng& rng) {
  std::vector<std::string> words(400);
  for (std::string& word : words) {
    const uint64_t syllables = 1 + rng.Below(3);
    for (uint64_t i = 0; i < syllables; ++i) {
      word += "bdfgklmnprstvz"[rng.Below(14)];
      word += "aeiou"[rng.Below(5)];
    }
  }
  return words;
}

std::vector<Json> JsonLines(const std::string& path) {
  std::vector<Json> lines;
  std::istringstream text(FileText(path));
  for (std::string line; std::getline(text, line);) {
    Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_object()) lines.push_back(std::move(json));
  }
  return lines;
}

double RelativeDifference(const Json& a, const Json& b, const char* key) {
  const double x = a.at(key).get<double>();
  const double y = b.at(key).get<double>();
  return std::abs(x - y) / std::abs(y);
}

}  // namespace

void WriteText(const std::string& folder) {
  Rng rng(20);
  const std::vector<std::string> words = MadeUpWords(rng);
  for (int file = 0; file < kTextFiles; ++file) {
    std::string text;
    while (text.size() < kTextFileBytes) {
      // The smaller of two draws: some words are frequent, others rare.
      for (uint64_t left = 3 + rng.Below(9); left > 0; --left) {
        text += words[std::min(rng.Below(words.size()), rng.Below(words.size()))];
        text += left == 1 ? ".\n" : " ";
      }
    }
    WriteFileText(folder + "/text-" + std::to_string(10 + file) + ".txt", text);
  }
}

std::string WriteRunFile(const std::string& folder, int64_t global_batch, int64_t steps) {
  const std::string path = folder + "/batch-" + std::to_string(global_batch) + "-steps-" +
                           std::to_string(steps) + ".toml";
  WriteFileText(path, "[data]\ntext = [\"" + folder +
                          "/text-*.txt\"]\n"
                          "[model]\nlayers = 6\nwidth = 32\nheads = 2\ncontext = 32\n"
                          "dropout = 0.1\n"
                          "[train]\nsteps = " +
                          std::to_string(steps) +
                          "\nglobal_batch = " + std::to_string(global_batch) +
                          "\nmicrobatch = 2\neval_every = 50\n"
                          "[optimizer]\nlr = 1e-3\n"
                          "[checkpoint]\nevery = 20\n");
  return path;
}

ClusterRun::~ClusterRun() {
  if (trainer_ != nullptr) KillEverything();
}

void ClusterRun::Start(std::vector<std::string> arguments) {
  address_.clear();
  Subprocess::Options options;
  options.arguments = std::move(arguments);
  options.environment = environment_;
  trainer_ = std::make_unique<Subprocess>(std::move(options));
}

void ClusterRun::Train(const std::string& run_file, const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {STARLING_PROGRAM, "train", run_file, "--run-dir",
                                        directory_};
  arguments.insert(arguments.end(), more.begin(), more.end());
  Start(std::move(arguments));
}

void ClusterRun::Resume(const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {STARLING_PROGRAM, "resume", directory_};
  arguments.insert(arguments.end(), more.begin(), more.end());
  Start(std::move(arguments));
}

void ClusterRun::ExpectSuccess() {
  const std::optional<int> exit_code = trainer_->WaitForExit(kRunLimit);
  EXPECT_EQ(exit_code.value_or(-1), 0) << trainer_->Output() << trainer_->Errors();
}

std::string ClusterRun::Address() {
  const std::string said = "more replicas: ";
  EXPECT_TRUE(trainer_->WaitForOutput(said)) << trainer_->Output() << trainer_->Errors();
  std::string address = FileText(directory_ + "/address");
  while (!address.empty() && address.back() == '\n') address.pop_back();
  address_ = address;
  return address;
}

std::vector<pid_t> ClusterRun::Processes() const {
  std::vector<pid_t> pids = ProcessesMentioning(directory_);
  if (!address_.empty()) {
    for (pid_t pid : ProcessesMentioning(address_)) pids.push_back(pid);
  }
  return pids;
}

void ClusterRun::KillEverything() {
  if (address_.empty()) {
    address_ = FileText(directory_ + "/address");
    while (!address_.empty() && address_.back() == '\n') address_.pop_back();
  }
  trainer_->Signal(SIGKILL);
  // The trainer's death is awaited, so that it starts no more.
  EXPECT_TRUE(trainer_->WaitForExit().has_value());
  EXPECT_TRUE(WaitUntil([this] {
    const std::vector<pid_t> left = Processes();
    for (pid_t pid : left) kill(pid, SIGKILL);
    return left.empty();
  }));
}

int64_t ClusterRun::LastStep() const {
  const std::vector<Json> lines = Metrics();
  return lines.empty() ? 0 : lines.back().at("step").get<int64_t>();
}

bool ClusterRun::WaitUntilRunning(const std::function<bool()>& condition) {
  bool holds = false;
  WaitUntil(
      [&] {
        const bool ended = trainer_->WaitForExit(absl::ZeroDuration()).has_value();
        holds = condition();
        return holds || ended;
      },
      kRunLimit);
  return holds;
}

bool ClusterRun::WaitForStep(int64_t step) {
  return WaitUntilRunning([&] { return LastStep() >= step; });
}

std::vector<Json> ClusterRun::Metrics() const { return JsonLines(directory_ + "/metrics.jsonl"); }
std::vector<Json> ClusterRun::Events() const { return JsonLines(directory_ + "/events.jsonl"); }

std::vector<Json> ClusterRun::Decisions() const {
  return JsonLines(directory_ + "/decisions.jsonl");
}

std::vector<Json> ClusterRun::EventsNamed(const std::string& name) const {
  std::vector<Json> found;
  for (Json& event : Events()) {
    if (event.value("event", "") == name) found.push_back(std::move(event));
  }
  return found;
}

std::map<int64_t, Json> ClusterRun::Steps() const {
  std::map<int64_t, Json> steps;
  for (const Json& line : Metrics()) steps[line.at("step").get<int64_t>()] = line;
  return steps;
}

const std::string& ClusterFolder() {
  static const std::string path = [] {
    const char* kept = getenv("STARLING_KEEP_RUNS");
    std::string folder;
    if (kept != nullptr) {
      folder = kept;
    } else {
      static const TemporaryFolder temporary;  // gone when the program ends
      folder = temporary.path();
    }
    WriteText(folder);
    return folder;
  }();
  return path;
}

const std::map<int64_t, Json>& Reference(int64_t global_batch, int64_t steps,
                                         const std::vector<std::string>& more) {
  using Key = std::tuple<int64_t, int64_t, std::vector<std::string>>;
  static std::map<Key, std::map<int64_t, Json>> references;
  const auto [at, missing] = references.try_emplace({global_batch, steps, more});
  std::map<int64_t, Json>& reference = at->second;
  if (missing) {
    ClusterRun run(ClusterFolder() + "/reference-" + std::to_string(references.size()));
    std::vector<std::string> arguments = more;
    arguments.push_back("--single-process");
    run.Train(WriteRunFile(ClusterFolder(), global_batch, steps), arguments);
    run.ExpectSuccess();
    reference = run.Steps();
  }
  return reference;
}

void ExpectEqualToReference(const ClusterRun& run, int64_t global_batch, int64_t steps,
                            const std::vector<std::string>& more) {
  ExpectSameSteps(run, Reference(global_batch, steps, more), steps);
}

void ExpectSameSteps(const ClusterRun& run, const std::map<int64_t, Json>& reference,
                     int64_t steps) {
  const std::map<int64_t, Json> taken = run.Steps();
  ASSERT_EQ(static_cast<int64_t>(reference.size()), steps);
  ASSERT_EQ(static_cast<int64_t>(taken.size()), steps);
  double loss_difference = 0;
  double norm_difference = 0;
  for (int64_t step = 1; step <= steps; ++step) {
    ASSERT_TRUE(taken.count(step) == 1 && reference.count(step) == 1) << "step " << step;
    const Json& line = taken.at(step);
    const Json& expected = reference.at(step);
    const double loss = RelativeDifference(line, expected, "loss");
    const double norm = RelativeDifference(line, expected, "grad_norm");
    EXPECT_LE(loss, 1e-5) << line << "\nreference " << expected;
    EXPECT_LE(norm, 1e-4) << line << "\nreference " << expected;
    EXPECT_EQ(line.at("tokens"), expected.at("tokens")) << "step " << step;
    EXPECT_EQ(line.at("lr"), expected.at("lr")) << "step " << step;
    EXPECT_FALSE(line.contains("skipped")) << line;
    loss_difference = std::max(loss_difference, loss);
    norm_difference = std::max(norm_difference, norm);
  }
  for (const Json& line : run.Metrics()) EXPECT_EQ(line.at("lane_ok"), true) << line;
  std::cout << "largest relative difference: loss " << loss_difference << ", gradient norm "
            << norm_difference << "\n";
}

std::map<int64_t, int> ExpectOneHashPerState(const ClusterRun& run) {
  std::map<std::tuple<int64_t, int64_t, int64_t>, std::map<std::string, std::string>> hashes;
  for (const Json& event : run.EventsNamed("state_hash")) {
    const std::string hash = event.at("hash");
    EXPECT_EQ(hash.size(), 32u) << event;
    hashes[{event.at("era"), event.at("stage"), event.at("version")}][event.at("peer")] = hash;
  }
  std::map<int64_t, int> shared;
  for (const auto& [state, peers] : hashes) {
    std::set<std::string> different;
    for (const auto& [peer, hash] : peers) different.insert(hash);
    EXPECT_EQ(different.size(), 1u) << "era " << std::get<0>(state) << " stage "
                                    << std::get<1>(state) << " version " << std::get<2>(state);
    if (peers.size() >= 2) ++shared[std::get<1>(state)];
  }
  return shared;
}

void KillOneOf(ClusterRun& run, int64_t stage) {
  std::optional<pid_t> victim;
  for (const Json& event : run.EventsNamed("peer_joined")) {
    if (event.at("stage") == stage) victim = event.at("pid").get<pid_t>();
  }
  ASSERT_TRUE(victim.has_value());
  const size_t lost = run.EventsNamed("peer_lost").size();
  kill(*victim, SIGKILL);
  ASSERT_TRUE(
      run.WaitUntilRunning([&] { return run.EventsNamed("peer_lost").size() == lost + 1; }));
}

uint64_t LoggedSeed() {
  const char* given = getenv("STARLING_TEST_SEED");
  const uint64_t seed = given != nullptr ? strtoull(given, nullptr, 10) : std::random_device()();
  std::cout << "STARLING_TEST_SEED=" << seed << "\n";
  return seed;
}

}  // namespace starling
