// Every field of every message, for tests that must not forget one: `Fields<T>::Visit(value,
// visit)` calls `visit(field)` for each, in order. A field added to a struct and not here does not
// compile (the structured bindings below name them all), so that it cannot be forgotten in the
// encoder unnoticed.
#ifndef STARLING_TESTS_RUNTIME_WIRE_MESSAGE_FIELDS_H_
#define STARLING_TESTS_RUNTIME_WIRE_MESSAGE_FIELDS_H_

#include <type_traits>

#include "runtime/wire/messages.h"

namespace starling {

template <typename T>
struct Fields;  // has Visit(value, visitor) for the structs of messages.h

// STARLING_FIELDS(Type, a, b): for structs of up to 14 fields.
#define STARLING_FIELDS(Type, ...)                          \
  template <>                                               \
  struct Fields<Type> {                                     \
    template <typename Value, typename Visitor>             \
    static void Visit(Value& value, Visitor&& visit) {      \
      auto& [__VA_ARGS__] = value;                          \
      VisitAll(visit, __VA_ARGS__);                         \
    }                                                       \
    template <typename Visitor, typename... Field>          \
    static void VisitAll(Visitor& visit, Field&... field) { \
      (visit(field), ...);                                  \
    }                                                       \
  }

STARLING_FIELDS(Hash128, a, b);
STARLING_FIELDS(Incarnation, a, b);
STARLING_FIELDS(AttemptId, a, b);
STARLING_FIELDS(MicrobatchId, a, b, c);
STARLING_FIELDS(WorkId, a, b);
STARLING_FIELDS(Endpoint, a, b);
STARLING_FIELDS(StateName, a, b, c);
STARLING_FIELDS(Load, a, b);
STARLING_FIELDS(Member, a, b, c, d, e);
STARLING_FIELDS(Departure, a, b);
STARLING_FIELDS(RoundId, a, b, c, d);
STARLING_FIELDS(SegmentRef, a, b);
STARLING_FIELDS(RoundMemberPlan, a, b);
STARLING_FIELDS(RoundPart, a, b, c);
STARLING_FIELDS(RoundPlan, a, b, c, d, e, f);
STARLING_FIELDS(SegmentEntry, a, b, c, d);
STARLING_FIELDS(SegmentSummary, a, b, c, d, e, f);
STARLING_FIELDS(UpdateScalars, a, b, c, d, e, f, g, h, i);
STARLING_FIELDS(GroupOutcome, a, b, c, d, e);
STARLING_FIELDS(Decision, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o);
STARLING_FIELDS(HeldWork, a, b, c, d, e, f, g, h, i);
STARLING_FIELDS(Splice, a, b, c);
STARLING_FIELDS(ResendWork, a, b, c, d, e);
STARLING_FIELDS(ResultRecord, a, b, c, d, e, f, g);
STARLING_FIELDS(StepTimes, a, b, c, d);

STARLING_FIELDS(HeldResult, a, b);
STARLING_FIELDS(Hello, a, b, c, d, e, f, g, h, i, j, k, l, m);
STARLING_FIELDS(Welcome, a, b, c);
STARLING_FIELDS(Refused, a, b);
STARLING_FIELDS(Heartbeat, a);
STARLING_FIELDS(Leave, a, b);
STARLING_FIELDS(Stop, a);
STARLING_FIELDS(MoveTo, a, b, c);
STARLING_FIELDS(Behind, a, b);
STARLING_FIELDS(View, a, b);
STARLING_FIELDS(LoadState, a, b);
STARLING_FIELDS(Loaded, a, b, c, d);
STARLING_FIELDS(Fetch, a, b, c, d, e, f, g);
STARLING_FIELDS(FetchIndex, a, b, c, d, e);
STARLING_FIELDS(ChunkIndex, a, b, c, d, e, f);
STARLING_FIELDS(Chunk, a, b, c, d, e);
STARLING_FIELDS(Forward, a, b, c, d, e, f, g, h, i, j, k);
STARLING_FIELDS(Backward, a, b);
STARLING_FIELDS(Notice, a, b, c, d);
STARLING_FIELDS(Cancel, a, b);
STARLING_FIELDS(Claim, a, b);
STARLING_FIELDS(Resend, a, b);
STARLING_FIELDS(SaveShard, a, b, c, d, e);
STARLING_FIELDS(ShardFile, a, b, c);
STARLING_FIELDS(ShardSaved, a, b, c);
STARLING_FIELDS(Fence, a, b, c);
STARLING_FIELDS(FenceAck, a, b);
STARLING_FIELDS(Seal, a, b, c);
STARLING_FIELDS(Sealed, a, b, c, d, e, f, g, h);
STARLING_FIELDS(Reduce, a);
STARLING_FIELDS(Piece, a, b, c, d, e);
STARLING_FIELDS(Result, a, b, c, d);
STARLING_FIELDS(Reduced, a, b, c, d, e, f);
STARLING_FIELDS(Apply, a);
STARLING_FIELDS(Applied, a);
STARLING_FIELDS(StatusRequest, a);
STARLING_FIELDS(StatusReply, a);
STARLING_FIELDS(Ack, a, b);
STARLING_FIELDS(Muster, a);
STARLING_FIELDS(MusterReply, a, b);
STARLING_FIELDS(Order, a, b, c, d);
STARLING_FIELDS(Message, a, b, c, d, e, f, g, h);

#undef STARLING_FIELDS

}  // namespace starling

#endif  // STARLING_TESTS_RUNTIME_WIRE_MESSAGE_FIELDS_H_
