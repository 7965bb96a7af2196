// StageServer: a microbatch's way through one replica. Accepts forward work, orders the device's
// queue, passes outputs on, keeps what it accepted until the step is over, and freezes segments.
//
//   upstream --OnForward--> queue -> Compute::Forward -> StageLinks::SendForward --> downstream
//   upstream <--SendBackward-- Compute::Backward (adds to the segment) <- queue <--OnBackward--
//   downstream
//
// It keeps the step's boundaries (the boundary log): of each training microbatch its output and
// the gradient of its input, delivered or not, until the decision, within a budget. So a path can
// be mended around a replica that is gone (docs/decisions/0011): told to (OnResend), the one before
// the gap sends its output on again, and the one behind the gap gives its gradient to whoever
// claims it (OnClaim). It never sends anything a second time by itself once it was accepted.
//
// Boundaries are encoded where they are computed, and kept and sent as they then are. The key of a
// stochastic rounding names the microbatch and not the attempt: who computes it again sends the
// same bits. Codecs run beside the device: what is next is decoded before its turn (what is not
// decoded yet keeps no other waiting), and the device goes on while what it made is encoded.
// Neither gets far ahead of the other.
//
// Uncontested work is added to the main segment. Contested work, which a slow replica may add too,
// goes to segments of its own, one for each microbatch, of which there are a bounded number.
//
// With delayed commit two steps are open: the one to be decided next, computed on the parameters
// before the newest update, and the one after it, on the newest. Work says which version it is to
// be computed on; the device keeps both.
//
// It is sans-I/O: the device is a Compute, the network is StageLinks, both called without waiting.
// Threads: the reactor thread. Errors, as answered to the sender of a message: ok = accepted (or
// had before: every call may be repeated); resource exhausted = busy, choose another; aborted =
// stale, or not here.
#ifndef STARLING_STAGES_STAGE_SERVER_H_
#define STARLING_STAGES_STAGE_SERVER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "runtime/base/buffers.h"
#include "runtime/env/compute.h"
#include "runtime/wire/messages.h"

namespace starling {

// What a StageServer needs of the world around it.
class StageLinks {
 public:
  using Answered = std::function<void(absl::StatusCode)>;

  virtual ~StageLinks() = default;

  // The next stage's replica for one more microbatch, or none for now; then the links call
  // StageServer::RetrySends when there may be one. Not `avoid`, if there is another.
  virtual std::optional<Incarnation> ChooseNext(std::optional<Incarnation> avoid) = 0;

  // `accepted` is called later with the receiver's answer: ok, resource exhausted or aborted. After
  // a refusal the receiver no longer counts as working on it.
  virtual void SendForward(Incarnation to, Forward forward, Answered accepted) = 0;
  // Downstream is done with a microbatch sent there: its gradient came back, or it was dropped.
  virtual void NextFinished(Incarnation replica) = 0;
  // Asks for a gradient; ok = it is coming, aborted = it cannot. False: `to` is not known (yet);
  // RetrySends when it may be.
  virtual bool SendClaim(Incarnation to, const Claim& claim, Answered answered) = 0;
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
    uint32_t slots = 64;                            // open microbatches it accepts of one step
    uint64_t log_budget_bytes = uint64_t{1} << 30;  // of the boundary log
    uint32_t contested = 4;                         // contested microbatches it accepts of one step
    Coding forward;                                 // of outputs; the key is made of the seed
    Coding backward;                                // of gradients
    uint64_t seed = 0;
    bool keeps_older = false;  // the device has the parameters before the newest update, too
  };
  struct Counters {
    uint64_t not_logged = 0;        // boundaries that did not fit into the budget
    uint64_t second_gradients = 0;  // dropped: the microbatch had one
  };

  StageServer(Options options, Compute* compute, StageLinks* links);

  // A new admission, or a state just loaded: forgets everything and serves `version` from now on.
  void Reset(Version version);

