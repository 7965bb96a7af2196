#include "runtime/wire/messages.h"

namespace starling {
namespace {

struct KindName {
  const char* operator()(const Hello&) const { return "Hello"; }
  const char* operator()(const Welcome&) const { return "Welcome"; }
  const char* operator()(const Refused&) const { return "Refused"; }
  const char* operator()(const Heartbeat&) const { return "Heartbeat"; }
  const char* operator()(const Leave&) const { return "Leave"; }
  const char* operator()(const Stop&) const { return "Stop"; }
  const char* operator()(const View&) const { return "View"; }
  const char* operator()(const LoadState&) const { return "LoadState"; }
  const char* operator()(const Loaded&) const { return "Loaded"; }
  const char* operator()(const Fetch&) const { return "Fetch"; }
  const char* operator()(const Chunk&) const { return "Chunk"; }
  const char* operator()(const FetchIndex&) const { return "FetchIndex"; }
  const char* operator()(const ChunkIndex&) const { return "ChunkIndex"; }
  const char* operator()(const Forward&) const { return "Forward"; }
  const char* operator()(const Backward&) const { return "Backward"; }
  const char* operator()(const Notice&) const { return "Notice"; }
  const char* operator()(const Cancel&) const { return "Cancel"; }
  const char* operator()(const Fence&) const { return "Fence"; }
  const char* operator()(const FenceAck&) const { return "FenceAck"; }
  const char* operator()(const Seal&) const { return "Seal"; }
  const char* operator()(const Sealed&) const { return "Sealed"; }
  const char* operator()(const Reduce&) const { return "Reduce"; }
  const char* operator()(const Piece&) const { return "Piece"; }
  const char* operator()(const Result&) const { return "Result"; }
  const char* operator()(const Reduced&) const { return "Reduced"; }
  const char* operator()(const Apply&) const { return "Apply"; }
  const char* operator()(const Applied&) const { return "Applied"; }
  const char* operator()(const StatusRequest&) const { return "StatusRequest"; }
  const char* operator()(const StatusReply&) const { return "StatusReply"; }
  const char* operator()(const Ack&) const { return "Ack"; }
  const char* operator()(const Muster&) const { return "Muster"; }
  const char* operator()(const MusterReply&) const { return "MusterReply"; }
  const char* operator()(const Order&) const { return "Order"; }
  const char* operator()(const MoveTo&) const { return "MoveTo"; }
  const char* operator()(const Behind&) const { return "Behind"; }
  const char* operator()(const Claim&) const { return "Claim"; }
  const char* operator()(const Resend&) const { return "Resend"; }
  const char* operator()(const SaveShard&) const { return "SaveShard"; }
  const char* operator()(const ShardSaved&) const { return "ShardSaved"; }
};

}  // namespace

Channel ChannelOf(const Message& message) {
  const MessageBody& body = message.body;
  const bool bulk = std::holds_alternative<Chunk>(body) || std::holds_alternative<Forward>(body) ||
                    std::holds_alternative<Backward>(body) || std::holds_alternative<Piece>(body) ||
                    std::holds_alternative<Result>(body);
  return bulk ? Channel::kBulk : Channel::kControl;
}

const char* KindOf(const Message& message) { return std::visit(KindName{}, message.body); }

}  // namespace starling
