#include "runtime/wire/decode.h"

#include <string>
#include <utility>
#include <vector>

#include "runtime/wire/encode.h"
#include "runtime/wire/wire.h"

namespace starling::wire {
namespace {

// Reads values and remembers the first thing that is wrong; what is read after that is discarded.
class Decoder {
 public:
  explicit Decoder(FrameReader* frames) : frames_(frames) {}

  const absl::Status& status() const { return status_; }
  void GetBody(schema::Envelope::Body::Reader from, MessageBody* to);

 private:
  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  // --- numbers, texts, lists ---

  void Get(capnp::Text::Reader from, std::string* to) { to->assign(from.cStr(), from.size()); }

  // An enumeration of 0 to `last`.
  template <typename Enum>
  void GetEnum(uint8_t from, Enum last, const char* what, Enum* to) {
    if (from > static_cast<uint8_t>(last)) {
      Fail(absl::InvalidArgumentError(std::string("unknown ") + what + " " + std::to_string(from)));
      return;
    }
    *to = static_cast<Enum>(from);
  }

  void GetCode(uint8_t from, absl::StatusCode* to) {
    if (from > static_cast<uint8_t>(absl::StatusCode::kUnauthenticated)) {
      Fail(absl::InvalidArgumentError("unknown status code " + std::to_string(from)));
      return;
    }
    *to = static_cast<absl::StatusCode>(from);
  }

  void GetCount(int64_t from, int64_t* to) {
    if (from < 0) Fail(absl::InvalidArgumentError("a negative count"));
    *to = from;
  }

  template <typename List, typename T>
  void GetList(List from, std::vector<T>* to) {
    to->resize(from.size());
    for (unsigned i = 0; i < from.size() && status_.ok(); ++i) Get(from[i], &(*to)[i]);
  }

  void GetIncarnations(capnp::List<uint64_t>::Reader from, std::vector<Incarnation>* to) {
    to->reserve(from.size());
    for (uint64_t packed : from) to->push_back(UnpackIncarnation(packed));
  }

  // One that may be encoded.
  void GetCoded(schema::Tensor::Reader from, Blob* to) {
    if (!status_.ok()) return;
    std::vector<int64_t> shape;
    for (int64_t extent : from.getShape()) shape.push_back(extent);
    absl::StatusOr<Blob> blob = frames_->Next(from.getDtype(), from.getCodec(), std::move(shape),
                                              FrameRange{from.getFirstFrame(), from.getFrames()});
    if (!blob.ok()) return Fail(blob.status());
    *to = *std::move(blob);
  }

  void GetTensor(schema::Tensor::Reader from, Blob* to) {
    GetCoded(from, to);
    if (to->encoded()) Fail(absl::InvalidArgumentError("a tensor that should not be encoded"));
  }

  // --- parts ---

  void Get(schema::Hash::Reader from, Hash128* to) {
    to->high = from.getHigh();
    to->low = from.getLow();
  }

  void Get(schema::Endpoint::Reader from, Endpoint* to) {
    Get(from.getControl(), &to->control);
    Get(from.getBulk(), &to->bulk);
  }

  void Get(schema::StateName::Reader from, StateName* to) {
    to->era = static_cast<Era>(from.getEra());
    to->version = static_cast<Version>(from.getVersion());
    Get(from.getHash(), &to->hash);
  }

  void Get(schema::Work::Reader from, WorkId* to) {
    to->id.step = static_cast<Step>(from.getStep());
    to->id.index = from.getIndex();
    GetEnum(from.getKind(), WorkKind::kEvaluate, "kind of work", &to->id.kind);
    to->attempt.counter = from.getAttemptCounter();
    to->attempt.issuer = UnpackIncarnation(from.getAttemptIssuer());
  }

  void Get(schema::Member::Reader from, Member* to) {
    to->incarnation = UnpackIncarnation(from.getIncarnation());
    to->peer = static_cast<PeerId>(from.getPeer());
    to->stage = static_cast<StageId>(from.getStage());
    Get(from.getAddress(), &to->address);
    to->draining = from.getDraining();
  }

