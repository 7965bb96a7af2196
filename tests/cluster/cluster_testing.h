// What the tests of real clusters share: a run file on made-up text, runs of the command in a
// folder of the test's own, what they recorded, and the comparison of two runs.
#ifndef STARLING_TESTS_CLUSTER_CLUSTER_TESTING_H_
#define STARLING_TESTS_CLUSTER_CLUSTER_TESTING_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "tests/testing/subprocess.h"

namespace starling {

using Json = nlohmann::json;

// How long a whole run may take on a machine that is busy with other things.
constexpr absl::Duration kRunLimit = absl::Minutes(15);

constexpr int64_t kSteps = 100;  // unless a test says otherwise
// Sequences per step, in microbatches of 2. A quick run takes about 4 s, a long one about 12 s:
// long enough for processes to die, come back and join.
constexpr int64_t kQuickBatch = 16;
constexpr int64_t kLongBatch = 64;

// Writes FOLDER/text-NN.txt, about 240 KB of made-up sentences, the same ones everywhere.
void WriteText(const std::string& folder);

// Writes a run file for a six-layer model with dropout on that text into FOLDER, and gives its
// path.
std::string WriteRunFile(const std::string& folder, int64_t global_batch, int64_t steps = kSteps);

// A run directory, and the processes of its run.
class ClusterRun {
 public:
  explicit ClusterRun(std::string directory) : directory_(std::move(directory)) {}
  // Kills what is left of it.
  ~ClusterRun();
  ClusterRun(const ClusterRun&) = delete;
  ClusterRun& operator=(const ClusterRun&) = delete;

  const std::string& directory() const { return directory_; }
  Subprocess& trainer() { return *trainer_; }

  // "NAME=value" for the processes that Train and Resume start, and their children.
  void SetEnvironment(std::vector<std::string> environment) {
    environment_ = std::move(environment);
  }
  void Train(const std::string& run_file, const std::vector<std::string>& more);
  void Resume(const std::vector<std::string>& more = {});
  // Reports a failure, with what the trainer said, unless it ends with status 0.
  void ExpectSuccess();

  // Where others join; waits until the trainer listens.
  std::string Address();
  // Every process of it that is running, by the run's directory and its last address.
  std::vector<pid_t> Processes() const;
  // SIGKILL for the trainer, then for all the others.
  void KillEverything();

  // The newest step in metrics.jsonl.
  int64_t LastStep() const;
  // False if the run ends first.
  bool WaitForStep(int64_t step);
  bool WaitUntilRunning(const std::function<bool()>& condition);

  // One object per line that parses, in the order written.
  std::vector<Json> Metrics() const;
  std::vector<Json> Events() const;
  std::vector<Json> EventsNamed(const std::string& name) const;
  // decisions.jsonl
  std::vector<Json> Decisions() const;
  // By step; the later line wins.
  std::map<int64_t, Json> Steps() const;

 private:
  void Start(std::vector<std::string> arguments);

  const std::string directory_;
  std::vector<std::string> environment_;
  std::string address_;
  std::unique_ptr<Subprocess> trainer_;
};

// A finished `--single-process` run of the same file and `more` arguments, made once per program.
const std::map<int64_t, Json>& Reference(int64_t global_batch, int64_t steps = kSteps,
                                         const std::vector<std::string>& more = {});

// The folder that the text, the references and the runs of this program are in.
const std::string& ClusterFolder();

// Expects steps 1 to `steps`, each the reference's: loss to 1e-5 and gradient norm to 1e-4,
// relative, the same tokens, and the lane right in every line, replaced ones too.
void ExpectEqualToReference(const ClusterRun& run, int64_t global_batch, int64_t steps = kSteps,
                            const std::vector<std::string>& more = {});

// The same, against the steps of another run.
void ExpectSameSteps(const ClusterRun& run, const std::map<int64_t, Json>& reference,
                     int64_t steps);

// Expects that the peers that held (era, stage, version) all reported the same hash. Gives, by
// stage, at how many versions at least two peers reported.
std::map<int64_t, int> ExpectOneHashPerState(const ClusterRun& run);

// Kills the replica of `stage` that joined last, and waits until it is missed.
void KillOneOf(ClusterRun& run, int64_t stage);

// Another number in every run of the test, logged; STARLING_TEST_SEED repeats one.
uint64_t LoggedSeed();

}  // namespace starling

#endif  // STARLING_TESTS_CLUSTER_CLUSTER_TESTING_H_
