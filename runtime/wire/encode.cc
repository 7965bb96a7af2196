#include "runtime/wire/encode.h"

#include <string>
#include <variant>
#include <vector>

namespace starling::wire {
namespace {

capnp::Text::Reader TextOf(const std::string& text) {
  return capnp::Text::Reader(text.c_str(), text.size());
}

uint8_t CodeOf(absl::StatusCode code) { return static_cast<uint8_t>(code); }

// Lists of messages; an empty one is left out.
#define STARLING_PUT_LIST(items, to, InitName)                          \
  do {                                                                  \
    if (!(items).empty()) {                                             \
      auto list = (to).InitName(static_cast<unsigned>((items).size())); \
      unsigned next = 0;                                                \
      for (const auto& item : (items)) Put(item, list[next++]);         \
    }                                                                   \
  } while (false)

// Lists of numbers.
#define STARLING_PUT_NUMBERS(items, to, InitName, number)                \
  do {                                                                   \
    if (!(items).empty()) {                                              \
      auto list = (to).InitName(static_cast<unsigned>((items).size()));  \
      unsigned next = 0;                                                 \
      for (const auto& item : (items)) list.set(next++, (number)(item)); \
    }                                                                    \
  } while (false)

// --- parts ---------------------------------------------------------------------------------------

void Put(const Hash128& from, schema::Hash::Builder to) {
  to.setHigh(from.high);
  to.setLow(from.low);
}

void Put(const Endpoint& from, schema::Endpoint::Builder to) {
  to.setControl(TextOf(from.control));
  to.setBulk(TextOf(from.bulk));
}

void Put(const StateName& from, schema::StateName::Builder to) {
  to.setEra(Value(from.era));
  to.setVersion(Value(from.version));
  Put(from.hash, to.initHash());
}

void Put(const WorkId& from, schema::Work::Builder to) {
  to.setStep(Value(from.id.step));
  to.setIndex(from.id.index);
  to.setKind(static_cast<uint8_t>(from.id.kind));
  to.setAttemptCounter(from.attempt.counter);
  to.setAttemptIssuer(Pack(from.attempt.issuer));
}

void Put(const Member& from, schema::Member::Builder to) {
  to.setIncarnation(Pack(from.incarnation));
  to.setPeer(Value(from.peer));
  to.setStage(Value(from.stage));
  Put(from.address, to.initAddress());
  to.setDraining(from.draining);
}

void Put(const Departure& from, schema::Departure::Builder to) {
  to.setIncarnation(Pack(from.incarnation));
  to.setMoves(from.moves_to.has_value());
  if (from.moves_to) to.setMovesTo(Value(*from.moves_to));
}

void Put(const RoundId& from, schema::RoundId::Builder to) {
  to.setEpoch(Value(from.epoch));
  to.setGroup(from.group);
  to.setStep(Value(from.step));
  to.setNumber(from.number);
}

void Put(const SegmentRef& from, schema::SegmentRef::Builder to) {
  to.setId(Value(from.id));
  Put(from.list_hash, to.initListHash());
}

void Put(const RoundMemberPlan& from, schema::RoundMemberPlan::Builder to) {
  to.setIncarnation(Pack(from.incarnation));
  STARLING_PUT_LIST(from.segments, to, initSegments);
}

void Put(const RoundPart& from, schema::RoundPart::Builder to) {
  to.setBegin(from.begin);
  to.setCount(from.count);
  to.setOwner(from.owner);
}

void Put(const SegmentEntry& from, schema::SegmentEntry::Builder to) {
  to.setIndex(from.index);
  to.setAttemptCounter(from.attempt.counter);
  to.setAttemptIssuer(Pack(from.attempt.issuer));
  to.setLossSum(from.loss_sum);
  to.setTokens(from.tokens);
}

void Put(const SegmentSummary& from, schema::SegmentSummary::Builder to) {
  to.setId(Value(from.id));
  to.setSpoiled(from.spoiled);
  to.setContested(from.contested);
  to.setLane(from.lane);
  Put(from.list_hash, to.initListHash());
  STARLING_PUT_LIST(from.entries, to, initEntries);
}

void Put(const UpdateScalars& from, schema::UpdateScalars::Builder to) {
  to.setGradScale(from.grad_scale);
  to.setBeta1(from.beta1);
  to.setOneMinusBeta1(from.one_minus_beta1);
  to.setBeta2(from.beta2);
  to.setOneMinusBeta2(from.one_minus_beta2);
  to.setStepSize(from.step_size);
  to.setInvSqrtBias2(from.inv_sqrt_bias2);
  to.setEpsilon(from.epsilon);
  to.setDecay(from.decay);
}

void Put(const ResultRecord& from, schema::ResultRecord::Builder to) {
  to.setDecision(from.decision);
  to.setVersion(Value(from.version));
  to.setSkip(from.skip);
  Put(from.scalars, to.initScalars());
  Put(from.result_hash, to.initResultHash());
  Put(from.before, to.initBefore());
  Put(from.after, to.initAfter());
}

void Put(const GroupOutcome& from, schema::GroupOutcome::Builder to) {
  Put(from.round, to.initRound());
  STARLING_PUT_LIST(from.members, to, initMembers);
  Put(from.result_hash, to.initResultHash());
  to.setSquareNorm(from.square_norm);
  to.setLane(from.lane);
}

void Put(const Decision& from, schema::Decision::Builder to) {
  to.setNumber(from.number);
  to.setEpoch(Value(from.epoch));
  to.setEra(Value(from.era));
  to.setStep(Value(from.step));
  to.setSkip(from.skip);
  STARLING_PUT_LIST(from.groups, to, initGroups);
  Put(from.scalars, to.initScalars());
  to.setLoss(from.loss);
  to.setGradientNorm(from.gradient_norm);
  to.setLearningRate(from.learning_rate);
  to.setTokens(from.tokens);
  STARLING_PUT_LIST(from.joins, to, initJoins);
  STARLING_PUT_NUMBERS(from.leaves, to, initLeaves, Pack);
  STARLING_PUT_LIST(from.departures, to, initDepartures);
  to.setComputedOn(Value(from.computed_on));
}

void Put(const HeldResult& from, schema::HeldResult::Builder to) {
  Put(from.round, to.initRound());
  Put(from.hash, to.initHash());
}

void Put(const HeldWork& from, schema::HeldWork::Builder to) {
  Put(from.work, to.initWork());
  to.setState(static_cast<uint8_t>(from.state));
  to.setUpstream(Pack(from.upstream));
  to.setHasDownstream(from.downstream.has_value());
  if (from.downstream) to.setDownstream(Pack(*from.downstream));
  to.setDownstreamCounter(from.downstream_attempt.counter);
  to.setDownstreamIssuer(Pack(from.downstream_attempt.issuer));
  to.setOutputKept(from.output_kept);
  to.setGradientKept(from.gradient_kept);
  to.setClaims(from.claims);
  to.setAccepted(from.accepted);
}

void Put(const Splice& from, schema::Splice::Builder to) {
  to.setStage(Value(from.stage));
  to.setHolder(Pack(from.holder));
  to.setAttemptCounter(from.attempt.counter);
  to.setAttemptIssuer(Pack(from.attempt.issuer));
}

void Put(const ResendWork& from, schema::ResendWork::Builder to) {
  Put(from.work, to.initWork());
  to.setAsCounter(from.as.counter);
  to.setAsIssuer(Pack(from.as.issuer));
  STARLING_PUT_NUMBERS(from.add_at, to, initAddAt, Value);
  if (from.until) Put(*from.until, to.initUntil());
  to.setContested(from.contested);
}

void Put(const ShardFile& from, schema::ShardFile::Builder to) {
  to.setName(TextOf(from.name));
  to.setBytes(from.bytes);
  Put(from.hash, to.initHash());
}

// --- bodies --------------------------------------------------------------------------------------

// Writes the body of the kind it is called with.
class BodyWriter {
 public:
  BodyWriter(schema::Envelope::Body::Builder body, FrameWriter* frames)
      : body_(body), frames_(frames) {}