  void Get(schema::Departure::Reader from, Departure* to) {
    to->incarnation = UnpackIncarnation(from.getIncarnation());
    if (from.getMoves()) to->moves_to = static_cast<StageId>(from.getMovesTo());
  }

  void Get(schema::RoundId::Reader from, RoundId* to) {
    to->epoch = static_cast<Epoch>(from.getEpoch());
    to->group = from.getGroup();
    to->step = static_cast<Step>(from.getStep());
    to->number = from.getNumber();
  }

  void Get(schema::SegmentRef::Reader from, SegmentRef* to) {
    to->id = static_cast<SegmentId>(from.getId());
    Get(from.getListHash(), &to->list_hash);
  }

  void Get(schema::RoundMemberPlan::Reader from, RoundMemberPlan* to) {
    to->incarnation = UnpackIncarnation(from.getIncarnation());
    GetList(from.getSegments(), &to->segments);
  }

  void Get(schema::RoundPart::Reader from, RoundPart* to) {
    GetCount(from.getBegin(), &to->begin);
    GetCount(from.getCount(), &to->count);
    to->owner = from.getOwner();
  }

  void Get(schema::SegmentEntry::Reader from, SegmentEntry* to) {
    to->index = from.getIndex();
    to->attempt.counter = from.getAttemptCounter();
    to->attempt.issuer = UnpackIncarnation(from.getAttemptIssuer());
    to->loss_sum = from.getLossSum();
    GetCount(from.getTokens(), &to->tokens);
  }

  void Get(schema::SegmentSummary::Reader from, SegmentSummary* to) {
    to->id = static_cast<SegmentId>(from.getId());
    to->spoiled = from.getSpoiled();
    to->contested = from.getContested();
    to->lane = from.getLane();
    Get(from.getListHash(), &to->list_hash);
    GetList(from.getEntries(), &to->entries);
  }

  void Get(schema::UpdateScalars::Reader from, UpdateScalars* to) {
    to->grad_scale = from.getGradScale();
    to->beta1 = from.getBeta1();
    to->one_minus_beta1 = from.getOneMinusBeta1();
    to->beta2 = from.getBeta2();
    to->one_minus_beta2 = from.getOneMinusBeta2();
    to->step_size = from.getStepSize();
    to->inv_sqrt_bias2 = from.getInvSqrtBias2();
    to->epsilon = from.getEpsilon();
    to->decay = from.getDecay();
  }

  void Get(schema::ResultRecord::Reader from, ResultRecord* to) {
    to->decision = from.getDecision();
    to->version = static_cast<Version>(from.getVersion());
    to->skip = from.getSkip();
    Get(from.getScalars(), &to->scalars);
    Get(from.getResultHash(), &to->result_hash);
    Get(from.getBefore(), &to->before);
    Get(from.getAfter(), &to->after);
  }

  void Get(schema::GroupOutcome::Reader from, GroupOutcome* to) {
    Get(from.getRound(), &to->round);
    GetList(from.getMembers(), &to->members);
    Get(from.getResultHash(), &to->result_hash);
    to->square_norm = from.getSquareNorm();
    to->lane = from.getLane();
  }

  void Get(schema::Decision::Reader from, Decision* to) {
    to->number = from.getNumber();
    to->epoch = static_cast<Epoch>(from.getEpoch());
    to->era = static_cast<Era>(from.getEra());
    to->step = static_cast<Step>(from.getStep());
    to->skip = from.getSkip();
    GetList(from.getGroups(), &to->groups);
    Get(from.getScalars(), &to->scalars);
    to->loss = from.getLoss();
    to->gradient_norm = from.getGradientNorm();
    to->learning_rate = from.getLearningRate();
    GetCount(from.getTokens(), &to->tokens);
    GetList(from.getJoins(), &to->joins);
    GetIncarnations(from.getLeaves(), &to->leaves);
    GetList(from.getDepartures(), &to->departures);
    to->computed_on = static_cast<Version>(from.getComputedOn());
  }