  absl::StatusCode OnForward(Incarnation from, const Forward& forward);
  absl::StatusCode OnBackward(Incarnation from, const Backward& backward);
  absl::StatusCode OnClaim(Incarnation from, const Claim& claim);
  absl::StatusCode OnResend(const Resend& resend);
  void OnCancel(const Cancel& cancel);

  // From here on nothing is taken from the fenced nor sent to them. Says what it has of the step.
  FenceAck OnFence(const Fence& fence);

  // Freezes the step's segments between two backwards; later additions go to new segments.
  void OnSeal(Step step, Compute::Done<std::vector<SegmentSummary>> done);

  // What the device has of the version before the one served; nothing after a Reset.
  void SetOlder(OlderParameters older);

  // The version moved on by a decision: frees the step behind it, starts work held for the new one.
  // `updated`: by an update that is posted to the device; else by a skip.
  void OnVersion(Version version, bool updated = true);

  // Tries again to send outputs and claims that had no receiver.
  void RetrySends();

  Version version() const { return version_; }
  Load load() const;
  void VisitBuffers(const BufferVisitor& visit) const;
  const Counters& counters() const { return counters_; }
  uint64_t log_bytes() const { return log_bytes_; }
  // Bytes of boundaries sent for the step's training so far, as encoded.
  struct Sent {
    uint64_t forward = 0;
    uint64_t backward = 0;
  };
  Sent sent(Step step) const;

 private:
  enum class Phase : uint8_t {
    kEarly,           // for a later version: waits for OnVersion
    kForwardQueued,   // or its input is being decoded
    kForwarding,      // or its output is being encoded
    kAwaiting,        // its output is there, the gradient is not
    kBackwardQueued,  // or its gradient is being decoded
    kBackwarding,     // or the gradient of its input is being encoded
    kDone,            // added, or passed back without adding
  };
  // Of the output to the next stage, or of the claim for its gradient.
  enum class Delivery : uint8_t { kNone, kUnsent, kSending, kAccepted, kRefused };
  // A replica of the next or previous stage, and what the microbatch is called there.
  struct Party {
    Incarnation replica;
    AttemptId attempt;
    friend bool operator==(const Party& a, const Party& b) {
      return a.replica == b.replica && a.attempt == b.attempt;
    }
  };
  // Where the output goes.
  struct Route {
    AttemptId attempt;
    bool replay = false;
    uint32_t offers = 0;  // made so far
    std::vector<StageId> add_at;
    std::optional<Splice> until;
    bool contested = false;
    Delivery delivery = Delivery::kNone;
    std::optional<Incarnation> to;
    std::optional<Incarnation> avoid;  // contested: the one that is slow
  };
  struct Held {
    Forward forward;  // its blobs are freed as they are used up
    Incarnation upstream;
    Phase phase = Phase::kForwardQueued;
    bool adds = true;              // this stage is in the stage mask
    bool gradient_wanted = false;  // of its input, by the stage before
    bool output_logged = false;    // else it is freed once accepted
    Route route;
    std::vector<Party> sources;        // who may send its gradient
    std::vector<Party> takers;         // who get the gradient of its input
    std::vector<Incarnation> charged;  // told to StageLinks by SendForward, not yet by NextFinished
    Blob output;
    Blob gradient;        // of the output, until backward has it
    Blob input_gradient;  // logged
    double loss_sum = 0;
    int64_t tokens = 0;
    std::optional<SegmentId> segment;  // of its own: it is contested
    uint64_t age = 0;                  // place in the queue
  };
  // Order of the device's queue: lower step, then replays, then backward, then forward, then age.
  using QueueKey = std::tuple<Step, int, uint64_t>;
  using HeldMap = std::map<WorkId, Held>;
  // What there is of a step beside its microbatches.
  struct OpenStep {
    uint64_t fence = 0;         // the newest answered; they count anew in each step
    SegmentId main_segment{0};  // where uncontested additions go now
    SegmentId next_segment{1};
    std::set<SegmentId> contested_segments;
    Sent sent;
  };
  bool first_stage() const { return Value(options_.stage) == 0; }
  bool last_stage() const { return Value(options_.stage) + 1 == options_.stage_count; }
  // Its gradient is needed here.
  static bool NeedsGradient(const Held& held) { return held.adds || held.gradient_wanted; }
  uint32_t OpenCount() const;
  // The gradient of its input is here, or will be if it is asked for now.
  bool CanGive(const Held& held) const;
  absl::StatusCode Admit(const Forward& forward) const;
  // An order that follows from an earlier fence than the newest answered.
  bool IsStale(Step step, uint64_t fence) const;

