#include <unistd.h>

#include <memory>
#include <utility>

#include "runtime/app/commands.h"
#include "runtime/app/swarm_run.h"
#include "runtime/base/status_macros.h"
#include "runtime/config/run_file.h"
#include "runtime/reactor/posix_disk.h"

namespace starling {

bool HasOwnLayers(const TrainArgs& args) {
  PosixDisk disk;
  const absl::StatusOr<std::string> text = disk.Read(args.run_file);
  if (!text.ok()) return false;
  const absl::StatusOr<RunConfig> config = ParseRunFile(*text, args.run_file, args.overrides);
  return config.ok() && config->model.own();
}

absl::Status Train(const TrainArgs& args, const TorchCommands* torch) {
  PosixDisk disk;
  STARLING_ASSIGN_OR_RETURN(RunPlan plan,
                            PlanNewRun(disk, args.run_file, args.overrides, args.run_directory,
                                       torch != nullptr ? torch->probe_layers : nullptr));
  plan.program = args.program;
  if (args.single_process) {
    STARLING_RETURN_IF_ERROR(MakeRunDirectory(disk, &plan));
    return torch->single_process(std::move(plan));
  }
  EventLoop loop;
  // Before the directory is made: an address that is in use should leave nothing behind.
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<Transport> transport,
                            OpenTrainerTransport(plan.config, "", &loop));
  STARLING_RETURN_IF_ERROR(MakeRunDirectory(disk, &plan));
  return RunSwarm(std::move(plan), &loop, std::move(transport));
}

}  // namespace starling
