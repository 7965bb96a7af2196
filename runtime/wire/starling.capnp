@0xd87db7e68a55f78b;
# Frame 0 of every packet: one Envelope. The fields mean what the structs of the same names in
# messages.h say; docs/wire.md describes the exchanges. Tensors travel as frames behind it, a Tensor
# here only names them.
#
# An incarnation is one number, epoch << 32 | counter. Status codes are those of absl::StatusCode.
# Fields and body kinds may be added at the end; a change that an older build would misread raises
# kProtocolVersion (messages.h), one that it could not even refuse raises kEnvelopeFormat (wire.h).

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("starling::schema");

struct Envelope {
  magic @0 :UInt32;
  format @1 :UInt32;
  run @2 :UInt64;
  era @3 :UInt32;
  epoch @4 :UInt32;
  sender @5 :UInt64;
  serviceS @6 :Float32;  # of the sender's Load
  queued @7 :UInt32;     # of the sender's Load
  request @8 :UInt64;
  replyTo @9 :UInt64;

  body :union {
    hello @10 :Hello;
    welcome @11 :Welcome;
    refused @12 :Refused;
    heartbeat @13 :Heartbeat;
    leave @14 :Leave;
    stop @15 :Stop;
    view @16 :View;
    loadState @17 :LoadState;
    loaded @18 :Loaded;
    fetch @19 :Fetch;
    chunk @20 :Chunk;
    forward @21 :Forward;
    backward @22 :Backward;
    notice @23 :Notice;
    cancel @24 :Cancel;
    fence @25 :Fence;
    fenceAck @26 :FenceAck;
    seal @27 :Seal;
    sealed @28 :Sealed;
    reduce @29 :Reduce;
    piece @30 :Piece;
    result @31 :Result;
    reduced @32 :Reduced;
    apply @33 :Apply;
    applied @34 :Applied;
    statusRequest @35 :StatusRequest;
    statusReply @36 :StatusReply;
    ack @37 :Ack;
    fetchIndex @38 :FetchIndex;
    chunkIndex @39 :ChunkIndex;
    muster @40 :Muster;
    musterReply @41 :MusterReply;
    order @42 :Order;
    moveTo @43 :MoveTo;
    behind @44 :Behind;
    claim @45 :Claim;
    resend @46 :Resend;
    saveShard @47 :SaveShard;
    shardSaved @48 :ShardSaved;
  }
}

# --- parts ---------------------------------------------------------------------------------------

# `frames` packet frames from number `firstFrame` on (0 is the first behind the envelope), whose bytes
# in a row are the elements, little-endian, last dimension fastest. No elements: no frames.
struct Tensor {
  dtype @0 :UInt8;  # 0 u8, 1 i32, 2 i64, 3 f32, 4 f16, 5 bf16
  shape @1 :List(Int64);
  firstFrame @2 :UInt32;
  frames @3 :UInt32;
  # 0 raw, 1 fp16, 2 bf16, 3 int8, 4 int4 (docs/wire.md). Not raw: dtype is f32, and it and the shape
  # say what the bytes decode to.
  codec @4 :UInt8;
}

struct Hash {
  high @0 :UInt64;
  low @1 :UInt64;
}

struct Endpoint {
  control @0 :Text;
  bulk @1 :Text;
}

struct StateName {
  era @0 :UInt32;
  version @1 :UInt64;
  hash @2 :Hash;
}

struct Work {
  step @0 :UInt64;
  index @1 :UInt32;
  kind @2 :UInt8;  # 0 training, 1 evaluation
  attemptCounter @3 :UInt32;
  attemptIssuer @4 :UInt64;
}

struct Member {
  incarnation @0 :UInt64;
  peer @1 :UInt64;
  stage @2 :UInt32;
  address @3 :Endpoint;
  draining @4 :Bool;
}

struct Departure {
  incarnation @0 :UInt64;
  moves @1 :Bool;
  movesTo @2 :UInt32;  # if it moves
}

struct RoundId {
  epoch @0 :UInt32;
  group @1 :UInt32;
  step @2 :UInt64;
  number @3 :UInt32;
}

struct SegmentRef {
  id @0 :UInt32;
  listHash @1 :Hash;
}

struct RoundMemberPlan {
  incarnation @0 :UInt64;
  segments @1 :List(SegmentRef);
}

struct RoundPart {
  begin @0 :Int64;
  count @1 :Int64;
  owner @2 :UInt32;
}

struct SegmentEntry {
  index @0 :UInt32;
  attemptCounter @1 :UInt32;
  attemptIssuer @2 :UInt64;
  lossSum @3 :Float64;
  tokens @4 :Int64;
}

