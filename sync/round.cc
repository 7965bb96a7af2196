#include "sync/round.h"

#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "codec/codec.h"
#include "runtime/base/check.h"
#include "runtime/base/planted.h"
#include "sync/square_norm.h"

namespace starling {
namespace {

constexpr size_t kCachedElements = 16384;  // 64 KiB

// One fp32 addition per element; the compiler may vectorise, which changes no bits.
void AddInto(const float* __restrict a, const float* __restrict b, float* __restrict out,
             size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = a[i] + b[i];
}

void Accumulate(const float* __restrict b, float* __restrict out, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] += b[i];
}

absl::Status CheckData(const Blob& data, const RoundPart& part, Encoding encoding) {
  const bool flat = data.shape().size() == 1 && data.shape()[0] == part.count;
  if (data.dtype() != DType::kF32 || !flat || data.encoding() != encoding) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "data of a part is %s %s of %d elements, expected %s f32 [%d]", ToString(data.encoding()),
        ToString(data.dtype()), data.element_count(), ToString(encoding), part.count));
  }
  if (!data.encoded() && reinterpret_cast<uintptr_t>(data.data()) % alignof(float) != 0) {
    return absl::InvalidArgumentError("data of a part is not aligned to its elements");
  }
  return absl::OkStatus();
}

absl::Status CheckRound(const RoundId& got, const RoundId& want) {
  if (got == want) return absl::OkStatus();
  return absl::AbortedError(absl::StrFormat("for round %d of step %d, not %d of step %d",
                                            got.number, Value(got.step), want.number,
                                            Value(want.step)));
}

void AppendLittleEndian(uint64_t word, std::string* bytes) {
  for (int shift = 0; shift < 64; shift += 8) bytes->push_back(static_cast<char>(word >> shift));
}

}  // namespace

RoundMember::RoundMember(RoundPlan plan, Incarnation self, int64_t size)
    : plan_(std::move(plan)), size_(size), results_(plan_.parts.size()) {
  bool is_member = false;
  for (uint32_t i = 0; i < plan_.members.size(); ++i) {
    const RoundMemberPlan& member = plan_.members[i];
    if (member.incarnation == self) {
      self_ = i;
      is_member = true;
    }
    if (member.segments.empty()) continue;
    const uint32_t place = static_cast<uint32_t>(contributors_.size());
    contributors_.emplace(member.incarnation, place);
  }
  STARLING_CHECK(is_member && !contributors_.empty() && !plan_.parts.empty());
  for (uint32_t part = 0; part < plan_.parts.size(); ++part) {
    if (plan_.parts[part].owner == self_) sums_[part];
  }
  missing_ = plan_.parts.size();
}

std::vector<RoundSend> RoundMember::Contribute(SegmentSum own, const PieceStore* store) {
  STARLING_CHECK_MSG(!contributed_, "a member contributes once");
  contributed_ = true;
  const Incarnation self = plan_.members[self_].incarnation;
  const auto place = contributors_.find(self);
  if (place == contributors_.end()) return {};
  STARLING_CHECK(own.gradient.dtype() == DType::kF32);
  STARLING_CHECK_EQ(own.gradient.element_count(), size_);

  std::vector<RoundSend> sends;
  // Each member begins with another part, so that they do not all send to the same owner at once.
  const uint32_t parts = static_cast<uint32_t>(plan_.parts.size());
  for (uint32_t i = 0; i < parts; ++i) {
    const uint32_t number = (self_ + 1 + i) % parts;
    const RoundPart& part = plan_.parts[number];
    const PieceStore::Contribution& segments = plan_.members[self_].segments;
    const Incarnation owner = plan_.members[part.owner].incarnation;
    if (store != nullptr && store->IsDelivered(owner, number, segments)) continue;
    Piece piece{plan_.id, number, own.lane, Coded(own.gradient.Slice(part.begin, part.count)),
                segments};
    if (part.owner == self_) {
      for (RoundSend& send : AddPiece(number, place->second, piece))
        sends.push_back(std::move(send));
    } else {
      sends.push_back({owner, std::move(piece)});
    }
  }
  return sends;
}

absl::StatusOr<std::vector<RoundSend>> RoundMember::OnPiece(Incarnation from, const Piece& piece) {
  if (absl::Status status = CheckPiece(from, piece); !status.ok()) return status;
  return AddPiece(piece.part, contributors_.at(from), piece);
}

absl::Status RoundMember::OnResult(Incarnation from, const Result& result) {
  if (absl::Status status = CheckRound(result.round, plan_.id); !status.ok()) return status;
  if (result.part >= plan_.parts.size()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("result of part %d of %d", result.part, plan_.parts.size()));
  }
  const RoundPart& part = plan_.parts[result.part];
  if (part.owner == self_ || plan_.members[part.owner].incarnation != from) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "result of part %d from %s, who does not own it", result.part, ToString(from)));
  }
  if (absl::Status status = CheckData(result.data, part, plan_.encoding); !status.ok())
    return status;
  const std::optional<PartResult>& known = results_[result.part];
  if (!known) {
    SetResult(result.part, result.lane, Decoded(result.data));
    return absl::OkStatus();
  }
  const Blob again = Decoded(result.data);
  if (known->lane == result.lane &&
      std::memcmp(known->data.data(), again.data(), known->data.size_bytes()) == 0) {
    return absl::OkStatus();
  }
  conflict_ = absl::DataLossError(
      absl::StrFormat("%s sent two different results of part %d", ToString(from), result.part));
  return conflict_;
}