  void operator()(const Hello& from) {
    auto to = body_.initHello();
    to.setProtocol(from.protocol);
    to.setBuild(TextOf(from.build));
    to.setPeer(Value(from.peer));
    Put(from.address, to.initAddress());
    to.setHasStage(from.stage.has_value());
    if (from.stage) to.setStage(Value(*from.stage));
    to.setHost(TextOf(from.host));
    to.setPid(from.pid);
    to.setDevice(TextOf(from.device));
    to.setThreads(from.threads);
    if (from.held) Put(*from.held, to.initHeld());
    STARLING_PUT_LIST(from.results, to, initResults);
    to.setServing(from.serving);
    to.setPinned(from.pinned);
  }

  void operator()(const Welcome& from) {
    auto to = body_.initWelcome();
    to.setIncarnation(Pack(from.incarnation));
    to.setStage(Value(from.stage));
    to.setConfigToml(TextOf(from.config_toml));
  }

  void operator()(const Refused& from) {
    auto to = body_.initRefused();
    to.setRetry(from.retry);
    to.setReason(TextOf(from.reason));
  }

  void operator()(const Heartbeat& from) {
    auto to = body_.initHeartbeat();
    to.setVersion(Value(from.version));
  }

  void operator()(const Leave& from) {
    auto to = body_.initLeave();
    to.setReason(TextOf(from.reason));
    to.setDrain(from.drain);
  }

