#include "sync/piece_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace starling {
namespace {

constexpr Incarnation kA{Epoch{1}, 1};
constexpr Incarnation kB{Epoch{1}, 2};
const PieceStore::Contribution kOne = {{SegmentId{0}, Hash128{1, 1}}};
const PieceStore::Contribution kTwo = {{SegmentId{0}, Hash128{1, 1}},
                                       {SegmentId{1}, Hash128{2, 2}}};

Piece PieceOf(uint32_t part, const PieceStore::Contribution& contribution, uint64_t lane) {
  Piece piece;
  piece.part = part;
  piece.segments = contribution;
  piece.lane = lane;
  return piece;
}

TEST(PieceStore, PieceIsFoundByWhoWhatAndWhere) {
  PieceStore store;
  store.Keep(kA, PieceOf(1, kOne, 7));
  ASSERT_NE(store.Find(kA, 1, kOne), nullptr);
  EXPECT_EQ(store.Find(kA, 1, kOne)->lane, 7u);
  EXPECT_EQ(store.Find(kB, 1, kOne), nullptr);
  EXPECT_EQ(store.Find(kA, 0, kOne), nullptr);
  EXPECT_EQ(store.Find(kA, 1, kTwo), nullptr);
}

TEST(PieceStore, ChangedContributionTakesThePlaceOfTheOneBefore) {
  PieceStore store;
  store.Keep(kA, PieceOf(1, kOne, 7));
  store.Keep(kA, PieceOf(1, kTwo, 8));
  EXPECT_EQ(store.Find(kA, 1, kOne), nullptr);
  ASSERT_NE(store.Find(kA, 1, kTwo), nullptr);
  EXPECT_EQ(store.Find(kA, 1, kTwo)->lane, 8u);
}

TEST(PieceStore, OnlyWhatTheSameOwnerAcknowledgedIsNotSentAgain) {
  PieceStore store;
  store.Delivered(kA, 1, kOne);
  EXPECT_TRUE(store.IsDelivered(kA, 1, kOne));
  EXPECT_FALSE(store.IsDelivered(kA, 1, kTwo));
  EXPECT_FALSE(store.IsDelivered(kA, 2, kOne));
  EXPECT_FALSE(store.IsDelivered(kB, 1, kOne));
}

}  // namespace
}  // namespace starling
