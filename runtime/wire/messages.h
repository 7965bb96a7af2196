// Messages: what peers say to each other, as plain structs. runtime/wire/wire.h turns them into
// packets (starling.capnp) and back. docs/wire.md describes each exchange.
//
// A message with a `request` number is repeated until a message with that number in `reply_to`
// comes back (runtime/membership/outbox.h), so every request is idempotent: handling it twice does
// no more than handling it once, and answers again. Typed answers (Sealed, Reduced, ...) are
// replies; requests without one are answered by Ack.
#ifndef STARLING_RUNTIME_WIRE_MESSAGES_H_
#define STARLING_RUNTIME_WIRE_MESSAGES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "runtime/base/blob.h"
#include "runtime/base/hash.h"
#include "runtime/base/ids.h"
#include "runtime/base/step_times.h"
#include "runtime/env/compute.h"
#include "runtime/env/transport.h"

namespace starling {

// Grows when peers of two builds could not understand each other.
constexpr uint32_t kProtocolVersion = 3;

struct StateName {
  Era era{0};
  Version version{0};
  Hash128 hash;

  friend bool operator==(const StateName& a, const StateName& b) {
    return a.era == b.era && a.version == b.version && a.hash == b.hash;
  }
  friend bool operator!=(const StateName& a, const StateName& b) { return !(a == b); }
};

struct RoundId {
  Epoch epoch{0};
  Step step{0};
  uint32_t group = 0;   // parameter group; stage s's own parameters are group s
  uint32_t number = 0;  // counts the rounds of this step and group