  void operator()(const Stop& from) { body_.initStop().setReason(TextOf(from.reason)); }

  void operator()(const MoveTo& from) {
    auto to = body_.initMoveTo();
    to.setStage(Value(from.stage));
    to.setLeftAt(Value(from.left_at));
    to.setReason(TextOf(from.reason));
  }

  void operator()(const Behind& from) {
    auto to = body_.initBehind();
    to.setResultS(from.result_s);
    to.setStepS(from.step_s);
  }

  void operator()(const Order& from) {
    auto to = body_.initOrder();
    to.setKind(static_cast<uint8_t>(from.kind));
    to.setReplica(TextOf(from.replica));
    to.setHasStage(from.stage.has_value());
    if (from.stage) to.setStage(Value(*from.stage));
    Put(from.reply_address, to.initReplyAddress());
  }

  void operator()(const View& from) {
    auto to = body_.initView();
    to.setNumber(from.number);
    STARLING_PUT_LIST(from.members, to, initMembers);
  }

  void operator()(const LoadState& from) {
    auto to = body_.initLoadState();
    Put(from.state, to.initState());
    STARLING_PUT_LIST(from.donors, to, initDonors);
  }

  void operator()(const Loaded& from) {
    auto to = body_.initLoaded();
    to.setCode(CodeOf(from.code));
    to.setError(TextOf(from.error));
    Put(from.state, to.initState());
    to.setOlder(from.older);
  }

  void operator()(const Fetch& from) {
    auto to = body_.initFetch();
    to.setStage(Value(from.stage));
    to.setEra(Value(from.era));
    to.setVersion(Value(from.version));
    to.setOffsetBytes(from.offset_bytes);
    to.setLengthBytes(from.length_bytes);
    Put(from.reply_address, to.initReplyAddress());
    to.setContent(static_cast<uint8_t>(from.content));
  }

  void operator()(const FetchIndex& from) {
    auto to = body_.initFetchIndex();
    to.setContent(static_cast<uint8_t>(from.content));
    to.setStage(Value(from.stage));
    to.setEra(Value(from.era));
    to.setVersion(Value(from.version));
    Put(from.reply_address, to.initReplyAddress());
  }

