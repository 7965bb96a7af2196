// The suites that every implementation of runtime/env is run through, on the virtual world's.
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "tests/sim/network.h"
#include "tests/sim/scheduler.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_env.h"
#include "tests/testing/disk_contract.h"
#include "tests/testing/env_contract.h"
#include "tests/testing/transport_contract.h"

namespace starling {
namespace {

bool RunUntilOn(sim::Scheduler* scheduler, const std::function<bool()>& done) {
  sim::RunLimits limits;
  limits.until = done;
  limits.deadline = scheduler->Now() + absl::Minutes(1);
  return scheduler->Run(limits) == sim::RunEnd::kConditionHolds;
}

class SimEnvHarness {
 public:
  Env& env() { return env_; }
  void InCallback(std::function<void()> act) {
    env_.Schedule(absl::ZeroDuration(), std::move(act));
    RunUntilOn(&scheduler_, [this] { return scheduler_.events_run() > seen_; });
    seen_ = scheduler_.events_run();
  }
  bool RunUntil(const std::function<bool()>& done) {
    const bool held = RunUntilOn(&scheduler_, done);
    seen_ = scheduler_.events_run();
    return held;
  }

 private:
  sim::Scheduler scheduler_;
  sim::SimEnv env_{&scheduler_, sim::NodeId{0}, 1};
  uint64_t seen_ = 0;
};
INSTANTIATE_TYPED_TEST_SUITE_P(Sim, EnvContract, SimEnvHarness);

class SimDiskHarness {
 public:
  SimDiskHarness() { disk_.MakeDirectories(root()).IgnoreError(); }
  Disk& disk() { return disk_; }
  std::string root() { return "/some/root"; }

 private:
  sim::SimDisk disk_;
};
INSTANTIATE_TYPED_TEST_SUITE_P(Sim, DiskContract, SimDiskHarness);

class SimTransportHarness {
 public:
  SimTransportHarness() : network_(&scheduler_, nullptr, Options(), 1) {}

  Endpoint AddressOf(int peer) { return sim::SimNetwork::AddressOf(Id(peer), 1); }
  Transport& Start(int peer, TransportHandler* handler) {
    transports_[peer] = network_.Attach(Id(peer), AddressOf(peer));
    transports_[peer]->SetHandler(handler);
    return *transports_[peer];
  }
  void Kill(int peer) {
    transports_.erase(peer);
    scheduler_.DropNode(Id(peer));
  }
  void Act(std::function<void()> act) { act(); }
  bool RunUntil(const std::function<bool()>& done) { return RunUntilOn(&scheduler_, done); }
  void Settle() {
    RunUntilOn(&scheduler_, [] { return false; });
  }
  size_t queue_packets() { return network_.options().queue_packets; }

 private:
  static sim::NodeId Id(int peer) { return static_cast<sim::NodeId>(peer); }
  static sim::NetworkOptions Options() {
    sim::NetworkOptions options;
    options.queue_packets = 100;
    return options;
  }

  sim::Scheduler scheduler_;
  sim::SimNetwork network_;
  std::map<int, std::unique_ptr<sim::SimTransport>> transports_;  // go first
};
INSTANTIATE_TYPED_TEST_SUITE_P(Sim, TransportContract, SimTransportHarness);

}  // namespace
}  // namespace starling