  Coding CodingOf(const MicrobatchId& id, bool forward) const;
  QueueKey KeyOf(const WorkId& work, const Held& held) const;
  // What a queued one is queued with.
  static Blob& BoundaryOf(Held& held);
  // For the device, or to be decoded first.
  void Enqueue(const WorkId& work, Held& held, Phase phase);
  void DecodeAhead();
  void OnDecoded(const WorkId& work, uint64_t age, absl::StatusOr<Blob> boundary);
  // Gives the device what is first in its queue, and the codecs what will soon be.
  void RunNext();
  void StartNext();
  void StartForward(const WorkId& work, Held& held);
  void OnForwardDone(const WorkId& work, absl::StatusOr<ForwardOutput> output);
  void FinishLastStage(const WorkId& work, Held& held, const ForwardOutput& output);
  void StartBackward(const WorkId& work, Held& held);
  void OnBackwardDone(const WorkId& work, absl::StatusOr<BackwardOutput> output);
  // What the device has made, as it travels, goes to OnOutput or to OnInputGradient: at once if
  // there is nothing to encode.
  void EncodeAndPass(const WorkId& work, Blob boundary, bool forward);
  void Pass(const WorkId& work, Blob boundary, bool forward);
  void OnOutput(const WorkId& work, Blob output);
  void OnInputGradient(const WorkId& work, Blob gradient);
  // Nothing more is run until a Reset.
  void Fail(const absl::Status& status);

  bool ResendOne(const ResendWork& resend);
  void Offer(const WorkId& work, Held& held);
  void OfferClaim(const WorkId& work, Held& held);
  void OnOffered(const WorkId& work, AttemptId as, Incarnation to, absl::StatusCode code);
  void OnClaimed(const WorkId& work, AttemptId as, absl::StatusCode code);
  void Refused(const WorkId& work, Held& held);

  bool Log(uint64_t bytes);
  HeldWork Report(const WorkId& work, const Held& held) const;
  SegmentId SegmentFor(Step step, Held& held);
  void Uncharge(Held& held);
  void Finish(Held& held);
  HeldMap::iterator Forget(HeldMap::iterator it);

  const Options options_;
  Compute* const compute_;
  StageLinks* const links_;

  Version version_{0};
  OlderParameters older_ = OlderParameters::kNone;  // of the version before
  std::map<Step, OpenStep> steps_;
  HeldMap held_;
  std::map<WorkId, WorkId> aliases_;               // what others call the output of one held here
  std::set<WorkId> cancelled_;                     // never taken up (again)
  std::map<WorkId, uint32_t> refused_;             // the newest offer that was
  std::set<std::pair<QueueKey, WorkId>> queue_;    // for the device
  std::set<std::pair<QueueKey, WorkId>> encoded_;  // would be, but has to be decoded
  uint64_t next_age_ = 0;
  bool device_busy_ = false;
  bool failed_ = false;
  uint32_t decoding_ = 0;  // boundaries, now
  uint32_t encoding_ = 0;
  // Completions hold a weak reference: those of a time before a Reset, or of a server that is gone,
  // are ignored.
  std::shared_ptr<bool> life_ = std::make_shared<bool>(true);
  std::set<Incarnation> fenced_;
  uint64_t log_bytes_ = 0;
  Counters counters_;
  double forward_s_ = 0;  // smoothed device time of one microbatch
  double backward_s_ = 0;
};

}  // namespace starling

#endif  // STARLING_STAGES_STAGE_SERVER_H_
