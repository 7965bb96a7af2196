// Saver: makes a checkpoint of one version. It fetches a snapshot of every stage from the replicas
// that are at that version, while the run goes on. File jobs write each stage as it comes, and let
// go of it, then publish all: the whole model is never in memory unless stages come faster than the
// disk takes them. With checkpoint.store = "shared" it fetches nothing: replicas write their parts
// themselves (shard_orders.h), and it looks whether they are there, and publishes them.
//
// Replicas keep the snapshot once it is asked for, whatever is decided meanwhile. Only until each
// stage has been asked (holds(), a second at most) should the next step not be decided, or they may
// have moved on: then the save fails with aborted. One save at a time. Reactor thread; sans-I/O.
#ifndef STARLING_RUNTIME_TRAINER_SAVER_H_
#define STARLING_RUNTIME_TRAINER_SAVER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "checkpoint/chunk_fetcher.h"
#include "runtime/base/layout.h"
#include "runtime/config/run_config.h"
#include "runtime/env/env.h"
#include "runtime/env/file_system.h"
#include "runtime/trainer/shard_orders.h"
#include "runtime/trainer/swarm.h"

namespace starling {

class Saver {
 public:
  // `done`: the checkpoint is published, or why not (resource exhausted: disk full; data loss: a
  // donor's snapshot is not the state that it is known to hold).
  using OnSaved = std::function<void(absl::StatusOr<CheckpointInfo>)>;

  struct Options {
    CheckpointConfig config;  // `every` does not matter here
    std::string folder;       // of the checkpoints
    std::string shared_as;    // the same as replicas see it
  };

  Saver(Options options, Env* env, Files* files, Swarm* swarm, Endpoint self,
        std::vector<StageLayout> layouts);

  // Not while busy(). `changed` is called when holds() ends.
  void Begin(CheckpointMeta meta, std::function<void()> changed, OnSaved done);
  // A replica of `stage` has come to a version. Looks at that stage only: everybody comes once in a
  // step.
  void OnApplied(StageId stage);
  // A replica is gone: others give what it had not.
  void OnFenced(const Endpoint& address);
  // The state to be saved is no more (a new era began): `done` gets aborted, unless it is being
  // written.
  void Abandon();

  bool fetching() const { return !missing_.empty(); }
  bool holds() const;
  bool busy() const { return done_ != nullptr; }

 private:
  struct Download {
    std::unique_ptr<ChunkFetcher> fetcher;
  };
  void FetchMissing();
  bool Look();
  bool LookAt(StageId stage, Download* download);
  void GoOn(bool to_be_had);
  void FetchStage(StageId stage, Download* download);
  void OnFetched(StageId stage, absl::StatusOr<Blob> state);
  // What the file jobs of one save share; only they touch it. The first failure ends them all.
  struct Writing {
    CheckpointStore store;
    Staging staging;
    std::vector<Shard> shards;
    absl::Status status;
  };
  // Runs a job of this save; `done` is called if it went well and the save has not ended.
  void RunJob(std::function<absl::Status(Disk&, Writing&)> job, std::function<void()> done);
  void WriteStage(StageId stage, Blob state);
  void BeginShared();
  void OnFolder(const Staging& staging);
  void OnShardWritten(StageId stage, Shard shard, const std::string& writer);
  void TellIfNoLongerHeld();
  void PublishIfWhole();
  void StopAsking();
  void OnFailed(absl::Status status);
  void GiveUp(absl::Status status);
  void Finish(absl::StatusOr<CheckpointInfo> result);

  const Options options_;
  Env* const env_;
  Files* const files_;
  Swarm* const swarm_;
  const Endpoint self_;
  const CheckpointStore store_;
  const std::vector<StageLayout> layouts_;

  CheckpointMeta meta_;
  std::function<void()> changed_;
  OnSaved done_;
  absl::Time begun_;
  bool held_ = false;                     // as last told
  std::map<uint32_t, Download> missing_;  // stages not here yet
  std::shared_ptr<Writing> writing_;      // of the save under way
  std::unique_ptr<ShardOrders> orders_;   // where replicas write
  TimerId retry_ = kNoTimer;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_SAVER_H_
