#include "checkpoint/token_bucket.h"

#include <gtest/gtest.h>

namespace starling {
namespace {

const absl::Time kStart = absl::UnixEpoch();

TEST(TokenBucket, WithoutABoundEverythingGoesAtOnce) {
  TokenBucket bucket(0, 0);
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(bucket.Take(uint64_t{1} << 60, kStart));
  EXPECT_EQ(bucket.Wait(~uint64_t{0}, kStart), absl::ZeroDuration());
}

TEST(TokenBucket, ABurstGoesAtOnceAndTheRestAtTheRate) {
  TokenBucket bucket(100, 50);
  EXPECT_TRUE(bucket.Take(30, kStart));
  EXPECT_TRUE(bucket.Take(20, kStart));
  EXPECT_FALSE(bucket.Take(10, kStart));
  EXPECT_EQ(bucket.Wait(10, kStart), absl::Milliseconds(100));
  EXPECT_FALSE(bucket.Take(10, kStart + absl::Milliseconds(99)));
  EXPECT_TRUE(bucket.Take(10, kStart + absl::Milliseconds(100)));
}

TEST(TokenBucket, ItHoldsNoMoreThanTheBurst) {
  TokenBucket bucket(100, 50);
  EXPECT_TRUE(bucket.Take(0, kStart));
  EXPECT_TRUE(bucket.Take(50, kStart + absl::Hours(1)));
  EXPECT_FALSE(bucket.Take(1, kStart + absl::Hours(1)));
}

TEST(TokenBucket, WhatIsLargerThanTheBurstIsPaidForAfterwards) {
  TokenBucket bucket(100, 50);
  EXPECT_TRUE(bucket.Take(250, kStart));
  EXPECT_EQ(bucket.Wait(50, kStart), absl::Seconds(2.5));
  EXPECT_TRUE(bucket.Take(250, kStart + absl::Seconds(2.5)));
}

TEST(TokenBucket, AfterTheWaitItMayGo) {
  TokenBucket bucket(3e6 / 7, 1e5 / 3);
  absl::Time now = kStart;
  for (int i = 0; i < 10000; ++i) {
    now += bucket.Wait(10007, now);
    ASSERT_TRUE(bucket.Take(10007, now)) << i;
  }
  EXPECT_NEAR(absl::ToDoubleSeconds(now - kStart), 1e4 * 10007 / (3e6 / 7), 1);
}

TEST(TokenBucket, ATimeThatStepsBackChangesNothing) {
  TokenBucket bucket(100, 50);
  EXPECT_TRUE(bucket.Take(50, kStart + absl::Seconds(10)));
  EXPECT_FALSE(bucket.Take(50, kStart));
  EXPECT_TRUE(bucket.Take(50, kStart + absl::Seconds(10.5)));
}

}  // namespace
}  // namespace starling
