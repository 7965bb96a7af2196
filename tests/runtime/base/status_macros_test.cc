#include "runtime/base/status_macros.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

namespace starling {
namespace {

absl::Status Pass(const absl::Status& status, bool* went_on) {
  STARLING_RETURN_IF_ERROR(status);
  *went_on = true;
  return absl::OkStatus();
}

TEST(StatusMacros, ErrorIsReturnedUnchangedAndStopsTheFunction) {
  bool went_on = false;
  const absl::Status busy = absl::ResourceExhaustedError("the queue is full");
  EXPECT_EQ(Pass(busy, &went_on), busy);
  EXPECT_FALSE(went_on);
}

TEST(StatusMacros, OkGoesOn) {
  bool went_on = false;
  EXPECT_TRUE(Pass(absl::OkStatus(), &went_on).ok());
  EXPECT_TRUE(went_on);
}

absl::StatusOr<int> Sum(absl::StatusOr<int> a, absl::StatusOr<int> b) {
  STARLING_ASSIGN_OR_RETURN(const int first, std::move(a));
  STARLING_ASSIGN_OR_RETURN(int second, std::move(b));
  second += first;
  return second;
}

TEST(StatusMacros, AssignsTheValuesOrReturnsTheFirstError) {
  EXPECT_EQ(Sum(2, 3).value(), 5);
  EXPECT_EQ(Sum(absl::AbortedError("stale"), absl::DataLossError("torn")).status(),
            absl::AbortedError("stale"));
  EXPECT_EQ(Sum(2, absl::DataLossError("torn")).status(), absl::DataLossError("torn"));
}

absl::Status TakeInto(absl::StatusOr<std::unique_ptr<std::string>> from,
                      std::unique_ptr<std::string>* target) {
  STARLING_ASSIGN_OR_RETURN(*target, std::move(from));
  return absl::OkStatus();
}

TEST(StatusMacros, MovesWhatCannotBeCopiedAndLeavesTheTargetOnError) {
  std::unique_ptr<std::string> target;
  EXPECT_TRUE(TakeInto(std::make_unique<std::string>("held"), &target).ok());
  ASSERT_NE(target, nullptr);
  EXPECT_EQ(TakeInto(absl::CancelledError("stopping"), &target).code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(*target, "held");
}

}  // namespace
}  // namespace starling
