#include "runtime/base/learned_duration.h"

#include <gtest/gtest.h>

#include <initializer_list>

namespace starling {
namespace {

LearnedDuration Of(std::initializer_list<double> seconds) {
  LearnedDuration learned;
  for (double s : seconds) learned.Add(absl::Seconds(s));
  return learned;
}

const LimitBounds kBounds{absl::Seconds(2), absl::Seconds(60), 8, 5};

TEST(LearnedDuration, NothingAddedMeansTheMostIsAllowed) {
  const LearnedDuration learned;
  EXPECT_EQ(learned.median(), absl::ZeroDuration());
  EXPECT_EQ(learned.deviation(), absl::ZeroDuration());
  EXPECT_EQ(learned.LimitOf(kBounds), absl::Seconds(60));
}

TEST(LearnedDuration, TooFewMeanTheMostIsAllowed) {
  EXPECT_EQ(Of({1, 1, 1, 1}).LimitOf(kBounds), absl::Seconds(60));
  EXPECT_EQ(Of({1, 1, 1, 1}).LimitWithin(kBounds).why, "too little is known yet");
  EXPECT_EQ(Of({1, 1, 1, 1, 1}).LimitOf(kBounds), absl::Seconds(3));
}

TEST(LearnedDuration, TheLimitIsTheMedianPlusDeviations) {
  const LearnedDuration learned = Of({1, 2, 3, 4, 5});
  EXPECT_EQ(learned.median(), absl::Seconds(3));
  EXPECT_EQ(learned.deviation(), absl::Seconds(1));
  const LearnedLimit limit = learned.LimitWithin(kBounds);
  EXPECT_EQ(limit.limit, absl::Seconds(11));
  EXPECT_EQ(limit.why, "median 3.0 s + 8 deviations");
}

TEST(LearnedDuration, FewOutliersMoveNothing) {
  EXPECT_EQ(Of({1, 1, 1, 500, 1, 1, 900, 1, 1}).LimitOf(kBounds), absl::Seconds(3));
}

TEST(LearnedDuration, WhatIsOldIsForgotten) {
  LearnedDuration learned = Of({50, 50, 50, 50, 50, 50});
  for (size_t i = 0; i < LearnedDuration::kWindow; ++i) learned.Add(absl::Seconds(1));
  EXPECT_EQ(learned.count(), LearnedDuration::kWindow);
  EXPECT_EQ(learned.LimitOf(kBounds), absl::Seconds(3));
}

TEST(LearnedDuration, TheLimitStaysWithinItsBoundsAndSaysSo) {
  const LearnedLimit least = Of({0.1, 0.1, 0.1, 0.1, 0.1}).LimitWithin(kBounds);
  EXPECT_EQ(least.limit, absl::Seconds(2));
  EXPECT_EQ(least.why, "the least allowed; median 0.1 s + 8 deviations is 0.3 s");
  const LearnedLimit most = Of({30, 30, 30, 30, 30}).LimitWithin(kBounds);
  EXPECT_EQ(most.limit, absl::Seconds(60));
  EXPECT_EQ(most.why, "the most allowed; median 30.0 s + 8 deviations is 90.0 s");
}

TEST(LearnedDuration, TheMostWinsOverALeastAboveIt) {
  EXPECT_EQ(Of({1, 1, 1, 1, 1}).LimitOf({absl::Seconds(9), absl::Seconds(5), 8, 5}),
            absl::Seconds(5));
}

TEST(LearnedDuration, NegativeDurationsCountAsZero) {
  EXPECT_EQ(Of({-1, -1, -1}).median(), absl::ZeroDuration());
}

TEST(InSeconds, SaysItInTheUnitThatReads) {
  EXPECT_EQ(InSeconds(absl::Milliseconds(4)), "4 ms");
  EXPECT_EQ(InSeconds(absl::Milliseconds(800)), "0.8 s");
  EXPECT_EQ(InSeconds(absl::Seconds(12.34)), "12.3 s");
}

}  // namespace
}  // namespace starling