  void Get(schema::HeldWork::Reader from, HeldWork* to) {
    Get(from.getWork(), &to->work);
    GetEnum(from.getState(), HeldState::kUnclaimed, "state of work", &to->state);
    to->upstream = UnpackIncarnation(from.getUpstream());
    if (from.getHasDownstream()) to->downstream = UnpackIncarnation(from.getDownstream());
    to->downstream_attempt.counter = from.getDownstreamCounter();
    to->downstream_attempt.issuer = UnpackIncarnation(from.getDownstreamIssuer());
    to->output_kept = from.getOutputKept();
    to->gradient_kept = from.getGradientKept();
    to->claims = from.getClaims();
    to->accepted = from.getAccepted();
  }

  void Get(schema::Splice::Reader from, Splice* to) {
    to->stage = static_cast<StageId>(from.getStage());
    to->holder = UnpackIncarnation(from.getHolder());
    to->attempt.counter = from.getAttemptCounter();
    to->attempt.issuer = UnpackIncarnation(from.getAttemptIssuer());
  }

  void GetStages(capnp::List<uint32_t>::Reader from, std::vector<StageId>* to) {
    to->reserve(from.size());
    for (uint32_t stage : from) to->push_back(static_cast<StageId>(stage));
  }

  void Get(schema::ResendWork::Reader from, ResendWork* to) {
    Get(from.getWork(), &to->work);
    to->as.counter = from.getAsCounter();
    to->as.issuer = UnpackIncarnation(from.getAsIssuer());
    GetStages(from.getAddAt(), &to->add_at);
    if (from.hasUntil()) Get(from.getUntil(), &to->until.emplace());
    to->contested = from.getContested();
  }

  void Get(schema::ShardFile::Reader from, ShardFile* to) {
    Get(from.getName(), &to->name);
    to->bytes = from.getBytes();
    Get(from.getHash(), &to->hash);
  }

  // --- bodies ---

  void Get(schema::HeldResult::Reader from, HeldResult* to) {
    Get(from.getRound(), &to->round);
    Get(from.getHash(), &to->hash);
  }

  void Get(schema::Muster::Reader from, Muster* to) { Get(from.getTrainer(), &to->trainer); }

  void Get(schema::MusterReply::Reader from, MusterReply* to) {
    to->hears = from.getHears();
    to->heard_ago_s = from.getHeardAgoS();
  }

  void Get(schema::Hello::Reader from, Hello* to) {
    to->protocol = from.getProtocol();
    Get(from.getBuild(), &to->build);
    to->peer = static_cast<PeerId>(from.getPeer());
    Get(from.getAddress(), &to->address);
    if (from.getHasStage()) to->stage = static_cast<StageId>(from.getStage());
    Get(from.getHost(), &to->host);
    to->pid = from.getPid();
    Get(from.getDevice(), &to->device);
    to->threads = from.getThreads();
    if (from.hasHeld()) Get(from.getHeld(), &to->held.emplace());
    GetList(from.getResults(), &to->results);
    to->serving = from.getServing();
    to->pinned = from.getPinned();
  }

  void Get(schema::Welcome::Reader from, Welcome* to) {
    to->incarnation = UnpackIncarnation(from.getIncarnation());
    to->stage = static_cast<StageId>(from.getStage());
    Get(from.getConfigToml(), &to->config_toml);
  }

  void Get(schema::Refused::Reader from, Refused* to) {
    to->retry = from.getRetry();
    Get(from.getReason(), &to->reason);
  }

  void Get(schema::Heartbeat::Reader from, Heartbeat* to) {
    to->version = static_cast<Version>(from.getVersion());
  }

  void Get(schema::Leave::Reader from, Leave* to) {
    Get(from.getReason(), &to->reason);
    to->drain = from.getDrain();
  }

  void Get(schema::Stop::Reader from, Stop* to) { Get(from.getReason(), &to->reason); }

  void Get(schema::MoveTo::Reader from, MoveTo* to) {
    to->stage = static_cast<StageId>(from.getStage());
    to->left_at = static_cast<Version>(from.getLeftAt());
    Get(from.getReason(), &to->reason);
  }

