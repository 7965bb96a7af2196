// Trainer: feeds microbatches, decides steps, admits peers, has checkpoints made. It holds no
// parameters: replicas hold the state, the decision log what was decided.
//
//   Returning (a restarted trainer: the members of the newest record report) --a stage lost-->
//   below
//      '--all stages can be served at the newest decided version--> Training
//   Gathering --every stage has a loaded replica--> Training (StepRun, record persisted, Apply;
//   again)
//      ^                                               |  last step, or asked to stop
//      '--- a stage lost its last replica: new era <---+--> Ending (last evaluation and checkpoint)
//      -> Done
//
// Parts: Swarm (who serves), Admission (who wants in), RollCall and PlanReturn (who is still there
// after a restart, and with what), StepRun (one step), Saver (checkpoints),
// DecisionLog (what is on disk before anyone acts on it). Sans-I/O: every call on the reactor
// thread; the interfaces given to it outlive it.
#ifndef STARLING_RUNTIME_TRAINER_TRAINER_H_
#define STARLING_RUNTIME_TRAINER_TRAINER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "checkpoint/chunk_donor.h"
#include "checkpoint/chunked_bytes.h"
#include "router/wiring.h"
#include "runtime/base/layout.h"
#include "runtime/config/run_config.h"
#include "runtime/data/data_feed.h"
#include "runtime/env/env.h"
#include "runtime/env/file_system.h"
#include "runtime/env/transport.h"
#include "runtime/membership/failure_detector.h"
#include "runtime/trainer/admission.h"
#include "runtime/trainer/decision_log.h"
#include "runtime/trainer/departures.h"
#include "runtime/trainer/mover.h"
#include "runtime/trainer/observer.h"
#include "runtime/trainer/return_plan.h"
#include "runtime/trainer/roll_call.h"
#include "runtime/trainer/saver.h"
#include "runtime/trainer/step_run.h"
#include "runtime/trainer/swarm.h"
#include "runtime/trainer/time_table.h"

namespace starling {

class Trainer : public TransportHandler {
 public:
  struct Options {
    RunConfig config;
    std::string config_toml;    // what joiners get
    std::string run_directory;  // holds decisions.jsonl and checkpoints/
    // The same as replicas that write checkpoints themselves see it; empty: as here.
    std::string shared_directory;
    RunId run{0};
    Epoch epoch{1};            // greater than any before in this run
    Era era{1};                // likewise
    uint64_t last_record = 0;  // of the decision log
    CheckpointInfo start;      // the checkpoint to begin from, or to fall back on
    // Go on from live replicas in the era of `newest`, if every stage can be served; else, or
    // without this, begin `era` from `start`.
    std::optional<LiveState> live;
    CheckpointMeta start_meta;
    std::vector<StageLayout> layouts;  // per stage
    std::vector<uint32_t> expected;    // replicas per stage to wait for a while at the start
    absl::Duration gather_patience = absl::Seconds(30);
  };

  Trainer(Options options, Env* env, Transport* transport, Files* files, const DataFeed* data,
          TrainerObserver* observer);
  ~Trainer() override;

  void Start();
  // Ends after the step under way, with a checkpoint; at once if no step can end now.
  void RequestStop(const std::string& reason);
  // Who serves what, as `starling status --json` prints it.
  std::string StatusJson() const;
  // What limits the run, the gravest first.
  std::vector<Bottleneck> Bottlenecks(TimeSpan span) const;

  void OnPacket(Packet packet) override;
  void OnLinkLost(const Endpoint& peer) override;

  Version version() const { return version_; }
  // It ended because another trainer is alive: what it would have ended is not its own.
  bool refused_to_start() const { return refused_to_start_; }
  const Swarm& swarm() const { return swarm_; }
  void VisitBuffers(const BufferVisitor& visit) const {
    swarm_.VisitBuffers(visit, admission_.size());
  }

 private:
  enum class Phase : uint8_t { kReturning, kGathering, kTraining, kEnding, kDone };

  // Messages
  void OnHello(const Hello& hello, const Message& message);
  void OnMemberMessage(const Message& message);
  absl::StatusOr<ChunkedBytes*> FindBase(Content content, StageId stage, Era era, Version version);
  void OnOrder(const Order& order, const Message& message);
  Ack Obey(const Order& order);

  // Membership
  void Watch();
  void Fence(Incarnation incarnation, const std::string& reason);
  void Lose(Incarnation incarnation, const std::string& reason);
  void OnMembersChanged();
  void OnAdmissionChanged();
  // Leaving in order (departures.h)
  std::string Drain(Incarnation incarnation, const std::string& reason,
                    std::optional<StageId> moves_to);
  void DepartWithoutStep();
  // A stage has had nobody for so long that its state will not come back.
  bool StageIsGone() const;
  void SendJoinersToEmptyStages();
  void Rebalance();
  void Depart(const Decision& record, Version at);
  bool EnoughToStart() const;
  void AdmitLoaded();
  // Has a record say that they join; `recorded` is called when it is on disk.
  void RecordJoins(const std::vector<Replica>& replicas, std::function<void()> recorded);
  // Connections that were lost while that record was being written.
  void LoseThoseLostMeanwhile();
  void Admitted(std::vector<Replica> replicas, Version at, Era era);
  std::optional<Admission::LoadTarget> FindLoadTarget(StageId stage,
                                                      const std::optional<StateName>& held) const;
  bool IsCurrent(const Replica& replica) const;
  std::string WaitingFor() const;