absl::Status RoundMember::status() const {
  if (!conflict_.ok() || !complete()) return conflict_;
  for (size_t part = 0; part < results_.size(); ++part) {
    if (results_[part]->lane == plan_.expected_lane) continue;
    return absl::DataLossError(absl::StrFormat(
        "the lane of part %d is %016x, expected %016x: a microbatch was not counted exactly once",
        part, results_[part]->lane, plan_.expected_lane));
  }
  return absl::OkStatus();
}

std::vector<Blob> RoundMember::gradient() const {
  STARLING_CHECK(complete());
  std::vector<Blob> parts;
  for (const auto& result : results_) parts.push_back(result->data);
  return parts;
}

RoundOutcome RoundMember::outcome() const {
  STARLING_CHECK(complete());
  RoundOutcome outcome;
  outcome.lane = plan_.expected_lane;
  std::string hashes;
  for (const auto& result : results_) {
    AppendLittleEndian(result->hash.high, &hashes);
    AppendLittleEndian(result->hash.low, &hashes);
    outcome.square_norm += result->square_norm;
    if (outcome.lane == plan_.expected_lane) outcome.lane = result->lane;
  }
  outcome.result_hash = HashBytes(hashes.data(), hashes.size());
  return outcome;
}

std::string RoundMember::Missing() const {
  std::string text;
  for (uint32_t number = 0; number < results_.size(); ++number) {
    if (results_[number]) continue;
    if (!text.empty()) text += ", ";
    text += absl::StrFormat("part %d", number);
    const auto sum = sums_.find(number);
    if (sum == sums_.end()) {
      text += " from " + ToString(plan_.members[plan_.parts[number].owner].incarnation);
      continue;
    }
    for (const auto& [contributor, place] : contributors_) {
      const bool here = place < sum->second.added || sum->second.waiting.count(place) != 0;
      if (!here) text += ", its piece of " + ToString(contributor);
    }
  }
  return text;
}

absl::Status RoundMember::CheckPiece(Incarnation from, const Piece& piece) const {
  if (absl::Status status = CheckRound(piece.round, plan_.id); !status.ok()) return status;
  if (piece.part >= plan_.parts.size() || plan_.parts[piece.part].owner != self_) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a piece of part %d, which is not summed here", piece.part));
  }
  if (contributors_.count(from) == 0 || from == plan_.members[self_].incarnation) {
    return absl::InvalidArgumentError("a piece from " + ToString(from) +
                                      ", who has nothing to send here");
  }
  return CheckData(piece.data, plan_.parts[piece.part], plan_.encoding);
}

std::vector<RoundSend> RoundMember::AddPiece(uint32_t part, uint32_t place, const Piece& piece) {
  const auto it = sums_.find(part);
  if (it == sums_.end()) return {};  // its result exists
  Sum& sum = it->second;
  if (Planted(Bug::kSumInArrivalOrder)) place = sum.added;
  if (place < sum.added || !sum.waiting.emplace(place, piece).second) return {};
  while (!sum.waiting.empty() && sum.waiting.begin()->first == sum.added) {
    AddNext(&sum, sum.waiting.begin()->second);
    sum.waiting.erase(sum.waiting.begin());
  }
  if (sum.added < contributors_.size()) return {};
  std::vector<RoundSend> sends = FinishPart(part, &sum);
  sums_.erase(it);
  return sends;
}

Blob RoundMember::Coded(const Blob& values) const {
  Coding coding;
  coding.encoding = plan_.encoding;
  coding.scale_exponent = plan_.scale_exponent;
  return EncodeBlob(values, coding);
}

Blob RoundMember::Decoded(const Blob& data) const {
  absl::StatusOr<Blob> values = DecodeBlob(data, plan_.scale_exponent);
  STARLING_CHECK(values.ok());  // CheckData has seen it
  return *std::move(values);
}

// The gradient and its lane, always together.
void RoundMember::AddNext(Sum* sum, const Piece& piece) {
  const Blob data = Decoded(piece.data);
  const absl::Span<const float> values = data.As<float>();
  if (sum->added == 0) {
    sum->first = data;
  } else if (sum->added == 1) {
    sum->total = MutableBlob::Uninitialized(DType::kF32, data.shape());
    AddInto(sum->first.As<float>().data(), values.data(), sum->total->As<float>().data(),
            values.size());
    sum->first = Blob();
  } else {
    Accumulate(values.data(), sum->total->As<float>().data(), values.size());
  }
  sum->lane += piece.lane;
  ++sum->added;
}

std::vector<RoundSend> RoundMember::FinishPart(uint32_t part, Sum* sum) {
  const Blob data = Coded(sum->total ? std::move(*sum->total).Freeze() : sum->first);
  SetResult(part, sum->lane, Decoded(data));
  std::vector<RoundSend> sends;
  const uint32_t members = static_cast<uint32_t>(plan_.members.size());
  for (uint32_t i = 1; i < members; ++i) {
    const Incarnation to = plan_.members[(self_ + i) % members].incarnation;
    sends.push_back({to, Result{plan_.id, part, sum->lane, data}});
  }
  return sends;
}

void RoundMember::SetResult(uint32_t part, uint64_t lane, Blob data) {
  PartResult result;
  result.lane = lane;
  // Both in one pass through memory: what the hash has read is in the cache for the norm.
  const absl::Span<const float> values = data.As<float>();
  Hasher128 hasher;
  for (size_t begin = 0; begin < values.size(); begin += kCachedElements) {
    const absl::Span<const float> some = values.subspan(begin, kCachedElements);
    hasher.Update(some.data(), some.size() * sizeof(float));
    result.square_norm += SquareNorm(some);
  }
  result.hash = hasher.Finish();
  result.data = std::move(data);
  results_[part] = std::move(result);
  --missing_;
}

}  // namespace starling
