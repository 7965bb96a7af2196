#include "sync/round.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "codec/codec.h"
#include "runtime/base/lane.h"
#include "runtime/base/rng.h"
#include "sync/plan.h"
#include "sync/square_norm.h"

namespace starling {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

Incarnation Inc(uint32_t counter) { return {Epoch{1}, counter}; }

std::vector<float> Numbers(int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    // Several magnitudes, so that another order of addition gives other bits.
    values.push_back(static_cast<float>((rng.Unit() - 0.5) * (1 << rng.Below(20))));
  }
  return values;
}

// A round's members, their contributions, and the messages between them that were not delivered
// yet.
class Group {
 public:
  // contributes[i]: whether member i has a segment.
  Group(int64_t size, std::vector<bool> contributes) : size_(size) {
    plan_.id = {Epoch{1}, Step{5}, 2, 1};
    for (uint32_t i = 0; i < contributes.size(); ++i) {
      plan_.members.push_back({Inc(i + 1), {}});
      gradients_.push_back(Numbers(size, 100 + i));
      if (!contributes[i]) continue;
      plan_.members.back().segments.push_back({SegmentId{0}, {}});
      plan_.expected_lane += Lane(i);
    }
    plan_.parts = EqualParts(size, static_cast<uint32_t>(contributes.size()));
    Build();
  }

  // Makes the members anew, after a change of plan().
  void Build() {
    members_.clear();
    flying_.clear();
    for (const RoundMemberPlan& member : plan_.members) {
      EXPECT_TRUE(CheckPlan(plan_, size_, member.incarnation).ok());
      members_.push_back(std::make_unique<RoundMember>(plan_, member.incarnation, size_));
    }
  }

  static uint64_t Lane(uint32_t member) { return LaneTerm(Step{5}, member, StageId{2}); }

  RoundPlan& plan() { return plan_; }
  RoundMember& member(size_t i) { return *members_[i]; }
  size_t size() const { return members_.size(); }

  void Contribute(size_t i) { Contribute(i, Lane(static_cast<uint32_t>(i))); }
  void Contribute(size_t i, uint64_t lane) {
    Post(i, members_[i]->Contribute({Blob::OfFloats(gradients_[i]), lane}));
  }

  // Contributions and messages in an order drawn from `seed`; every `repeat`-th message is
  // delivered twice (0: none).
  void RunInRandomOrder(uint64_t seed, uint64_t repeat = 0) {
    Rng rng(seed);
    std::vector<size_t> to_contribute;
    for (size_t i = 0; i < members_.size(); ++i) to_contribute.push_back(i);
    while (!to_contribute.empty() || !flying_.empty()) {
      const size_t pick = rng.Below(to_contribute.size() + flying_.size());
      if (pick < to_contribute.size()) {
        const size_t member = to_contribute[pick];
        to_contribute.erase(to_contribute.begin() + static_cast<std::ptrdiff_t>(pick));
        Contribute(member);
        continue;
      }
      Deliver(pick - to_contribute.size(), repeat != 0 && rng.Below(repeat) == 0);
    }
  }

  // What is left of numbers that travelled as the plan says.
  std::vector<float> Sent(const std::vector<float>& values) const {
    Coding coding;
    coding.encoding = plan_.encoding;
    coding.scale_exponent = plan_.scale_exponent;
    const Blob sent = EncodeBlob(Blob::OfFloats(values), coding);
    const Blob got = *DecodeBlob(sent, plan_.scale_exponent);
    return {got.As<float>().begin(), got.As<float>().end()};
  }

  // The sum of the contributors' gradients, left to right in the plan's order.
  std::vector<float> DirectSum() const {
    std::vector<float> sum;
    for (size_t i = 0; i < plan_.members.size(); ++i) {
      if (plan_.members[i].segments.empty()) continue;
      const std::vector<float> own = Sent(gradients_[i]);
      if (sum.empty()) {
        sum = own;
        continue;
      }
      for (size_t k = 0; k < sum.size(); ++k) {
        volatile float next = sum[k] + own[k];
        sum[k] = next;
      }
    }
    return Sent(sum);
  }

  struct Flight {
    Incarnation from;
    RoundSend send;
  };
  std::vector<Flight>& flying() { return flying_; }