  void Get(schema::Behind::Reader from, Behind* to) {
    to->result_s = from.getResultS();
    to->step_s = from.getStepS();
  }

  void Get(schema::Order::Reader from, Order* to) {
    GetEnum(from.getKind(), OrderKind::kUnpause, "kind of order", &to->kind);
    Get(from.getReplica(), &to->replica);
    if (from.getHasStage()) to->stage = static_cast<StageId>(from.getStage());
    Get(from.getReplyAddress(), &to->reply_address);
  }

  void Get(schema::View::Reader from, View* to) {
    to->number = from.getNumber();
    GetList(from.getMembers(), &to->members);
  }

  void Get(schema::LoadState::Reader from, LoadState* to) {
    Get(from.getState(), &to->state);
    GetList(from.getDonors(), &to->donors);
  }

  void Get(schema::Loaded::Reader from, Loaded* to) {
    GetCode(from.getCode(), &to->code);
    Get(from.getError(), &to->error);
    Get(from.getState(), &to->state);
    to->older = from.getOlder();
  }

  void Get(schema::Fetch::Reader from, Fetch* to) {
    to->stage = static_cast<StageId>(from.getStage());
    to->era = static_cast<Era>(from.getEra());
    to->version = static_cast<Version>(from.getVersion());
    to->offset_bytes = from.getOffsetBytes();
    to->length_bytes = from.getLengthBytes();
    Get(from.getReplyAddress(), &to->reply_address);
    GetEnum(from.getContent(), Content::kResult, "content", &to->content);
  }

  void Get(schema::FetchIndex::Reader from, FetchIndex* to) {
    GetEnum(from.getContent(), Content::kResult, "content", &to->content);
    to->stage = static_cast<StageId>(from.getStage());
    to->era = static_cast<Era>(from.getEra());
    to->version = static_cast<Version>(from.getVersion());
    Get(from.getReplyAddress(), &to->reply_address);
  }

  void Get(schema::ChunkIndex::Reader from, ChunkIndex* to) {
    GetCode(from.getCode(), &to->code);
    Get(from.getError(), &to->error);
    to->total_bytes = from.getTotalBytes();
    to->chunk_bytes = from.getChunkBytes();
    GetList(from.getChunks(), &to->chunks);
    if (from.hasResult()) Get(from.getResult(), &to->result.emplace());
  }

  void Get(schema::Chunk::Reader from, Chunk* to) {
    GetCode(from.getCode(), &to->code);
    Get(from.getError(), &to->error);
    to->offset_bytes = from.getOffsetBytes();
    to->total_bytes = from.getTotalBytes();
    GetTensor(from.getBytes(), &to->bytes);
  }

  void Get(schema::Forward::Reader from, Forward* to) {
    Get(from.getWork(), &to->work);
    to->contested = from.getContested();
    to->version = static_cast<Version>(from.getVersion());
    GetStages(from.getAddAt(), &to->add_at);
    to->first_sequence = from.getFirstSequence();
    GetCoded(from.getInput(), &to->input);
    GetTensor(from.getTargets(), &to->targets);
    if (from.hasUntil()) Get(from.getUntil(), &to->until.emplace());
    to->gradient_wanted = from.getGradientWanted();
    to->replay = from.getReplay();
    to->offer = from.getOffer();
  }

  void Get(schema::Claim::Reader from, Claim* to) {
    Get(from.getWork(), &to->work);
    to->as.counter = from.getAsCounter();
    to->as.issuer = UnpackIncarnation(from.getAsIssuer());
  }

  void Get(schema::Resend::Reader from, Resend* to) {
    to->number = from.getNumber();
    GetList(from.getWorks(), &to->works);
  }

  void Get(schema::SaveShard::Reader from, SaveShard* to) {
    GetEnum(from.getOrder(), ShardOrder::kRelease, "order for a shard", &to->order);
    to->save = from.getSave();
    to->stage = static_cast<StageId>(from.getStage());
    Get(from.getState(), &to->state);
    Get(from.getFolder(), &to->folder);
  }