  friend bool operator==(const RoundId& a, const RoundId& b) {
    return a.epoch == b.epoch && a.step == b.step && a.group == b.group && a.number == b.number;
  }
  friend bool operator!=(const RoundId& a, const RoundId& b) { return !(a == b); }
  friend bool operator<(const RoundId& a, const RoundId& b) {
    return std::tie(a.epoch, a.step, a.group, a.number) <
           std::tie(b.epoch, b.step, b.group, b.number);
  }
};

// What a replica reports about its speed with everything it sends; wiring uses it.
struct Load {
  float service_s = 0;  // smoothed seconds of device time per microbatch, forward and backward
  uint32_t queued = 0;  // microbatches accepted and not finished
};

// --- admission and membership ---

// The complete result of a round that a replica holds, of a step it has not applied yet.
struct HeldResult {
  RoundId round;
  Hash128 hash;
};

// peer -> trainer: let me in.
struct Hello {
  uint32_t protocol = kProtocolVersion;
  std::string build;  // version text, for messages
  PeerId peer{0};
  Endpoint address;              // where this peer is reached
  std::optional<StageId> stage;  // the stage it wants; none: the trainer chooses
  std::string host;
  uint64_t pid = 0;
  std::string device;  // "cpu", "cuda:0"
  uint32_t threads = 0;
  std::optional<StateName> held;  // state it has from before
  // Of the step after `held`: what lets it finish a decision that was taken.
  std::vector<HeldResult> results;
  // It has lost sight of its trainer and gave nothing up: if that trainer answers with an Ack, both
  // go on as if nothing had been. Another trainer lets it in anew.
  bool serving = false;
  bool pinned = false;  // it must stay at `stage`: its owner chose it
};

// trainer -> peer, reply to Hello: you are in, as this incarnation. State comes with Load.
struct Welcome {
  Incarnation incarnation;
  StageId stage{0};
  std::string config_toml;  // the run's configuration, resolved
};

// trainer -> peer, reply to Hello or to anything of a peer it does not know (any more): what to do.
struct Refused {
  bool retry = false;  // true: say Hello again (fenced, or unknown); false: give up
  std::string reason;  // one line for the user
};

// restarted trainer -> member of its newest record: report. The reply is a MusterReply; a peer that
// hears no trainer follows with a Hello to `trainer`. Ignored unless its epoch is above the peer's.
struct Muster {
  Endpoint trainer;  // only `control`
};

// peer -> restarted trainer, reply to Muster. Message::epoch is that of its own trainer.
struct MusterReply {
  bool hears = false;      // its own trainer
  double heard_ago_s = 0;  // when it last did
};

// peer -> trainer, about once a second; answered by an Ack without a number. Message::load says how
// busy it is.
struct Heartbeat {
  Version version{0};
};

// peer -> trainer: leaving, with the reason ("asked to leave", "device failed: ..."). Answered by
// an Ack; `drain`: only once others can go on without it. It gets no new work, serves on meanwhile,
// and is told Stop when a decision has named it.
struct Leave {
  std::string reason;
  bool drain = false;
};

// trainer -> peer: the run is over, or you have left it; exit.
struct Stop {
  std::string reason;
};

// trainer -> peer: you have left your stage at this version; say Hello for that one.
struct MoveTo {
  StageId stage{0};
  Version left_at{0};
  std::string reason;
};

// peer -> trainer, while it joins: results come slower than steps are taken, so it will not catch
// up as things are. Not answered.
struct Behind {
  float result_s = 0;  // per result, of late
  float step_s = 0;    // between the versions it was told to load
};

struct Member {
  Incarnation incarnation;
  PeerId peer{0};
  StageId stage{0};
  Endpoint address;
  bool draining = false;  // about to leave: new work goes to others, if there are any
};

// trainer -> peer: who serves. `number` grows with every change. Holds the peer's own stage, those
// next to it and those that it shares parameters with, not everyone.
struct View {
  uint64_t number = 0;
  std::vector<Member> members;
};

// trainer -> peer: get this state from these donors and answer with Loaded. `held` state of that
// name need not be fetched, and then there may be no donors.
struct LoadState {
  StateName state;
  std::vector<Endpoint> donors;
};

// peer -> trainer, reply to LoadState.
struct Loaded {
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string error;
  StateName state;
  bool older = false;  // it came there by an update, and has the parameters before it too
};

// What is fetched in chunks: a stage's state, or what a decision's round summed for the stage.
enum class Content : uint8_t { kState = 0, kResult = 1 };

// peer or trainer -> donor: how is this cut into chunks, and what are their hashes? `version` is
// that of the state, or the one the result makes.
struct FetchIndex {
  Content content = Content::kState;
  StageId stage{0};
  Era era{0};
  Version version{0};
  Endpoint reply_address;
};

// What a decision did to a stage's state. With the result's bytes it is all that takes the state
// of hash `before` to the one of hash `after`, to the bit.
struct ResultRecord {
  uint64_t decision = 0;  // the record's number
  Version version{0};     // the one it made
  bool skip = false;      // only the version moves: there are no bytes, and before == after
  UpdateScalars scalars;
  Hash128 result_hash;  // of GroupOutcome; of several groups the hash of theirs
  Hash128 before;       // state hashes
  Hash128 after;
};

// donor -> asker, reply to FetchIndex. All donors of one content give the same index: the bits are
// the same everywhere.
struct ChunkIndex {
  absl::StatusCode code = absl::StatusCode::kOk;  // as Chunk's
  std::string error;
  uint64_t total_bytes = 0;
  uint64_t chunk_bytes = 0;            // of every chunk but the last, which may be shorter
  std::vector<Hash128> chunks;         // of each chunk's bytes
  std::optional<ResultRecord> result;  // of a result
};

// peer or trainer -> donor: bytes [offset, offset + length) of a state or a result.
struct Fetch {
  StageId stage{0};
  Era era{0};
  Version version{0};
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
  Endpoint reply_address;
  Content content = Content::kState;
};

// donor -> asker, reply to Fetch.
struct Chunk {
  // aborted: the donor does not have it (any more); failed precondition: not yet, ask again;
  // resource exhausted: too much is asked of it, ask again later or another one.
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string error;
  uint64_t offset_bytes = 0;
  uint64_t total_bytes = 0;
  Blob bytes;  // u8
};

// What a replica is to do with its state for a checkpoint: keep a snapshot of it, write that, or
// let go of it.
enum class ShardOrder : uint8_t { kHold = 0, kWrite = 1, kRelease = 2 };

// trainer -> replica: your stage's part of a checkpoint, which you write yourself
// (checkpoint.store = "shared"). A replica holds one snapshot: that of the newest save it heard of.
// Answered by ShardSaved, kRelease not at all.
struct SaveShard {
  ShardOrder order = ShardOrder::kHold;
  uint64_t save = 0;  // names the attempt
  StageId stage{0};
  StateName state;
  std::string folder;  // kWrite: absolute; it exists
};

struct ShardFile {
  std::string name;
  uint64_t bytes = 0;
  Hash128 hash;  // of all of them
};

// replica -> trainer, reply to SaveShard: the snapshot is held; or the files are written and
// synced.
struct ShardSaved {
  // aborted: it has not got that state (any more); else what its disk says.
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string error;
  std::vector<ShardFile> files;  // kWrite
};

// --- a microbatch's way ---

// Where a path that is being mended meets what is left of another: `holder` serves `stage` and has
// the microbatch as `attempt`.
struct Splice {
  StageId stage{0};
  Incarnation holder;
  AttemptId attempt;
};

// trainer or replica -> next replica. Answered by Ack: ok = accepted; resource exhausted = busy,
// the baton is back; aborted = stale (old version, old step, fenced sender).
struct Forward {
  WorkId work;
  // A replica that is alive may hold the same microbatch at this stage: it is added to a segment of
  // its own.
  bool contested = false;
  Version version{0};           // of the parameters it must be computed on
  std::vector<StageId> add_at;  // a replay: the stages that add its gradient; others: all do
  uint64_t first_sequence = 0;
  Blob input;    // ForwardInput::input; an f32 one may be encoded
  Blob targets;  // i32 [n, T], travels on to the last stage
  // The stage before it sends nothing on, but claims the gradient there.
  std::optional<Splice> until;
  bool gradient_wanted = true;  // by the sender
  bool replay = false;
  // Counts the sender's offers of this work: one that was refused stays refused, though its message
  // may come again, but a later one may be accepted.
  uint32_t offer = 0;
};

// replica -> the one it got the microbatch from. Answered by Ack.
struct Backward {
  WorkId work;
  Blob gradient;  // f32 [n, T, C]; may be encoded
};

// replica -> replica of the next stage: give me your gradient of `work`, now or when you have it; I
// call it `as`. Answered by Ack: ok = it is coming; aborted = it cannot.
struct Claim {
  WorkId work;
  AttemptId as;
};

// One microbatch to send on once more: the output of `work` goes on its way as attempt `as`.
struct ResendWork {
  WorkId work;
  AttemptId as;
  std::vector<StageId> add_at;
  std::optional<Splice> until;
  bool contested = false;
};

// trainer -> replica: a path is broken behind you. Answered by Ack: aborted = one of these is not
// here (any more), or a fence that was answered since has made this stale.
struct Resend {
  uint64_t number = 0;  // of the fence whose answers led to it
  std::vector<ResendWork> works;
};

// What happened to a microbatch at a stage. A hint for the trainer's ledger. kUnclaimed: a Claim
// was refused, so no gradient will come.
enum class Progress : uint8_t { kAdded = 0, kEvaluated = 1, kUnclaimed = 2 };

// replica -> trainer. Answered by Ack.
struct Notice {
  WorkId work;
  Progress progress = Progress::kAdded;
  double loss_sum = 0;  // last stage
  int64_t tokens = 0;   // last stage
};

// trainer -> replica: forget these microbatches if they are still open, and if no fence has been
// answered since the one of this number.
struct Cancel {
  std::vector<WorkId> works;
  uint64_t number = 0;
};

// --- fences ---

// trainer -> replica: accept nothing from these any more, and say what you have. Without `fenced`
// it only asks.
struct Fence {
  uint64_t number = 0;  // grows; an answer names it
  Step step{0};
  std::vector<Incarnation> fenced;
};

// kOpen: waits for its turn or its gradient; kAdded: it has the gradient; kDone: it is through with
// it; kUnclaimed: open, and its claim was refused.
enum class HeldState : uint8_t { kOpen = 0, kAdded = 1, kDone = 2, kUnclaimed = 3 };

struct HeldWork {
  WorkId work;
  HeldState state = HeldState::kOpen;
  Incarnation upstream;                   // from whom it came
  std::optional<Incarnation> downstream;  // to whom it went, or of whom it claims its gradient
  AttemptId downstream_attempt;           // what it is called there
  bool claims = false;                    // nothing goes downstream, it only claims
  bool accepted = false;                  // downstream has it, as far as known
  bool output_kept = false;               // it can be sent on again
  bool gradient_kept = false;             // the boundary's gradient can be claimed, now or later
};

// replica -> trainer, reply to Fence: every training microbatch of the step it accepted. From here
// on it takes nothing from the fenced, and sends nothing to them.
struct FenceAck {
  uint64_t number = 0;
  std::vector<HeldWork> held;
};

// --- the end of a step ---

// trainer -> replica: freeze the step's segments. `number` counts the seals of the step.
struct Seal {
  Step step{0};
  uint32_t number = 0;
  bool verify = false;  // Sealed::state_hash is to be taken from memory anew
};

// replica -> trainer, reply to Seal: everything it has frozen for the step.
struct Sealed {
  Step step{0};
  uint32_t number = 0;
  Version version{0};  // of its state, which the step's update will be made to
  Hash128 state_hash;  // of those parameters and moments
  std::vector<SegmentSummary> segments;
  // Bytes of boundaries it has sent for the step's training so far, as encoded.
  uint64_t bytes_forward = 0;
  uint64_t bytes_backward = 0;
  // From the last seal of the step before to this one; all zero where that is not known.
  StepTimes times;
};

struct SegmentRef {
  SegmentId id{0};
  Hash128 list_hash;

