#include "runtime/trainer/segment_picker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace starling {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr Incarnation kA{Epoch{1}, 1};
constexpr Incarnation kB{Epoch{1}, 2};

SegmentSummary Segment(uint32_t id, const std::vector<uint32_t>& indices) {
  SegmentSummary segment;
  segment.id = SegmentId{id};
  segment.list_hash = Hash128{id + 1, indices.size()};
  for (uint32_t index : indices) {
    SegmentEntry entry;
    entry.index = index;
    segment.entries.push_back(entry);
  }
  return segment;
}

// The ids that were picked of each member, in order.
std::vector<std::vector<uint32_t>> Picked(const SegmentPick& pick) {
  std::vector<std::vector<uint32_t>> picked;
  for (const RoundMemberPlan& member : pick.members) {
    picked.emplace_back();
    for (const SegmentRef& ref : member.segments) picked.back().push_back(Value(ref.id));
  }
  return picked;
}

TEST(PickSegments, DisjointSegmentsThatCoverTheStepAreAllPicked) {
  const auto pick =
      PickSegments({{kB, {Segment(0, {1})}}, {kA, {Segment(0, {3, 0}), Segment(2, {2})}}}, 4, {});
  EXPECT_THAT(Picked(pick), ElementsAre(ElementsAre(0, 2), ElementsAre(0)));
  EXPECT_EQ(pick.members[0].incarnation, kA);
  EXPECT_EQ(pick.members[0].segments[0].list_hash, (Hash128{1, 2}));
  EXPECT_THAT(pick.missing, IsEmpty());
  EXPECT_THAT(pick.voided, IsEmpty());
}

TEST(PickSegments, MemberWithoutSegmentsIsAMemberStill) {
  const auto pick = PickSegments({{kA, {}}, {kB, {Segment(0, {0})}}}, 1, {});
  EXPECT_THAT(Picked(pick), ElementsAre(IsEmpty(), ElementsAre(0)));
}

TEST(PickSegments, OfTwoThatOverlapTheLaterIsVoidedWhole) {
  const auto pick = PickSegments({{kA, {Segment(0, {0, 1})}}, {kB, {Segment(0, {1, 2})}}}, 3, {});
  EXPECT_THAT(Picked(pick), ElementsAre(ElementsAre(0), IsEmpty()));
  ASSERT_EQ(pick.voided.size(), 1u);
  EXPECT_EQ(pick.voided[0].name.incarnation, kB);
  EXPECT_EQ(pick.voided[0].entries.size(), 2u);
  EXPECT_THAT(pick.voided[0].reason, HasSubstr("microbatch 1"));
  EXPECT_THAT(pick.missing, ElementsAre(2)) << "what only the voided one had";
}

TEST(PickSegments, OverlapWithinOneReplicaVoidsItsLaterSegment) {
  const auto pick = PickSegments({{kA, {Segment(0, {0}), Segment(1, {0, 1})}}}, 2, {});
  EXPECT_THAT(Picked(pick), ElementsAre(ElementsAre(0)));
  EXPECT_THAT(pick.missing, ElementsAre(1));
}

TEST(PickSegments, VoidedSegmentDoesNotVoidOthers) {
  // The middle one overlaps the first; the last overlaps only the middle one.
  const auto pick =
      PickSegments({{kA, {Segment(0, {0}), Segment(1, {0, 1}), Segment(2, {1})}}}, 2, {});
  EXPECT_THAT(Picked(pick), ElementsAre(ElementsAre(0, 2)));
  EXPECT_THAT(pick.missing, IsEmpty());
}

TEST(PickSegments, SpoiledSegmentIsVoided) {
  SegmentSummary spoiled = Segment(0, {0});
  spoiled.spoiled = true;
  const auto pick = PickSegments({{kA, {spoiled}}, {kB, {Segment(0, {1})}}}, 2, {});
  ASSERT_EQ(pick.voided.size(), 1u);
  EXPECT_THAT(pick.missing, ElementsAre(0));
}

TEST(PickSegments, IndexTwiceInOneSegmentVoidsIt) {
  const auto pick = PickSegments({{kA, {Segment(0, {0, 1, 0})}}}, 2, {});
  ASSERT_EQ(pick.voided.size(), 1u);
  EXPECT_THAT(pick.voided[0].reason, HasSubstr("twice"));
  EXPECT_THAT(pick.missing, ElementsAre(0, 1));
}

TEST(PickSegments, IndexThatDoesNotExistVoidsTheSegment) {
  const auto pick = PickSegments({{kA, {Segment(0, {0, 2})}}}, 2, {});
  ASSERT_EQ(pick.voided.size(), 1u);
  EXPECT_THAT(pick.missing, ElementsAre(0, 1));
}

SegmentSummary Contested(uint32_t id, uint32_t index) {
  SegmentSummary segment = Segment(id, {index});
  segment.contested = true;
  return segment;
}

TEST(PickSegments, ContestedSegmentIsPickedForWhatNoMainOneHas) {
  const auto pick =
      PickSegments({{kA, {Contested(1, 2), Segment(2, {0})}}, {kB, {Segment(0, {1})}}}, 3, {});
  EXPECT_THAT(Picked(pick), ElementsAre(ElementsAre(2, 1), ElementsAre(0)));
  EXPECT_THAT(pick.missing, IsEmpty());
}

TEST(PickSegments, ContestedSegmentOfWhatAMainOneHasIsLeftAlone) {
  const auto pick = PickSegments({{kA, {Contested(1, 1)}}, {kB, {Segment(0, {0, 1})}}}, 2, {});
  EXPECT_THAT(Picked(pick), ElementsAre(IsEmpty(), ElementsAre(0)));
  EXPECT_THAT(pick.voided, IsEmpty());
}

TEST(PickSegments, OfTwoContestedSegmentsOfOneMicrobatchOneIsPicked) {
  const auto pick = PickSegments({{kA, {Contested(1, 0)}}, {kB, {Contested(1, 0)}}}, 1, {});
  EXPECT_THAT(Picked(pick), ElementsAre(ElementsAre(1), IsEmpty()));
}

TEST(PickSegments, ContestedSegmentHelpsWhereAMainOneIsVoided) {
  const auto pick =
      PickSegments({{kA, {Segment(0, {0})}}, {kB, {Segment(0, {0, 1}), Contested(1, 1)}}}, 2, {});
  EXPECT_EQ(pick.voided.size(), 1u);
  EXPECT_THAT(pick.missing, IsEmpty());
}

TEST(PickSegments, SpoiledContestedSegmentIsNotPicked) {
  SegmentSummary spoiled = Contested(1, 0);
  spoiled.spoiled = true;
  EXPECT_THAT(PickSegments({{kA, {spoiled}}}, 1, {}).missing, ElementsAre(0));
}

TEST(PickSegments, WithoutAnyListEverythingIsMissing) {
  const auto pick = PickSegments({}, 3, {});
  EXPECT_THAT(pick.members, IsEmpty());
  EXPECT_THAT(pick.missing, ElementsAre(0, 1, 2));
}

TEST(PickSegments, WhatIsVoidAlreadyIsNeitherPickedNorReportedAgain) {
  const auto pick = PickSegments({{kA, {Segment(0, {0}), Segment(1, {0, 1})}}}, 2,
                                 {SegmentName{kA, SegmentId{0}}});
  EXPECT_THAT(Picked(pick), ElementsAre(ElementsAre(1)));
  EXPECT_THAT(pick.voided, IsEmpty());
  EXPECT_THAT(pick.missing, IsEmpty());
}

}  // namespace
}  // namespace starling