  // Return from a restart (trainer_return.cc)
  void BeginReturn();
  void ConsiderReturn();
  void Returned(std::vector<Replica> replicas, const ReturnPlan& plan);
  void TakeStepAgain();
  void ReignAnew(Epoch epoch);
  void RefuseToStart(const std::string& reason);

  // Eras
  void BeginEra();
  void OnBaseLoaded(absl::Status status, const std::vector<Blob>& states, const std::string& path);
  bool StateIsGone(StageId stage) const;
  void ConsiderNewEra();

  // Steps
  void SetPaused(bool paused);
  void BeginStep();
  bool EvaluationIsDue() const;
  std::unique_ptr<StepRun> MakeStep(StepRun::Options step);
  void ForgetSteps();
  // Delayed commit (trainer_ahead.cc)
  void NextStep();
  void BeginAhead();
  bool MayBeginAhead() const;
  bool AllStepsOnNewest() const;
  bool LastStateIsBack() const;
  void ExpectJoiners();
  bool WaitsForJoiner() const;
  bool MaySeal() const;
  void OnStepDone(absl::StatusOr<StepOutcome> outcome);
  void Decide(const StepOutcome& outcome);
  void Commit(const Decision& decision, const StepOutcome& outcome);
  void SendApply(const Decision& decision);
  bool CheckpointIsDue() const;
  void OnApplied(Incarnation from, const Applied& applied);
  bool Judge(StageId stage, const std::map<Incarnation, Hash128>& reported);
  void Report(const Decision& decision, const StepOutcome& outcome);
  uint32_t Window() const;
  TimePicture Times(TimeSpan span) const;
  void BeginSave();
  void MaybeEnd();
  void Finish(absl::Status status, const std::string& summary);

  // Names who left since the last one, and `departures`.
  Decision NewRecord(std::vector<Departure> departures = {});
  void Emit(const Event& event) { observer_->OnEvent(event); }

  const Options options_;
  Env* const env_;
  Files* const files_;
  const DataFeed* const data_;
  TrainerObserver* const observer_;
  const Endpoint self_;

  Phase phase_ = Phase::kGathering;
  Version version_{0};  // the newest decided
  const std::vector<ParameterGroup> groups_;
  Swarm swarm_;
  Admission admission_;
  Departures departures_;
  Mover mover_;
  FailureDetector detector_;
  DecisionLog log_;
  Saver saver_;
  std::unique_ptr<RollCall> roll_call_;  // while Returning
  bool refused_to_start_ = false;
  // What to return to: what was there before this trainer, and after a decision of its own, that.
  std::optional<LiveState> live_;
  bool taking_again_ = false;  // the step under way is given up, and a new epoch being taken
  std::unique_ptr<Wiring> wiring_;
  Pace pace_;  // outlives step_run_
  TimeTable times_;
  std::unique_ptr<StepRun> step_run_;   // of the step to be decided next
  std::unique_ptr<StepRun> ahead_run_;  // of the one after it, with delayed commit
  Departures::Avoided ahead_avoids_;    // since before it began
  // Joiners that were at the version before version_, and how often they were waited for.
  std::set<Incarnation> expected_joiners_;
  absl::Time joiners_until_;  // they are waited for
  std::map<Incarnation, uint32_t> waited_for_;
  uint64_t record_number_ = 0;
  std::vector<Incarnation> unrecorded_leaves_;
  bool admitting_ = false;                      // a record with joins is being persisted
  std::set<PeerId> admitting_peers_;            // of it
  std::set<std::string> lost_while_admitting_;  // control addresses
  bool deciding_ = false;                       // a step's record is being persisted
  bool departing_ = false;                      // a record with departures only is being persisted
  bool paused_ = false;                         // no new step begins
  std::deque<std::pair<std::string, Ack>> obeyed_;  // the newest orders, for their repeats

  // The state of each stage at version_; none until all its replicas have acknowledged it.
  std::vector<std::optional<StateName>> stage_states_;
  std::map<Incarnation, StateName> applied_;  // acknowledged at version_, not judged yet

  // The checkpoint this era began from, and its bytes for joiners, while version_ is still there or
  // someone may be fetching them.
  CheckpointInfo base_;
  Version base_version_{0};
  std::vector<ChunkedBytes> base_states_;
  ChunkDonor base_donor_;
  bool loading_base_ = false;

  uint64_t skipped_ = 0;
  absl::Time last_decision_;
  absl::Time gathering_since_;
  std::string stop_reason_;
  bool final_evaluation_done_ = false;
  std::optional<Version> saved_;  // the newest published
  std::string waiting_said_;
  TimerId watch_ = kNoTimer;
  TimerId rebalance_ = kNoTimer;
  absl::Time stage_lost_ = absl::InfiniteFuture();  // since when a stage has nobody
  absl::Time last_watch_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_TRAINER_H_