  void operator()(const ChunkIndex& from) {
    auto to = body_.initChunkIndex();
    to.setCode(CodeOf(from.code));
    to.setError(TextOf(from.error));
    to.setTotalBytes(from.total_bytes);
    to.setChunkBytes(from.chunk_bytes);
    STARLING_PUT_LIST(from.chunks, to, initChunks);
    if (from.result) Put(*from.result, to.initResult());
  }

  void operator()(const Chunk& from) {
    auto to = body_.initChunk();
    to.setCode(CodeOf(from.code));
    to.setError(TextOf(from.error));
    to.setOffsetBytes(from.offset_bytes);
    to.setTotalBytes(from.total_bytes);
    PutTensor(from.bytes, to.initBytes());
  }

  void operator()(const Forward& from) {
    auto to = body_.initForward();
    Put(from.work, to.initWork());
    to.setContested(from.contested);
    to.setVersion(Value(from.version));
    STARLING_PUT_NUMBERS(from.add_at, to, initAddAt, Value);
    to.setFirstSequence(from.first_sequence);
    PutTensor(from.input, to.initInput());
    PutTensor(from.targets, to.initTargets());
    if (from.until) Put(*from.until, to.initUntil());
    to.setGradientWanted(from.gradient_wanted);
    to.setReplay(from.replay);
    to.setOffer(from.offer);
  }

  void operator()(const Claim& from) {
    auto to = body_.initClaim();
    Put(from.work, to.initWork());
    to.setAsCounter(from.as.counter);
    to.setAsIssuer(Pack(from.as.issuer));
  }

  void operator()(const Resend& from) {
    auto to = body_.initResend();
    to.setNumber(from.number);
    STARLING_PUT_LIST(from.works, to, initWorks);
  }

  void operator()(const SaveShard& from) {
    auto to = body_.initSaveShard();
    to.setOrder(static_cast<uint8_t>(from.order));
    to.setSave(from.save);
    to.setStage(Value(from.stage));
    Put(from.state, to.initState());
    to.setFolder(TextOf(from.folder));
  }

  void operator()(const ShardSaved& from) {
    auto to = body_.initShardSaved();
    to.setCode(CodeOf(from.code));
    to.setError(TextOf(from.error));
    STARLING_PUT_LIST(from.files, to, initFiles);
  }

  void operator()(const Backward& from) {
    auto to = body_.initBackward();
    Put(from.work, to.initWork());
    PutTensor(from.gradient, to.initGradient());
  }

  void operator()(const Notice& from) {
    auto to = body_.initNotice();
    Put(from.work, to.initWork());
    to.setProgress(static_cast<uint8_t>(from.progress));
    to.setLossSum(from.loss_sum);
    to.setTokens(from.tokens);
  }

  void operator()(const Cancel& from) {
    auto to = body_.initCancel();
    STARLING_PUT_LIST(from.works, to, initWorks);
    to.setNumber(from.number);
  }

  void operator()(const Fence& from) {
    auto to = body_.initFence();
    to.setNumber(from.number);
    to.setStep(Value(from.step));
    STARLING_PUT_NUMBERS(from.fenced, to, initFenced, Pack);
  }

  void operator()(const FenceAck& from) {
    auto to = body_.initFenceAck();
    to.setNumber(from.number);
    STARLING_PUT_LIST(from.held, to, initHeld);
  }

  void operator()(const Seal& from) {
    auto to = body_.initSeal();
    to.setStep(Value(from.step));
    to.setNumber(from.number);
    to.setVerify(from.verify);
  }

