#include "runtime/membership/failure_detector.h"

#include <gtest/gtest.h>

namespace starling {
namespace {

constexpr Incarnation kFirst{static_cast<Epoch>(1), 1};
constexpr Incarnation kSecond{static_cast<Epoch>(1), 2};
const absl::Time kStart = absl::UnixEpoch();

FailureDetector Detector() { return FailureDetector(FailureDetector::Options{}); }

// `incarnation` is heard every `interval`, `count` times from kStart on. Returns the last time.
absl::Time HearEvery(FailureDetector* detector, absl::Duration interval, int count) {
  absl::Time now = kStart;
  detector->OnHeard(kFirst, now);
  for (int i = 0; i < count; ++i) detector->OnHeard(kFirst, now += interval);
  return now;
}

TEST(FailureDetector, SilenceUpToTheLimitIsNoReason) {
  FailureDetector detector = Detector();
  detector.OnHeard(kFirst, kStart);
  EXPECT_TRUE(detector.Overdue(kStart + absl::Seconds(20)).empty());
  EXPECT_EQ(detector.Overdue(kStart + absl::Seconds(20.1)).size(), 1u);
}

TEST(FailureDetector, ASuspectComesWithItsReasonInWords) {
  FailureDetector detector = Detector();
  detector.OnHeard(kFirst, kStart);
  const auto suspects = detector.Overdue(kStart + absl::Milliseconds(20340));
  ASSERT_EQ(suspects.size(), 1u);
  EXPECT_EQ(suspects[0].incarnation, kFirst);
  EXPECT_EQ(suspects[0].reason, "silent for 20.3 s (limit 20.0 s: too little is known yet)");
}

TEST(FailureDetector, AHeartbeatClearsTheSuspicion) {
  FailureDetector detector = Detector();
  detector.OnHeard(kFirst, kStart);
  ASSERT_EQ(detector.Overdue(kStart + absl::Seconds(30)).size(), 1u);
  detector.OnHeard(kFirst, kStart + absl::Seconds(30));
  EXPECT_TRUE(detector.Overdue(kStart + absl::Seconds(30)).empty());
}

TEST(FailureDetector, OnlyTheSilentOneIsSuspected) {
  FailureDetector detector = Detector();
  detector.OnHeard(kSecond, kStart);
  detector.OnHeard(kFirst, kStart);
  detector.OnHeard(kFirst, kStart + absl::Seconds(15));
  const auto suspects = detector.Overdue(kStart + absl::Seconds(25));
  ASSERT_EQ(suspects.size(), 1u);
  EXPECT_EQ(suspects[0].incarnation, kSecond);
}

TEST(FailureDetector, SuspectsComeInTheOrderOfIncarnations) {
  FailureDetector detector = Detector();
  detector.OnHeard(kSecond, kStart);
  detector.OnHeard(kFirst, kStart + absl::Seconds(1));
  const auto suspects = detector.Overdue(kStart + absl::Seconds(60));
  ASSERT_EQ(suspects.size(), 2u);
  EXPECT_EQ(suspects[0].incarnation, kFirst);
  EXPECT_EQ(suspects[1].incarnation, kSecond);
}

TEST(FailureDetector, AForgottenOneIsNeverOverdue) {
  FailureDetector detector = Detector();
  detector.OnHeard(kFirst, kStart);
  detector.Forget(kFirst);
  detector.Forget(kSecond);
  EXPECT_EQ(detector.watched(), 0u);
  EXPECT_TRUE(detector.Overdue(kStart + absl::Hours(1)).empty());
}

TEST(FailureDetector, OwnSleepIsNotHeldAgainstOthers) {
  FailureDetector detector = Detector();
  detector.OnHeard(kFirst, kStart);
  detector.OnHeard(kSecond, kStart);
  detector.Extend(absl::Seconds(60));  // we slept from second 5 to 65
  EXPECT_TRUE(detector.Overdue(kStart + absl::Seconds(65)).empty());
  detector.OnHeard(kFirst, kStart + absl::Seconds(65));
  const auto suspects = detector.Overdue(kStart + absl::Seconds(81));
  ASSERT_EQ(suspects.size(), 1u);
  EXPECT_EQ(suspects[0].incarnation, kSecond);
  EXPECT_EQ(suspects[0].reason, "silent for 21.0 s (limit 20.0 s: too little is known yet)");
}

TEST(FailureDetector, ARegularOneIsSuspectedAfterFourMissedHeartbeats) {
  FailureDetector detector = Detector();
  const absl::Time last = HearEvery(&detector, absl::Seconds(1), 10);
  EXPECT_TRUE(detector.Overdue(last + absl::Seconds(4)).empty());
  const auto suspects = detector.Overdue(last + absl::Seconds(4.4));
  ASSERT_EQ(suspects.size(), 1u);
  EXPECT_EQ(suspects[0].reason,
            "silent for 4.4 s; usually heard every 1.0 s (limit 4.0 s: the least allowed; median "
            "1.0 s + 8 deviations is 3.0 s)");
}

TEST(FailureDetector, AnIrregularOneGetsMoreTime) {
  FailureDetector detector = Detector();
  absl::Time now = kStart;
  detector.OnHeard(kFirst, now);
  for (int i = 0; i < 16; ++i) detector.OnHeard(kFirst, now += absl::Seconds(1 + i % 3));
  EXPECT_EQ(detector.Limit(kFirst), absl::Seconds(10));  // 2 + 8 * 1
  EXPECT_TRUE(detector.Overdue(now + absl::Seconds(10)).empty());
  const auto suspects = detector.Overdue(now + absl::Seconds(10.2));
  ASSERT_EQ(suspects.size(), 1u);
  EXPECT_EQ(suspects[0].reason,
            "silent for 10.2 s; usually heard every 2.0 s (limit 10.0 s: median 2.0 s + 8 "
            "deviations)");
}

TEST(FailureDetector, AVeryIrregularOneIsSuspectedAtTheCeiling) {
  FailureDetector detector = Detector();
  const absl::Time last = HearEvery(&detector, absl::Seconds(15), 10);
  EXPECT_TRUE(detector.Overdue(last + absl::Seconds(20)).empty());
  EXPECT_EQ(detector.Overdue(last + absl::Seconds(20.1)).size(), 1u);
}

TEST(FailureDetector, ABurstOfMessagesIsNotTakenForImpatience) {
  FailureDetector detector = Detector();
  const absl::Time last = HearEvery(&detector, absl::Milliseconds(1), 60000);
  EXPECT_EQ(detector.Limit(kFirst), absl::Seconds(4));
  EXPECT_TRUE(detector.Overdue(last + absl::Seconds(4)).empty());
}

TEST(FailureDetector, TheCeilingWinsOverTheFloor) {
  FailureDetector::Options options;
  options.dead_after = absl::Seconds(2);
  FailureDetector detector(options);
  const absl::Time last = HearEvery(&detector, absl::Milliseconds(800), 10);
  EXPECT_EQ(detector.Limit(kFirst), absl::Seconds(2));
  EXPECT_EQ(detector.Overdue(last + absl::Seconds(2.1)).size(), 1u);
}

TEST(FailureDetector, AFewHeartbeatsAreTooFewToJudgeBy) {
  FailureDetector detector = Detector();
  HearEvery(&detector, absl::Seconds(1), 7);
  EXPECT_EQ(detector.Limit(kFirst), absl::Seconds(20));
  detector.OnHeard(kFirst, kStart + absl::Seconds(8));
  EXPECT_EQ(detector.Limit(kFirst), absl::Seconds(4));
  EXPECT_EQ(detector.Limit(kSecond), absl::Seconds(20)) << "each is judged by its own";
}

TEST(FailureDetector, OwnSleepIsNotLearnt) {
  FailureDetector detector = Detector();
  absl::Time now = HearEvery(&detector, absl::Seconds(1), 10);
  for (int i = 0; i < 16; ++i) {
    now += absl::Seconds(10);
    detector.Extend(absl::Seconds(9));
    detector.OnHeard(kFirst, now);
  }
  EXPECT_EQ(detector.Limit(kFirst), absl::Seconds(4));
}

}  // namespace
}  // namespace starling
