// Training with a swarm: the trainer in this process, local replicas as children, until every step
// is done or the user stops it.
#ifndef STARLING_RUNTIME_APP_SWARM_RUN_H_
#define STARLING_RUNTIME_APP_SWARM_RUN_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/app/run_plan.h"
#include "runtime/env/transport.h"
#include "runtime/reactor/event_loop.h"

namespace starling {

// Binds the trainer's address. `listen` wins over the configuration's.
absl::StatusOr<std::unique_ptr<Transport>> OpenTrainerTransport(const RunConfig& config,
                                                                const std::string& listen,
                                                                EventLoop* loop);

// Runs it to its end; no child is left then. Prints everything for the user but the error.
// SIGINT, SIGTERM and SIGHUP stop it cleanly, a second one ends this process at once, status 130.
absl::Status RunSwarm(RunPlan plan, EventLoop* loop, std::unique_ptr<Transport> transport);

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_SWARM_RUN_H_