  void Get(schema::ShardSaved::Reader from, ShardSaved* to) {
    GetCode(from.getCode(), &to->code);
    Get(from.getError(), &to->error);
    GetList(from.getFiles(), &to->files);
  }

  void Get(schema::Backward::Reader from, Backward* to) {
    Get(from.getWork(), &to->work);
    GetCoded(from.getGradient(), &to->gradient);
  }

  void Get(schema::Notice::Reader from, Notice* to) {
    Get(from.getWork(), &to->work);
    GetEnum(from.getProgress(), Progress::kUnclaimed, "progress", &to->progress);
    to->loss_sum = from.getLossSum();
    GetCount(from.getTokens(), &to->tokens);
  }

  void Get(schema::Cancel::Reader from, Cancel* to) {
    GetList(from.getWorks(), &to->works);
    to->number = from.getNumber();
  }

  void Get(schema::Fence::Reader from, Fence* to) {
    to->number = from.getNumber();
    to->step = static_cast<Step>(from.getStep());
    GetIncarnations(from.getFenced(), &to->fenced);
  }

  void Get(schema::FenceAck::Reader from, FenceAck* to) {
    to->number = from.getNumber();
    GetList(from.getHeld(), &to->held);
  }

  void Get(schema::Seal::Reader from, Seal* to) {
    to->step = static_cast<Step>(from.getStep());
    to->number = from.getNumber();
    to->verify = from.getVerify();
  }

  void Get(schema::Sealed::Reader from, Sealed* to) {
    to->step = static_cast<Step>(from.getStep());
    to->number = from.getNumber();
    to->version = static_cast<Version>(from.getVersion());
    Get(from.getStateHash(), &to->state_hash);
    GetList(from.getSegments(), &to->segments);
    to->bytes_forward = from.getBytesForward();
    to->bytes_backward = from.getBytesBackward();
    const auto parts = from.getParts();
    if (parts.size() != 0 && parts.size() != kStepParts) {
      return Fail(absl::InvalidArgumentError("a step's time has " + std::to_string(parts.size()) +
                                             " parts, not " + std::to_string(kStepParts)));
    }
    for (unsigned i = 0; i < parts.size(); ++i) to->times.parts[i] = parts[i];
    to->times.microbatches = from.getMicrobatches();
    to->times.sent = from.getSent();
    to->times.sending_ns = from.getSendingNs();
  }

  void Get(schema::Reduce::Reader from, Reduce* to) {
    Get(from.getId(), &to->plan.id);
    GetList(from.getMembers(), &to->plan.members);
    GetList(from.getParts(), &to->plan.parts);
    to->plan.expected_lane = from.getExpectedLane();
    GetEnum(from.getCodec(), kLastEncoding, "codec", &to->plan.encoding);
    to->plan.scale_exponent = from.getScaleExponent();
  }

  // Piece and Result have the same fields.
  template <typename From, typename To>
  void GetPart(From from, To* to) {
    Get(from.getRound(), &to->round);
    to->part = from.getPart();
    to->lane = from.getLane();
    GetCoded(from.getData(), &to->data);
  }
  void Get(schema::Piece::Reader from, Piece* to) {
    GetPart(from, to);
    GetList(from.getSegments(), &to->segments);
  }
  void Get(schema::Result::Reader from, Result* to) { GetPart(from, to); }

  void Get(schema::Reduced::Reader from, Reduced* to) {
    Get(from.getRound(), &to->round);
    GetCode(from.getCode(), &to->code);
    Get(from.getError(), &to->error);
    Get(from.getResultHash(), &to->result_hash);
    to->square_norm = from.getSquareNorm();
    to->lane = from.getLane();
  }

  void Get(schema::Apply::Reader from, Apply* to) { Get(from.getDecision(), &to->decision); }

  void Get(schema::Applied::Reader from, Applied* to) { Get(from.getState(), &to->state); }

  void Get(schema::StatusRequest::Reader from, StatusRequest* to) {
    Get(from.getReplyAddress(), &to->reply_address);
  }