struct SegmentSummary {
  id @0 :UInt32;
  spoiled @1 :Bool;
  lane @2 :UInt64;
  listHash @3 :Hash;
  entries @4 :List(SegmentEntry);
  contested @5 :Bool;
}

struct UpdateScalars {
  gradScale @0 :Float32;
  beta1 @1 :Float32;
  oneMinusBeta1 @2 :Float32;
  beta2 @3 :Float32;
  oneMinusBeta2 @4 :Float32;
  stepSize @5 :Float32;
  invSqrtBias2 @6 :Float32;
  epsilon @7 :Float32;
  decay @8 :Float32;
}

struct GroupOutcome {
  round @0 :RoundId;
  members @1 :List(RoundMemberPlan);
  resultHash @2 :Hash;
  squareNorm @3 :Float64;
  lane @4 :UInt64;
}

struct Decision {
  number @0 :UInt64;
  epoch @1 :UInt32;
  era @2 :UInt32;
  step @3 :UInt64;
  skip @4 :Bool;
  groups @5 :List(GroupOutcome);
  scalars @6 :UpdateScalars;
  loss @7 :Float64;
  gradientNorm @8 :Float64;
  learningRate @9 :Float64;
  tokens @10 :Int64;
  joins @11 :List(Member);
  leaves @12 :List(UInt64);  # incarnations
  departures @13 :List(Departure);
  computedOn @14 :UInt64;  # version
}

# --- admission and membership --------------------------------------------------------------------

struct Hello {
  protocol @0 :UInt32;
  build @1 :Text;
  peer @2 :UInt64;
  address @3 :Endpoint;
  hasStage @4 :Bool;
  stage @5 :UInt32;
  host @6 :Text;
  pid @7 :UInt64;
  device @8 :Text;
  threads @9 :UInt32;
  held @10 :StateName;  # null: none
  results @11 :List(HeldResult);
  serving @12 :Bool;
  pinned @13 :Bool;
}

struct HeldResult {
  round @0 :RoundId;
  hash @1 :Hash;
}

struct Muster {
  trainer @0 :Endpoint;
}

struct MusterReply {
  hears @0 :Bool;
  heardAgoS @1 :Float64;
}

struct Welcome {
  incarnation @0 :UInt64;
  stage @1 :UInt32;
  configToml @2 :Text;
}

struct Refused {
  retry @0 :Bool;
  reason @1 :Text;
}

struct Heartbeat {
  version @0 :UInt64;
}

struct Leave {
  reason @0 :Text;
  drain @1 :Bool;
}

struct Stop {
  reason @0 :Text;
}

struct MoveTo {
  stage @0 :UInt32;
  leftAt @1 :UInt64;
  reason @2 :Text;
}

struct Behind {
  resultS @0 :Float32;
  stepS @1 :Float32;
}

struct View {
  number @0 :UInt64;
  members @1 :List(Member);
}

struct LoadState {
  state @0 :StateName;
  donors @1 :List(Endpoint);
}

struct Loaded {
  code @0 :UInt8;
  error @1 :Text;
  state @2 :StateName;
  older @3 :Bool;
}

struct Fetch {
  stage @0 :UInt32;
  era @1 :UInt32;
  version @2 :UInt64;
  offsetBytes @3 :UInt64;
  lengthBytes @4 :UInt64;
  replyAddress @5 :Endpoint;
  content @6 :UInt8;  # 0 state, 1 result
}

struct FetchIndex {
  content @0 :UInt8;
  stage @1 :UInt32;
  era @2 :UInt32;
  version @3 :UInt64;
  replyAddress @4 :Endpoint;
}

struct ResultRecord {
  decision @0 :UInt64;
  version @1 :UInt64;
  skip @2 :Bool;
  scalars @3 :UpdateScalars;
  resultHash @4 :Hash;
  before @5 :Hash;
  after @6 :Hash;
}

struct ChunkIndex {
  code @0 :UInt8;
  error @1 :Text;
  totalBytes @2 :UInt64;
  chunkBytes @3 :UInt64;
  chunks @4 :List(Hash);
  result @5 :ResultRecord;  # null: not of a result
}

struct Chunk {
  code @0 :UInt8;
  error @1 :Text;
  offsetBytes @2 :UInt64;
  totalBytes @3 :UInt64;
  bytes @4 :Tensor;
}

struct SaveShard {
  order @0 :UInt8;  # 0 hold, 1 write, 2 release
  save @1 :UInt64;
  stage @2 :UInt32;
  state @3 :StateName;
  folder @4 :Text;
}