  void Deliver(size_t place, bool twice = false) {
    const Flight flight = std::move(flying_[place]);
    flying_.erase(flying_.begin() + static_cast<std::ptrdiff_t>(place));
    for (int n = 0; n < (twice ? 2 : 1); ++n) {
      const size_t to = flight.send.to.counter - 1;
      if (const auto* piece = std::get_if<Piece>(&flight.send.message)) {
        absl::StatusOr<std::vector<RoundSend>> sends = members_[to]->OnPiece(flight.from, *piece);
        ASSERT_TRUE(sends.ok()) << sends.status();
        if (n == 1) {
          EXPECT_THAT(*sends, IsEmpty());
        }
        Post(to, *std::move(sends));
      } else {
        const absl::Status status =
            members_[to]->OnResult(flight.from, std::get<Result>(flight.send.message));
        EXPECT_TRUE(status.ok()) << status;
      }
    }
  }

 private:
  void Post(size_t from, std::vector<RoundSend> sends) {
    for (RoundSend& send : sends) {
      EXPECT_NE(send.to, plan_.members[from].incarnation) << "sent to itself";
      flying_.push_back({plan_.members[from].incarnation, std::move(send)});
    }
  }

  int64_t size_;
  RoundPlan plan_;
  std::vector<std::vector<float>> gradients_;
  std::vector<std::unique_ptr<RoundMember>> members_;
  std::vector<Flight> flying_;
};

std::vector<float> Joined(const std::vector<Blob>& parts) {
  std::vector<float> values;
  for (const Blob& part : parts) {
    const absl::Span<const float> span = part.As<float>();
    values.insert(values.end(), span.begin(), span.end());
  }
  return values;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void ExpectAllHaveTheDirectSum(Group* group) {
  const std::vector<float> direct = group->DirectSum();
  double square_norm = 0;
  for (const RoundPart& part : group->plan().parts) {
    square_norm += SquareNorm(absl::MakeSpan(direct).subspan(part.begin, part.count));
  }
  const Hash128 hash = group->member(0).outcome().result_hash;
  for (size_t i = 0; i < group->size(); ++i) {
    ASSERT_TRUE(group->member(i).complete()) << i << ": " << group->member(i).Missing();
    EXPECT_TRUE(group->member(i).status().ok()) << group->member(i).status();
    EXPECT_TRUE(SameBits(Joined(group->member(i).gradient()), direct)) << i;
    const RoundOutcome outcome = group->member(i).outcome();
    EXPECT_EQ(outcome.result_hash, hash);
    EXPECT_EQ(outcome.square_norm, square_norm);
    EXPECT_EQ(outcome.lane, group->plan().expected_lane);
    EXPECT_EQ(group->member(i).Missing(), "");
  }
}

TEST(RoundTest, AnyOrderOfArrivalGivesAllMembersTheBitsOfTheDirectOrderedSum) {
  for (size_t members : {1, 2, 3, 5}) {
    for (int64_t size : {1, 16, 50, 1000, 1003}) {
      for (uint64_t seed = 0; seed < 20; ++seed) {
        Group group(size, std::vector<bool>(members, true));
        group.RunInRandomOrder(seed);
        ExpectAllHaveTheDirectSum(&group);
      }
    }
  }
}

TEST(RoundTest, SixteenBitPiecesAndResultsGiveAllMembersTheSameBits) {
  for (const Encoding encoding : {Encoding::kF16, Encoding::kBF16}) {
    for (size_t members : {1, 2, 3, 5}) {
      for (int64_t size : {1, 50, 1003}) {
        for (uint64_t seed = 0; seed < 20; ++seed) {
          std::vector<bool> contributes(members, true);
          if (members > 2) contributes[1] = false;
          Group group(size, contributes);
          group.plan().encoding = encoding;
          group.plan().scale_exponent = -12;
          group.Build();
          group.RunInRandomOrder(seed, seed % 3);
          ExpectAllHaveTheDirectSum(&group);
        }
      }
    }
  }
}

// Without the scale it would not be finite.
TEST(RoundTest, ScaledSumsFitIntoHalfPrecision) {
  Group group(1003, {true, true, true});
  const std::vector<float> exact = group.DirectSum();
  EXPECT_GT(*std::max_element(exact.begin(), exact.end()), 70000.0f);
  group.plan().encoding = Encoding::kF16;
  group.plan().scale_exponent = -12;
  group.Build();
  group.RunInRandomOrder(1);
  const std::vector<float> got = Joined(group.member(2).gradient());
  for (size_t i = 0; i < exact.size(); ++i) {
    // Three pieces and a result, each rounded to 11 bits of at most 2^20.
    EXPECT_NEAR(got[i], exact[i], 4 * 0x1p20 * 0x1p-11);
  }
}

TEST(RoundTest, DataInAnotherEncodingThanThePlansIsRefused) {
  Group group(100, {true, true});
  group.plan().encoding = Encoding::kBF16;
  group.Build();
  group.Contribute(0);
  group.Contribute(1);
  Piece piece;
  piece.round = group.plan().id;
  piece.part = 0;
  const int64_t count = group.plan().parts[0].count;
  for (const Encoding encoding : {Encoding::kRaw, Encoding::kF16, Encoding::kInt8}) {
    const Blob zeros = MutableBlob::Zeros(DType::kF32, {count}).Freeze();
    piece.data = EncodeBlob(zeros, {encoding});
    EXPECT_TRUE(absl::IsInvalidArgument(group.member(0).OnPiece(Inc(2), piece).status()));
  }
}

TEST(RoundTest, OrderOfMembersIsVisibleInTheBits) {
  // Otherwise the test above could not tell one order of addition from another.
  Group group(1000, {true, true, true});
  const std::vector<float> before = group.DirectSum();
  std::vector<float> other = Numbers(1000, 102);
  for (uint64_t seed : {101, 100}) {
    const std::vector<float> values = Numbers(1000, seed);
    for (size_t i = 0; i < other.size(); ++i) other[i] += values[i];
  }
  EXPECT_FALSE(SameBits(before, other));
}

TEST(RoundTest, RepeatedMessagesChangeNothing) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Group group(500, {true, true, true, true});
    group.RunInRandomOrder(seed, 2);
    ExpectAllHaveTheDirectSum(&group);
  }
}