  void Get(schema::StatusReply::Reader from, StatusReply* to) { Get(from.getJson(), &to->json); }

  void Get(schema::Ack::Reader from, Ack* to) {
    GetCode(from.getCode(), &to->code);
    Get(from.getText(), &to->text);
  }

  FrameReader* frames_;
  absl::Status status_;
};

void Decoder::GetBody(schema::Envelope::Body::Reader from, MessageBody* to) {
  switch (from.which()) {
#define STARLING_BODY(NAME, Kind)    \
  case schema::Envelope::Body::NAME: \
    return Get(from.get##Kind(), &to->emplace<Kind>());
    STARLING_BODY(HELLO, Hello)
    STARLING_BODY(WELCOME, Welcome)
    STARLING_BODY(REFUSED, Refused)
    STARLING_BODY(HEARTBEAT, Heartbeat)
    STARLING_BODY(LEAVE, Leave)
    STARLING_BODY(STOP, Stop)
    STARLING_BODY(VIEW, View)
    STARLING_BODY(LOAD_STATE, LoadState)
    STARLING_BODY(LOADED, Loaded)
    STARLING_BODY(FETCH, Fetch)
    STARLING_BODY(CHUNK, Chunk)
    STARLING_BODY(FORWARD, Forward)
    STARLING_BODY(BACKWARD, Backward)
    STARLING_BODY(NOTICE, Notice)
    STARLING_BODY(CANCEL, Cancel)
    STARLING_BODY(FENCE, Fence)
    STARLING_BODY(FENCE_ACK, FenceAck)
    STARLING_BODY(SEAL, Seal)
    STARLING_BODY(SEALED, Sealed)
    STARLING_BODY(REDUCE, Reduce)
    STARLING_BODY(PIECE, Piece)
    STARLING_BODY(RESULT, Result)
    STARLING_BODY(REDUCED, Reduced)
    STARLING_BODY(APPLY, Apply)
    STARLING_BODY(APPLIED, Applied)
    STARLING_BODY(STATUS_REQUEST, StatusRequest)
    STARLING_BODY(STATUS_REPLY, StatusReply)
    STARLING_BODY(ACK, Ack)
    STARLING_BODY(FETCH_INDEX, FetchIndex)
    STARLING_BODY(CHUNK_INDEX, ChunkIndex)
    STARLING_BODY(MUSTER, Muster)
    STARLING_BODY(MUSTER_REPLY, MusterReply)
    STARLING_BODY(ORDER, Order)
    STARLING_BODY(MOVE_TO, MoveTo)
    STARLING_BODY(BEHIND, Behind)
    STARLING_BODY(CLAIM, Claim)
    STARLING_BODY(RESEND, Resend)
    STARLING_BODY(SAVE_SHARD, SaveShard)
    STARLING_BODY(SHARD_SAVED, ShardSaved)
#undef STARLING_BODY
  }
  Fail(absl::InvalidArgumentError("unknown kind of message " +
                                  std::to_string(static_cast<unsigned>(from.which()))));
}

}  // namespace

absl::Status GetMessage(schema::Envelope::Reader from, FrameReader* frames, Message* to) {
  if (from.getMagic() != kEnvelopeMagic) {
    return absl::InvalidArgumentError("not an envelope of Starling");
  }
  if (from.getFormat() != kEnvelopeFormat) {
    return absl::InvalidArgumentError("the sender writes envelopes of format " +
                                      std::to_string(from.getFormat()) + ", this build reads " +
                                      std::to_string(kEnvelopeFormat));
  }
  to->run = static_cast<RunId>(from.getRun());
  to->era = static_cast<Era>(from.getEra());
  to->epoch = static_cast<Epoch>(from.getEpoch());
  to->sender = UnpackIncarnation(from.getSender());
  to->load.service_s = from.getServiceS();
  to->load.queued = from.getQueued();
  to->request = from.getRequest();
  to->reply_to = from.getReplyTo();
  Decoder decoder(frames);
  decoder.GetBody(from.getBody(), &to->body);
  return decoder.status();
}

}  // namespace starling::wire