  void operator()(const Sealed& from) {
    auto to = body_.initSealed();
    to.setStep(Value(from.step));
    to.setNumber(from.number);
    to.setVersion(Value(from.version));
    Put(from.state_hash, to.initStateHash());
    STARLING_PUT_LIST(from.segments, to, initSegments);
    to.setBytesForward(from.bytes_forward);
    to.setBytesBackward(from.bytes_backward);
    auto parts = to.initParts(kStepParts);
    for (unsigned i = 0; i < kStepParts; ++i) parts.set(i, from.times.parts[i]);
    to.setMicrobatches(from.times.microbatches);
    to.setSent(from.times.sent);
    to.setSendingNs(from.times.sending_ns);
  }

  void operator()(const Reduce& from) {
    auto to = body_.initReduce();
    Put(from.plan.id, to.initId());
    STARLING_PUT_LIST(from.plan.members, to, initMembers);
    STARLING_PUT_LIST(from.plan.parts, to, initParts);
    to.setExpectedLane(from.plan.expected_lane);
    to.setCodec(static_cast<uint8_t>(from.plan.encoding));
    to.setScaleExponent(from.plan.scale_exponent);
  }

  void operator()(const Piece& from) {
    auto to = body_.initPiece();
    PutPart(from, to);
    STARLING_PUT_LIST(from.segments, to, initSegments);
  }

  void operator()(const Result& from) { PutPart(from, body_.initResult()); }

  void operator()(const Reduced& from) {
    auto to = body_.initReduced();
    Put(from.round, to.initRound());
    to.setCode(CodeOf(from.code));
    to.setError(TextOf(from.error));
    Put(from.result_hash, to.initResultHash());
    to.setSquareNorm(from.square_norm);
    to.setLane(from.lane);
  }

  void operator()(const Apply& from) { Put(from.decision, body_.initApply().initDecision()); }

  void operator()(const Applied& from) { Put(from.state, body_.initApplied().initState()); }

  void operator()(const Muster& from) { Put(from.trainer, body_.initMuster().initTrainer()); }

  void operator()(const MusterReply& from) {
    auto to = body_.initMusterReply();
    to.setHears(from.hears);
    to.setHeardAgoS(from.heard_ago_s);
  }

  void operator()(const StatusRequest& from) {
    Put(from.reply_address, body_.initStatusRequest().initReplyAddress());
  }

  void operator()(const StatusReply& from) { body_.initStatusReply().setJson(TextOf(from.json)); }

  void operator()(const Ack& from) {
    auto to = body_.initAck();
    to.setCode(CodeOf(from.code));
    to.setText(TextOf(from.text));
  }

 private:
  void PutTensor(const Blob& from, schema::Tensor::Builder to) {
    const FrameRange range = frames_->Add(from);
    to.setDtype(static_cast<uint8_t>(from.dtype()));
    STARLING_PUT_NUMBERS(from.shape(), to, initShape, int64_t);
    to.setFirstFrame(range.first);
    to.setFrames(range.count);
    to.setCodec(static_cast<uint8_t>(from.encoding()));
  }

  // Piece and Result have the same fields.
  template <typename From, typename To>
  void PutPart(const From& from, To to) {
    Put(from.round, to.initRound());
    to.setPart(from.part);
    to.setLane(from.lane);
    PutTensor(from.data, to.initData());
  }

  schema::Envelope::Body::Builder body_;
  FrameWriter* frames_;
};

#undef STARLING_PUT_LIST
#undef STARLING_PUT_NUMBERS

}  // namespace

void PutMessage(const Message& message, FrameWriter* frames, schema::Envelope::Builder to) {
  to.setMagic(kEnvelopeMagic);
  to.setFormat(kEnvelopeFormat);
  to.setRun(Value(message.run));
  to.setEra(Value(message.era));
  to.setEpoch(Value(message.epoch));
  to.setSender(Pack(message.sender));
  to.setServiceS(message.load.service_s);
  to.setQueued(message.load.queued);
  to.setRequest(message.request);
  to.setReplyTo(message.reply_to);
  std::visit(BodyWriter(to.getBody(), frames), message.body);
}

}  // namespace starling::wire
