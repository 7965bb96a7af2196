// StepRun: one step from its first microbatch to a summed gradient on every replica.
//
//   Running --every (stage, index) has a holder--> Sealing --lists cover the step--> Reducing -->
//   done
//      ^------- Fencing <---- a replica is gone (from any phase) -----'        |
//      ^--------------------- a list lacks something: replay ------------------'
//
// It feeds microbatches to stage 0, keeps a window of them in flight, keeps the ledger, mends paths
// after a fence as the ledger says (Resend from a replica's log, or sent anew with a stage mask),
// seals, picks segments, and runs the rounds. What it ends in is a StepOutcome; deciding is the
// trainer's. Evaluation is forward-only work of the step, done before it is sealed.
//
// Work that shows no sign of life for too long is asked about (a fence that fences nobody), and
// done elsewhere too, contested. Replicas that do not answer, or get nothing done try after try,
// are given to `fence`, unless they are the last of their stage.
//
// With delayed commit there may be two: one that is to be decided next, and one *ahead* of it,
// which runs its microbatches on the newest version but is watched, evaluated in and sealed only
// when the one before is decided and it is promoted.
//
// Sans-I/O, reactor thread. Env, Swarm and DataFeed outlive it.
#ifndef STARLING_RUNTIME_TRAINER_STEP_RUN_H_
#define STARLING_RUNTIME_TRAINER_STEP_RUN_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "absl/status/statusor.h"
#include "router/wiring.h"
#include "runtime/base/event.h"
#include "runtime/base/parameter_groups.h"
#include "runtime/data/data_feed.h"
#include "runtime/env/env.h"
#include "runtime/trainer/ledger.h"
#include "runtime/trainer/observer.h"
#include "runtime/trainer/segment_picker.h"
#include "runtime/trainer/slow_work.h"
#include "runtime/trainer/swarm.h"

namespace starling {

struct StepOutcome {
  Version computed_on{0};
  std::vector<GroupOutcome> groups;  // by their numbers; empty where the step only evaluated
  double loss_sum = 0;               // over tokens, in the order of indices
  int64_t tokens = 0;
  double square_norm = 0;             // of the summed gradient over all groups
  std::optional<uint32_t> nonfinite;  // the first microbatch whose loss is not finite
  uint32_t retries = 0;               // attempts beyond the first of each microbatch
  uint32_t replayed = 0;              // (stage, microbatch) pairs computed again
  uint64_t bytes_forward = 0;         // of boundaries, sent by those who sealed
  uint64_t bytes_backward = 0;
  std::vector<ReplicaTimes> times;        // of those who sealed
  absl::Duration feeding;                 // spent by reading data
  std::optional<double> evaluation_loss;  // mean over tokens
};

class StepRun {
 public:
  struct Options {
    Step step{0};
    uint32_t microbatches = 0;           // 0: only evaluate
    bool evaluate = false;               // the version before the step; not where it is ahead
    std::optional<Version> computed_on;  // none: the version before the step
    // Set: the step before is not decided. It says whether one more microbatch may be sent now, and
    // Poke() asks again.
    std::function<bool()> room;
    uint32_t window = 1;                 // microbatches in flight
    bool verify = false;                 // replicas hash their state in memory at the seal
    int64_t microbatch_tokens = 0;       // of a full one; for replica speeds
    std::vector<ParameterGroup> groups;  // by their numbers; each stage's own come first
    Encoding round_encoding = Encoding::kRaw;
    int64_t tokens = 1;  // of the step, about: scales what is rounded to 16 bits
    // How long work may show no sign, and how long a replica may take to answer a fence or a seal.
    LimitBounds work{absl::Milliseconds(2500), absl::Seconds(30), 8, 5};
    LimitBounds answers{absl::Seconds(10), absl::Seconds(60), 8, 5};
    Pace* pace = nullptr;  // lasts from step to step; none: learns anew
  };
  // Called once. data loss: the integer lane of a round is wrong, nothing may be applied. Else the
  // data feed's error: there is no such microbatch.
  using OnDone = std::function<void(absl::StatusOr<StepOutcome>)>;
  // Asked before sealing: false holds the step open; Poke() asks again.
  using MaySeal = std::function<bool()>;
  // Told the state hashes that all replicas sealed on. False: somebody computed on a wrong state,
  // so nothing of this step can be counted, and this run is at its end.
  using StatesAreRight = std::function<bool(const std::map<Incarnation, Hash128>&)>;
  // This replica holds the step up: it is to be removed, and OnFenced to be called.
  using FenceFn = std::function<void(Incarnation replica, const std::string& reason)>;

  StepRun(Options options, Env* env, Swarm* swarm, const DataFeed* data, Wiring* wiring,
          EventSink events, MaySeal may_seal, StatesAreRight states_are_right, FenceFn fence,
          OnDone done);
  ~StepRun();
  StepRun(const StepRun&) = delete;
  StepRun& operator=(const StepRun&) = delete;

  void Start();
  // The step before is decided: this one is not ahead any more.
  void Promote(bool evaluate);

  void OnNotice(Incarnation from, const Notice& notice);
  // These were removed from the swarm. Everyone left is asked to promise.
  void OnFenced(const std::vector<Incarnation>& fenced);
  // A replica was added, or left in order. One that is added must have been chosen while
  // accepts_members(), and the step may not have been sealed since (MaySeal); one that leaves has
  // no work of this step. A fence that came between is asked for again.
  void OnMembersChanged();
  bool accepts_members() const { return phase_ == Phase::kRunning; }
  void Poke();