  friend bool operator==(const SegmentRef& a, const SegmentRef& b) {
    return a.id == b.id && a.list_hash == b.list_hash;
  }
};

struct RoundMemberPlan {
  Incarnation incarnation;
  std::vector<SegmentRef> segments;  // to sum, in this order; empty: contributes nothing
};

// Elements [begin, begin + count) of the flat run are summed by member number `owner`.
struct RoundPart {
  int64_t begin = 0;
  int64_t count = 0;
  uint32_t owner = 0;
};

// The whole plan of an all-reduce; members add in the order of `members`.
struct RoundPlan {
  RoundId id;
  std::vector<RoundMemberPlan> members;
  std::vector<RoundPart> parts;  // consecutive, covering the run
  uint64_t expected_lane = 0;
  // Of pieces and results: raw, fp16 or bf16, of values times 2^scale_exponent.
  Encoding encoding = Encoding::kRaw;
  int32_t scale_exponent = 0;
};

// trainer -> member.
struct Reduce {
  RoundPlan plan;
};

// member -> owner of a part. Answered by Ack.
struct Piece {
  RoundId round;
  uint32_t part = 0;
  uint64_t lane = 0;  // of the member's whole contribution
  Blob data;          // f32 [count], as the plan says
  // The contribution it is a piece of. With the sender and the part it names the piece in every
  // round of the step: the owner keeps it, so it need not come again.
  std::vector<SegmentRef> segments;
};

// owner -> every member. Answered by Ack.
struct Result {
  RoundId round;
  uint32_t part = 0;
  uint64_t lane = 0;  // total over the members that contributed
  Blob data;          // f32 [count], as the plan says
};

// member -> trainer, reply to Reduce: it holds the whole result.
struct Reduced {
  RoundId round;
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string error;
  Hash128 result_hash;
  double square_norm = 0;  // of the unscaled result
  uint64_t lane = 0;
};

struct GroupOutcome {
  RoundId round;
  std::vector<RoundMemberPlan> members;  // what was summed
  Hash128 result_hash;
  double square_norm = 0;
  uint64_t lane = 0;
};

// One of `leaves` that was not lost: it left at this decision, and its work still counts in it.
struct Departure {
  Incarnation incarnation;
  std::optional<StageId> moves_to;  // it will serve there
};

// The one record that ends a step, and the only thing that changes membership. Records are
// numbered; `step` 0 marks a record that only changes membership or begins an era.
struct Decision {
  uint64_t number = 0;
  Epoch epoch{0};
  Era era{0};
  Step step{0};
  bool skip = false;  // the version moves, nothing else does
  std::vector<GroupOutcome> groups;
  UpdateScalars scalars;
  double loss = 0;           // mean over tokens
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  int64_t tokens = 0;
  std::vector<Member> joins;  // count from the next step on
  std::vector<Incarnation> leaves;
  std::vector<Departure> departures;
  // Of the parameters that the gradients are of: VersionBefore(step), or one earlier with delayed
  // commit.
  Version computed_on{0};
};

// trainer -> member.
struct Apply {
  Decision decision;
};

// member -> trainer, reply to Apply.
struct Applied {
  StateName state;
};

// --- the rest ---

// anyone -> trainer; answered by StatusReply to `reply_address`.
struct StatusRequest {
  Endpoint reply_address;
};

struct StatusReply {
  std::string json;
};

enum class OrderKind : uint8_t { kLeave = 0, kPause = 1, kUnpause = 2 };

// `starling leave`, `starling pause` -> trainer. Answered by an Ack to `reply_address`: done or
// under way, or not found, with a line for the user.
struct Order {
  OrderKind kind = OrderKind::kLeave;
  std::string replica;  // leave: the replica's name, or its peer's; empty: any one of `stage`
  std::optional<StageId> stage;
  Endpoint reply_address;
};

// The answer to a request that has no typed reply.
struct Ack {
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string text;
};

using MessageBody =
    std::variant<Hello, Welcome, Refused, Heartbeat, Leave, Stop, View, LoadState, Loaded, Fetch,
                 Chunk, Forward, Backward, Notice, Cancel, Fence, FenceAck, Seal, Sealed, Reduce,
                 Piece, Result, Reduced, Apply, Applied, StatusRequest, StatusReply, Ack,
                 FetchIndex, ChunkIndex, Muster, MusterReply, Order, MoveTo, Behind, Claim, Resend,
                 SaveShard, ShardSaved>;

struct Message {
  RunId run{0};  // 0: not known yet (Hello, StatusRequest)
  Era era{0};
  Epoch epoch{0};
  Incarnation sender;     // {0, 0}: not admitted
  Load load;              // of the sender, where it is a replica
  uint64_t request = 0;   // 0: no answer wanted
  uint64_t reply_to = 0;  // the request this answers
  MessageBody body;
};

// The channel a message travels on: bulk for those that carry tensors, control for the rest.
Channel ChannelOf(const Message& message);
const char* KindOf(const Message& message);  // "Forward", for logs and traces

}  // namespace starling

#endif  // STARLING_RUNTIME_WIRE_MESSAGES_H_