TEST(RoundTest, MemberWithoutSegmentsOwnsAPartAndGetsTheResult) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Group group(500, {true, false, true});
    group.RunInRandomOrder(seed);
    ExpectAllHaveTheDirectSum(&group);
  }
}

TEST(RoundTest, MemberWithoutSegmentsNeedNotCall) {
  Group group(500, {false, true});
  group.Contribute(1);
  while (!group.flying().empty()) group.Deliver(0);
  ExpectAllHaveTheDirectSum(&group);
}

TEST(RoundTest, SinglePieceIsPassedOnWithoutACopy) {
  RoundPlan plan;
  plan.members = {{Inc(1), {{SegmentId{0}, {}}}}};
  plan.parts = EqualParts(100, 1);
  plan.expected_lane = 7;
  RoundMember member(plan, Inc(1), 100);
  const Blob own = Blob::OfFloats(Numbers(100, 1));
  EXPECT_THAT(member.Contribute({own, 7}), IsEmpty());
  ASSERT_TRUE(member.complete());
  EXPECT_EQ(member.gradient()[0].data(), own.data());
}

TEST(RoundTest, PiecesAreSlicesOfTheContributionNotCopies) {
  Group group(64, {true, true});
  const Blob own = Blob::OfFloats(Numbers(64, 1));
  const std::vector<RoundSend> sends = group.member(0).Contribute({own, 1});
  ASSERT_THAT(sends, SizeIs(1));
  const Piece& piece = std::get<Piece>(sends[0].message);
  EXPECT_EQ(sends[0].to, Inc(2));
  EXPECT_EQ(piece.part, 1u);
  EXPECT_EQ(piece.lane, 1u);
  EXPECT_EQ(piece.data.data(), own.data() + 32 * sizeof(float));
}

TEST(RoundTest, PlanWithSeveralUnequalPartsPerOwnerIsFollowed) {
  Group group(200, {true, true, true});
  group.plan().parts = {{0, 7, 2}, {7, 100, 0}, {107, 1, 2}, {108, 92, 2}};
  for (uint64_t seed = 0; seed < 10; ++seed) {
    group.Build();
    group.RunInRandomOrder(seed);
    ExpectAllHaveTheDirectSum(&group);
  }
}