struct ShardFile {
  name @0 :Text;
  bytes @1 :UInt64;
  hash @2 :Hash;
}

struct ShardSaved {
  code @0 :UInt8;
  error @1 :Text;
  files @2 :List(ShardFile);
}

# --- a microbatch's way --------------------------------------------------------------------------

struct Splice {
  stage @0 :UInt32;
  holder @1 :UInt64;
  attemptCounter @2 :UInt32;
  attemptIssuer @3 :UInt64;
}

struct Forward {
  work @0 :Work;
  contested @1 :Bool;
  version @2 :UInt64;
  addAt @3 :List(UInt32);
  firstSequence @4 :UInt64;
  input @5 :Tensor;
  targets @6 :Tensor;
  until @7 :Splice;  # null: the path goes on to the last stage
  gradientWanted @8 :Bool;
  replay @9 :Bool;
  offer @10 :UInt32;
}

struct Claim {
  work @0 :Work;
  asCounter @1 :UInt32;
  asIssuer @2 :UInt64;
}

struct ResendWork {
  work @0 :Work;
  asCounter @1 :UInt32;
  asIssuer @2 :UInt64;
  addAt @3 :List(UInt32);
  until @4 :Splice;  # null: as in Forward
  contested @5 :Bool;
}

struct Resend {
  number @0 :UInt64;
  works @1 :List(ResendWork);
}

struct Backward {
  work @0 :Work;
  gradient @1 :Tensor;
}

struct Notice {
  work @0 :Work;
  progress @1 :UInt8;  # 0 added, 1 evaluated, 2 unclaimed
  lossSum @2 :Float64;
  tokens @3 :Int64;
}

struct Cancel {
  works @0 :List(Work);
  number @1 :UInt64;
}

# --- fences --------------------------------------------------------------------------------------

struct Fence {
  number @0 :UInt64;
  step @1 :UInt64;
  fenced @2 :List(UInt64);  # incarnations
}

struct HeldWork {
  work @0 :Work;
  state @1 :UInt8;  # 0 open, 1 added, 2 done, 3 unclaimed
  upstream @2 :UInt64;
  hasDownstream @3 :Bool;
  downstream @4 :UInt64;
  downstreamCounter @5 :UInt32;
  downstreamIssuer @6 :UInt64;
  outputKept @7 :Bool;
  gradientKept @8 :Bool;
  claims @9 :Bool;
  accepted @10 :Bool;
}

struct FenceAck {
  number @0 :UInt64;
  held @1 :List(HeldWork);
}

# --- the end of a step ---------------------------------------------------------------------------

struct Seal {
  step @0 :UInt64;
  number @1 :UInt32;
  verify @2 :Bool;
}

struct Sealed {
  step @0 :UInt64;
  number @1 :UInt32;
  version @2 :UInt64;
  stateHash @3 :Hash;
  segments @4 :List(SegmentSummary);
  bytesForward @5 :UInt64;
  bytesBackward @6 :UInt64;
  parts @7 :List(UInt64);       # nanoseconds, in the order of StepPart; none: not known
  microbatches @8 :UInt32;
  sent @9 :UInt32;
  sendingNs @10 :UInt64;
}

struct Reduce {
  id @0 :RoundId;
  members @1 :List(RoundMemberPlan);
  parts @2 :List(RoundPart);
  expectedLane @3 :UInt64;
  codec @4 :UInt8;
  scaleExponent @5 :Int32;
}

struct Piece {
  round @0 :RoundId;
  part @1 :UInt32;
  lane @2 :UInt64;
  data @3 :Tensor;
  segments @4 :List(SegmentRef);
}

struct Result {
  round @0 :RoundId;
  part @1 :UInt32;
  lane @2 :UInt64;
  data @3 :Tensor;
}

struct Reduced {
  round @0 :RoundId;
  code @1 :UInt8;
  error @2 :Text;
  resultHash @3 :Hash;
  squareNorm @4 :Float64;
  lane @5 :UInt64;
}

struct Apply {
  decision @0 :Decision;
}

struct Applied {
  state @0 :StateName;
}

# --- the rest ------------------------------------------------------------------------------------

struct StatusRequest {
  replyAddress @0 :Endpoint;
}

struct StatusReply {
  json @0 :Text;
}

struct Order {
  kind @0 :UInt8;  # 0 leave, 1 pause, 2 unpause
  replica @1 :Text;
  hasStage @2 :Bool;
  stage @3 :UInt32;
  replyAddress @4 :Endpoint;
}

struct Ack {
  code @0 :UInt8;
  text @1 :Text;
}