  Step step() const { return options_.step; }
  Version computed_on() const { return options_.computed_on.value_or(VersionBefore(step())); }
  bool all_sent() const { return todo_.empty(); }
  size_t in_flight() const { return in_flight_.size(); }
  const char* phase_name() const;
  uint32_t done_microbatches() const;

 private:
  enum class Phase : uint8_t { kRunning, kFencing, kSealing, kReducing, kDone };
  // One microbatch to send: to all stages, or as far as a splice says.
  struct Todo {
    MicrobatchId id;
    std::optional<Ledger::Splice> splice;
  };

  void Pump();
  bool HasRoom() const;
  void QueueEvaluations();
  uint32_t evaluations() const { return evaluate_ ? data_->evaluate_microbatches() : 0; }
  bool Send(const Todo& todo);
  AttemptId NewAttempt(const MicrobatchId& id);
  void OnSendAnswer(const Todo& todo, AttemptId attempt, Incarnation to, absl::StatusCode code);
  void Landed(const MicrobatchId& id);
  bool Recall(const MicrobatchId& id);  // false: it was not under way
  void ScheduleRetry();
  void CancelTimers();
  void MaybeSeal();

  // Fences and repairs: step_repair.cc
  void SendFence();
  void AskEveryone(const std::set<Incarnation>& fenced);
  void OnFenceAnswered();
  void AskAgainSoon();
  void SendEvaluationsAgain();
  void CarryOut(const Ledger::Repair& repair, bool contested);
  void SendResends(const std::vector<Ledger::Splice>& splices);
  void SendCancels(const std::vector<Ledger::HolderWork>& works);
  void Report(const Ledger::Repair& repair);

  // Slow work: step_repair.cc
  void ArmWatch();
  void OnWatch();
  void OnOverdue(const std::vector<SlowWork::Late>& late);
  void OnProbeAnswered();
  static bool Computes(const Ledger::FenceAnswer& answer);
  bool AnyoneComputes() const;
  Ledger::Suspicion Suspect() const;
  void JudgeSilent();
  bool FenceOneOf(const std::set<Incarnation>& replicas, const std::string& reason);

  std::optional<Incarnation> ChooseFirst(const Todo& todo);
  void BeginSeal();
  void AskSeal(Incarnation replica);
  void OnSealed(Incarnation from, const Sealed& sealed);
  void OnAllSealed();
  void BeginReduce();
  // The members of a group's round, with what each one sums: stage by stage.
  std::vector<RoundMemberPlan> MembersOf(const ParameterGroup& group) const;
  void OnReduced(Incarnation from, const Reduced& reduced);
  void OnRoundFailed(Incarnation from, const Reduced& reduced);
  void Finish(absl::StatusOr<StepOutcome> outcome);
  StepOutcome Summarize() const;

  const Options options_;
  Env* const env_;
  Swarm* const swarm_;
  const DataFeed* const data_;
  Wiring* const wiring_;
  const EventSink events_;
  const MaySeal may_seal_;
  const StatesAreRight states_are_right_;
  const FenceFn fence_;
  OnDone done_;

  Phase phase_ = Phase::kRunning;
  bool ahead_;
  bool evaluate_;
  Ledger ledger_;
  std::deque<Todo> todo_;
  std::map<MicrobatchId, std::pair<AttemptId, Incarnation>> in_flight_;
  uint32_t next_attempt_ = 1;
  std::map<MicrobatchId, Incarnation> last_first_;  // whom it was sent to last
  TimerId retry_ = kNoTimer;
  uint32_t retries_ = 0;
  uint32_t replayed_ = 0;
  absl::Duration feeding_;

  std::map<uint32_t, std::pair<double, int64_t>> evaluated_;  // index -> loss sum, tokens

  uint64_t fence_number_ = 0;
  std::set<Incarnation> fenced_;  // in this step
  std::vector<Incarnation> newly_fenced_;
  Ledger::FenceAnswers fence_answers_;
  absl::Time asked_at_;  // the fence, probe or seal under way
  TimerId ask_again_ = kNoTimer;
  bool ask_pending_ = false;  // once more after the fence under way

  Pace own_pace_;
  Pace* const pace_;
  SlowWork slow_;
  absl::Time began_;
  bool probing_ = false;                       // everyone is asked about slow work
  std::map<uint32_t, SlowWork::Late> probed_;  // what it is about
  std::map<uint32_t, std::vector<Ledger::HolderWork>> give_up_;
  TimerId watch_ = kNoTimer;
  absl::Time watch_due_;

  uint32_t seal_number_ = 0;
  std::map<Incarnation, Sealed> sealed_;  // answers to the current seal
  std::set<SegmentName> voided_;
  std::vector<std::vector<RoundMemberPlan>> picked_;  // per stage

  uint32_t round_number_ = 0;
  uint32_t failed_rounds_ = 0;
  std::vector<uint64_t> lanes_;   // by group: what a round's total must be
  std::vector<RoundPlan> plans_;  // by group, of the newest round
  std::map<std::pair<uint32_t, Incarnation>, Reduced> reduced_;  // by group and member
  // Replies may come after this run is gone: they hold a weak reference to this.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_STEP_RUN_H_
