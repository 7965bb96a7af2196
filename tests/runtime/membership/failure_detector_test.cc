#include "runtime/membership/failure_detector.h"

#include <gtest/gtest.h>

namespace starling {
namespace {

constexpr Incarnation kFirst{static_cast<Epoch>(1), 1};
constexpr Incarnation kSecond{static_cast<Epoch>(1), 2};
const absl::Time kStart = absl::UnixEpoch();

FailureDetector Detector() { return FailureDetector({absl::Seconds(20)}); }

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
  EXPECT_EQ(suspects[0].reason, "no heartbeat for 20.3 s (limit 20 s)");
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
  EXPECT_EQ(suspects[0].reason, "no heartbeat for 21.0 s (limit 20 s)");
}

}  // namespace
}  // namespace starling
