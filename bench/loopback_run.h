// A run on this machine whose trainer is a `starling train` process and whose replicas are peers on
// threads of this program, each with its own event loop, ZeroMQ transport and compute thread, over
// TCP on loopback. So a section can see what a device does and when (Probe), which a replica's own
// process would not tell.
#ifndef STARLING_BENCH_LOOPBACK_RUN_H_
#define STARLING_BENCH_LOOPBACK_RUN_H_

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/bench.h"
#include "runtime/config/run_config.h"
#include "stages/executor.h"

namespace starling::bench {

// A folder under the system's temporary one that goes with it, and a text to train on in it.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string text() const { return path_ + "/text/*.txt"; }

 private:
  std::string path_;
};

// What a device did.
enum class DeviceCall : uint8_t { kForward, kBackward, kSeal, kRead, kApply };
struct DeviceEvent {
  DeviceCall call = DeviceCall::kForward;
  uint32_t replica = 0;  // counts those of the run
  uint32_t stage = 0;
  Step step{0};        // not of kApply
  uint32_t index = 0;  // of the microbatch, where there is one
  Clock::time_point begin;
  Clock::time_point end;
};

// Collects from any thread.
class Probe {
 public:
  void Add(const DeviceEvent& event);
  std::vector<DeviceEvent> Take();

 private:
  std::mutex mutex_;
  std::vector<DeviceEvent> events_;
};

struct LoopbackOptions {
  std::string program;             // the `starling` command
  std::string run_toml;            // [local] and [data] are added
  std::vector<uint32_t> replicas;  // per stage
  // Makes a stage's numbers.
  std::function<absl::StatusOr<std::unique_ptr<StageExecutor>>(const RunConfig&, StageId)> device;
};

// Runs all its steps. Gives what the devices did, in no order.
//   internal: the trainer or a replica failed; says where its log is.
absl::StatusOr<std::vector<DeviceEvent>> RunOnLoopback(const LoopbackOptions& options);

}  // namespace starling::bench

#endif  // STARLING_BENCH_LOOPBACK_RUN_H_
