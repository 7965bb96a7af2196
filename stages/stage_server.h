// StageServer: a microbatch's way through one replica. Accepts forward work, orders the device's
// queue, passes outputs on, keeps what it accepted until the step is over, and freezes segments.
//
//   upstream --OnForward--> queue -> Compute::Forward -> StageLinks::SendForward --> downstream
//   upstream <--SendBackward-- Compute::Backward (adds to the segment) <- queue <--OnBackward--
//   downstream
//
// It is sans-I/O: the device is a Compute, the network is StageLinks, both called without waiting.
// Threads: the reactor thread. Errors, as answered to the sender of a message: ok = accepted (or
// had before: every call may be repeated); resource exhausted = busy, choose another; aborted =
// stale.
#ifndef STARLING_STAGES_STAGE_SERVER_H_
#define STARLING_STAGES_STAGE_SERVER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>
#include <vector>

#include "runtime/base/buffers.h"
#include "runtime/env/compute.h"
#include "runtime/wire/messages.h"

namespace starling {

// What a StageServer needs of the world around it.
class StageLinks {
 public:
  virtual ~StageLinks() = default;

  // The next stage's replica for one more microbatch, or none for now; then the links call
  // StageServer::RetrySends when there may be one.
  virtual std::optional<Incarnation> ChooseNext() = 0;

  // `accepted` is called later with the receiver's answer: ok, resource exhausted or aborted. After
  // a refusal the receiver no longer counts as working on it.
  virtual void SendForward(Incarnation to, Forward forward,
                           std::function<void(absl::StatusCode)> accepted) = 0;
  // Downstream is done with a microbatch sent there: its gradient came back, or it was dropped.
  virtual void NextFinished(Incarnation replica) = 0;
  virtual void SendBackward(Incarnation to, Backward backward) = 0;
  virtual void Notify(Notice notice) = 0;
  // The device failed: this replica can do nothing more.
  virtual void DeviceFailed(const absl::Status& status) = 0;
};

class StageServer {
 public:
  struct Options {
    StageId stage{0};
    uint32_t stage_count = 1;
    uint32_t slots = 64;  // open microbatches it accepts of one step
  };

  StageServer(Options options, Compute* compute, StageLinks* links);

  // A new admission, or a state just loaded: forgets everything and serves `version` from now on.
  void Reset(Version version);

  absl::StatusCode OnForward(Incarnation from, const Forward& forward);
  absl::StatusCode OnBackward(Incarnation from, const Backward& backward);
  void OnCancel(const Cancel& cancel);

  // From here on nothing is taken from the fenced nor sent to them. Says what it has of the step.
  FenceAck OnFence(const Fence& fence);

  // Freezes the step's segments between two backwards; later additions go to a new segment.
  void OnSeal(Step step, Compute::Done<std::vector<SegmentSummary>> done);

  // The version moved on by a decision: frees the step behind it, starts work held for the new one.
  void OnVersion(Version version);

  // Tries again to send outputs that had no receiver.
  void RetrySends();

  Version version() const { return version_; }
  Load load() const;
  void VisitBuffers(const BufferVisitor& visit) const;

 private:
  enum class Phase : uint8_t {
    kEarly,  // for a later version: waits for OnVersion
    kForwardQueued,
    kForwarding,
    kUnsent,   // output ready, no receiver
    kSending,  // offered downstream, not answered yet
    kAwaitingGradient,
    kBackwardQueued,
    kBackwarding,
    kDone,  // added, or passed back without adding
  };
  struct Held {
    Forward forward;  // its blobs are freed as they are used up
    Incarnation upstream;
    std::optional<Incarnation> downstream;
    Phase phase = Phase::kForwardQueued;
    bool adds = true;  // this stage is in the stage mask
    Blob output;
    Blob gradient;
    double loss_sum = 0;
    int64_t tokens = 0;
    uint64_t age = 0;  // place in the queue
  };
  // Order of the device's queue: lower step, then replays, then backward, then forward, then age.
  using QueueKey = std::tuple<Step, int, uint64_t>;
  using HeldMap = std::map<WorkId, Held>;

  bool first_stage() const { return Value(options_.stage) == 0; }
  bool last_stage() const { return Value(options_.stage) + 1 == options_.stage_count; }
  // A stage nearer the input waits for this microbatch's gradient.
  bool GradientWanted(const Held& held) const;
  uint32_t OpenCount() const;

  QueueKey KeyOf(const WorkId& work, const Held& held) const;
  void Enqueue(const WorkId& work, Held& held, Phase phase);
  void RunNext();
  void StartForward(const WorkId& work, Held& held);
  void OnForwardDone(const WorkId& work, absl::StatusOr<ForwardOutput> output);
  void FinishLastStage(const WorkId& work, Held& held, const ForwardOutput& output);
  void Offer(const WorkId& work, Held& held);
  void OnOffered(const WorkId& work, Incarnation to, absl::StatusCode code);
  void StartBackward(const WorkId& work, Held& held);
  void OnBackwardDone(const WorkId& work, absl::StatusOr<BackwardOutput> output);
  void Finish(const WorkId& work, Held& held);
  HeldMap::iterator Forget(HeldMap::iterator it);

  const Options options_;
  Compute* const compute_;
  StageLinks* const links_;

  Version version_{0};
  HeldMap held_;
  std::set<std::pair<QueueKey, WorkId>> queue_;
  uint64_t next_age_ = 0;
  bool device_busy_ = false;
  // Completions hold a weak reference: those of a time before a Reset, or of a server that is gone,
  // are ignored.
  std::shared_ptr<bool> life_ = std::make_shared<bool>(true);
  std::set<Incarnation> fenced_;
  SegmentId segment_{0};  // where additions go now
  double forward_s_ = 0;  // smoothed device time of one microbatch
  double backward_s_ = 0;
};

}  // namespace starling

#endif  // STARLING_STAGES_STAGE_SERVER_H_