TEST(RoundTest, MissingPieceLeavesEveryoneIncompleteAndIsNamed) {
  Group group(300, {true, true, true});
  for (size_t i = 0; i < 3; ++i) group.Contribute(i);
  for (size_t i = 0; i < group.flying().size(); ++i) {
    if (group.flying()[i].from == Inc(3) && group.flying()[i].send.to == Inc(1)) {
      group.flying().erase(group.flying().begin() + static_cast<std::ptrdiff_t>(i));
      break;
    }
  }
  while (!group.flying().empty()) group.Deliver(0);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_FALSE(group.member(i).complete());
    EXPECT_TRUE(group.member(i).status().ok());
  }
  EXPECT_EQ(group.member(0).Missing(), "part 0, its piece of 1.3");
  EXPECT_EQ(group.member(1).Missing(), "part 0 from 1.1");
}

TEST(RoundTest, MicrobatchCountedTwiceIsDataLossOnAllMembers) {
  Group group(100, {true, true});
  group.Contribute(0);
  group.Contribute(1, Group::Lane(1) + Group::Lane(0));  // member 0's work is in member 1's too
  while (!group.flying().empty()) group.Deliver(0);
  for (size_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(group.member(i).complete());
    EXPECT_EQ(group.member(i).status().code(), absl::StatusCode::kDataLoss);
    EXPECT_NE(group.member(i).outcome().lane, group.plan().expected_lane);
  }
}

TEST(RoundTest, LaneThatDiffersInOnePartIsDataLossAndReported) {
  Group group(100, {true, true});
  for (size_t i = 0; i < 2; ++i) group.Contribute(i);
  for (Group::Flight& flight : group.flying()) {
    if (flight.send.to == Inc(2)) std::get<Piece>(flight.send.message).lane += 1;
  }
  while (!group.flying().empty()) group.Deliver(0);
  for (size_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(group.member(i).complete());
    const absl::Status status = group.member(i).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr("part 1"));
    EXPECT_EQ(group.member(i).outcome().lane, group.plan().expected_lane + 1);
  }
}

TEST(RoundTest, OneFlippedBitChangesTheResultHash) {
  Group honest(100, {true, true});
  Group flipped(100, {true, true});
  for (Group* group : {&honest, &flipped}) {
    for (size_t i = 0; i < 2; ++i) group->Contribute(i);
  }
  Piece& piece = std::get<Piece>(flipped.flying()[0].send.message);
  std::vector<float> values(piece.data.As<float>().begin(), piece.data.As<float>().end());
  values[3] = -values[3];
  piece.data = Blob::OfFloats(values);
  for (Group* group : {&honest, &flipped}) {
    while (!group->flying().empty()) group->Deliver(0);
  }
  EXPECT_NE(honest.member(0).outcome().result_hash, flipped.member(0).outcome().result_hash);
  EXPECT_EQ(flipped.member(0).outcome().result_hash, flipped.member(1).outcome().result_hash);
}

class RoundRefusalTest : public ::testing::Test {
 protected:
  // Member 1 of three, of which the third contributes nothing; parts of 48, 32 and 20 elements.
  RoundRefusalTest() : group_(100, {true, true, false}) {}

  Piece GoodPiece() { return {group_.plan().id, 1, 5, Blob::OfFloats(Numbers(32, 1)), {}}; }
  Result GoodResult() { return {group_.plan().id, 0, 5, Blob::OfFloats(Numbers(48, 1))}; }
  absl::StatusCode Give(Incarnation from, const Piece& piece) {
    return group_.member(1).OnPiece(from, piece).status().code();
  }
  absl::StatusCode Give(Incarnation from, const Result& result) {
    return group_.member(1).OnResult(from, result).code();
  }

  Group group_;
};

TEST_F(RoundRefusalTest, PieceOfAnotherRoundIsAborted) {
  Piece piece = GoodPiece();
  piece.round.number = 2;
  EXPECT_EQ(Give(Inc(1), piece), absl::StatusCode::kAborted);
}

