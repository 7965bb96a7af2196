#include "runtime/app/threads.h"

#include <algorithm>
#include <thread>

namespace starling {

int Cores() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

int GivenOrAllCores(int64_t given) { return given > 0 ? static_cast<int>(given) : Cores(); }

int HalfOfTheCores() { return std::max(1, Cores() / 2); }

int ThreadsOfReplica(const RunConfig& config, uint32_t stage) {
  const int64_t configured = PerStage(config.local.threads, stage);
  if (configured > 0) return static_cast<int>(configured);
  int64_t replicas = 0;
  for (uint32_t s = 0; s < config.stage_count(); ++s) {
    replicas += PerStage(config.local.replicas, s);
  }
  return static_cast<int>(std::max<int64_t>(1, Cores() / std::max<int64_t>(1, replicas)));
}

int ThreadsOfOneProcess(const LocalConfig& local) {
  return GivenOrAllCores(PerStage(local.threads, 0));
}

}  // namespace starling
