#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/app/addresses.h"
#include "runtime/app/commands.h"
#include "runtime/app/local_swarm.h"
#include "runtime/app/swarm_run.h"
#include "runtime/base/status_macros.h"
#include "runtime/reactor/posix_disk.h"

namespace starling {
namespace {

// What to listen on to be found at the address of before; empty if the configuration says it.
std::string ListenAsBefore(const SwarmConfig& swarm, const std::string& address) {
  const bool port_given = PortOf(swarm.listen) != "*";
  const bool port_mapped = !PortOf(swarm.advertise).empty();
  if (!absl::StartsWith(swarm.listen, "tcp://") || port_given || port_mapped) return "";
  return absl::StrCat("tcp://", HostOf(swarm.listen), ":", PortOf(address));
}

// Replicas that have outlived the trainer look for it where it was.
absl::StatusOr<std::unique_ptr<Transport>> OpenAsBefore(Disk& disk, RunPlan* plan,
                                                        EventLoop* loop) {
  const absl::StatusOr<std::string> address = ReadAddress(disk, plan->directory);
  const std::string listen =
      address.ok() ? ListenAsBefore(plan->config.swarm, *address) : std::string();
  auto transport = OpenTrainerTransport(plan->config, listen, loop);
  if (transport.ok() || listen.empty()) return transport;
  plan->notices.push_back(
      absl::StrCat("cannot listen where the trainer was: ", transport.status().message(),
                   "; replicas elsewhere must join again"));
  return OpenTrainerTransport(plan->config, "", loop);
}

// Who of the newest decision's members may still live; without anyone the checkpoint it is, at
// once.
void LookForReplicas(const std::vector<LocalReplica>& local, RunPlan* plan) {
  if (!plan->live) return;
  for (const auto& [incarnation, member] : plan->live->members) {
    if (RefusesConnections(member.address.control)) plan->live->dead.insert(incarnation);
  }
  if (plan->live->dead.size() == plan->live->members.size()) plan->live.reset();
  if (plan->live) plan->adopt = local;
}

}  // namespace

bool HasOwnLayers(const ResumeArgs& args) {
  PosixDisk disk;
  const absl::StatusOr<RunConfig> config = ReadRunConfig(disk, args.run_directory, args.overrides);
  return config.ok() && config->model.own();
}

absl::Status Resume(const ResumeArgs& args, const TorchCommands* torch) {
  PosixDisk disk;
  STARLING_ASSIGN_OR_RETURN(
      RunPlan plan, ReopenRun(disk, args.run_directory, args.overrides, args.accept_new_text,
                              torch != nullptr ? torch->probe_layers : nullptr));
  plan.program = args.program;
  STARLING_RETURN_IF_ERROR(SetDamagedAside(disk, plan));
  const std::vector<LocalReplica> local = FindLocalReplicas(disk, plan.directory);
  LookForReplicas(local, &plan);
  if (plan.live) {
    plan.notices.push_back(
        absl::StrCat("asking ", plan.live->members.size() - plan.live->dead.size(), " of ",
                     plan.live->members.size(), " replicas for what they hold of version ",
                     Value(VersionAfter(plan.live->newest.step))));
  } else {
    const int ended = EndReplicas(local);
    if (ended > 0) {
      plan.notices.push_back(absl::StrCat("ended ", ended, " local replica", ended == 1 ? "" : "s",
                                          " that the former trainer left behind"));
    }
    plan.notices.push_back(ResumedFromCheckpoint(plan));
  }
  EventLoop loop;
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<Transport> transport, OpenAsBefore(disk, &plan, &loop));
  return RunSwarm(std::move(plan), &loop, std::move(transport));
}

}  // namespace starling