TEST_F(RoundRefusalTest, MalformedPieceIsInvalidArgumentAndChangesNothing) {
  const auto expect_refused = [this](Incarnation from, const Piece& piece) {
    EXPECT_EQ(Give(from, piece), absl::StatusCode::kInvalidArgument);
  };
  Piece piece = GoodPiece();
  expect_refused(Inc(9), piece);  // no member
  expect_refused(Inc(3), piece);  // contributes nothing
  expect_refused(Inc(2), piece);  // itself
  for (uint32_t part : {0u, 2u, 3u, 4000000000u}) {
    piece = GoodPiece();
    piece.part = part;
    expect_refused(Inc(1), piece);
  }
  piece = GoodPiece();
  piece.data = Blob::OfFloats(Numbers(31, 1));
  expect_refused(Inc(1), piece);
  piece.data = Blob();
  expect_refused(Inc(1), piece);
  piece.data = Blob::OfString(std::string(128, 'x'));
  expect_refused(Inc(1), piece);
  piece.data = GoodPiece().data.Reshaped({4, 8});
  expect_refused(Inc(1), piece);
  const Blob bytes = Blob::OfString(std::string(200, 'x'));
  piece.data = Blob(bytes.owner(), bytes.data() + 1, DType::kF32, {32});
  expect_refused(Inc(1), piece);

  group_.RunInRandomOrder(1);
  ExpectAllHaveTheDirectSum(&group_);
}

TEST_F(RoundRefusalTest, MalformedResultIsInvalidArgumentAndChangesNothing) {
  const auto expect_refused = [this](Incarnation from, const Result& result) {
    EXPECT_EQ(Give(from, result), absl::StatusCode::kInvalidArgument);
  };
  Result result = GoodResult();
  expect_refused(Inc(3), result);  // not the owner
  expect_refused(Inc(9), result);  // no member
  result.part = 1;
  expect_refused(Inc(1), result);
  expect_refused(Inc(2), result);  // its own part
  result.part = 3;
  expect_refused(Inc(1), result);
  result = GoodResult();
  result.data = Blob::OfFloats(Numbers(47, 1));
  expect_refused(Inc(1), result);
  result = GoodResult();
  result.round.step = Step{6};
  EXPECT_EQ(Give(Inc(1), result), absl::StatusCode::kAborted);

  group_.RunInRandomOrder(1);
  ExpectAllHaveTheDirectSum(&group_);
}

TEST_F(RoundRefusalTest, SecondResultWithOtherBitsIsDataLossAndRemembered) {
  const Result first = GoodResult();
  EXPECT_EQ(Give(Inc(1), first), absl::StatusCode::kOk);
  EXPECT_EQ(Give(Inc(1), first), absl::StatusCode::kOk);
  EXPECT_TRUE(group_.member(1).status().ok());
  Result other_lane = first;
  other_lane.lane += 1;
  EXPECT_EQ(Give(Inc(1), other_lane), absl::StatusCode::kDataLoss);
  Result other_bits = first;
  other_bits.data = Blob::OfFloats(Numbers(48, 2));
  EXPECT_EQ(Give(Inc(1), other_bits), absl::StatusCode::kDataLoss);
  EXPECT_EQ(group_.member(1).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(RoundRefusalTest, PieceForAFinishedPartIsOkAndSendsNothing) {
  group_.Contribute(1);
  const absl::StatusOr<std::vector<RoundSend>> results =
      group_.member(1).OnPiece(Inc(1), GoodPiece());
  ASSERT_TRUE(results.ok());
  ASSERT_THAT(*results, SizeIs(2));
  EXPECT_EQ((*results)[0].to, Inc(3));
  EXPECT_EQ((*results)[1].to, Inc(1));
  const absl::StatusOr<std::vector<RoundSend>> again =
      group_.member(1).OnPiece(Inc(1), GoodPiece());
  ASSERT_TRUE(again.ok());
  EXPECT_THAT(*again, IsEmpty());
}

TEST(RoundDeathTest, ContributingTwiceOrWithTheWrongSizeIsAProgrammersError) {
  Group group(100, {true, true});
  group.Contribute(0);
  EXPECT_DEATH(group.Contribute(0), "contributes once");
  EXPECT_DEATH(group.member(1).Contribute({Blob::OfFloats({1, 2}), 0}), "check failed");
}

}  // namespace
}  // namespace starling
