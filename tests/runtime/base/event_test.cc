#include "runtime/base/event.h"

#include <gtest/gtest.h>

#include <string>

namespace starling {
namespace {

TEST(Event, KeepsFieldsInTheOrderGivenWithTheirTypes) {
  const Event event = Event("peer_lost").With("stage", 2u).With("loss", 0.5).With("why", "silent");
  EXPECT_EQ(event.name, "peer_lost");
  ASSERT_EQ(event.fields.size(), 3u);
  EXPECT_EQ(event.fields[0].first, "stage");
  EXPECT_EQ(std::get<int64_t>(event.fields[0].second), 2);
  EXPECT_EQ(event.fields[1].first, "loss");
  EXPECT_EQ(std::get<double>(event.fields[1].second), 0.5);
  EXPECT_EQ(event.fields[2].first, "why");
  EXPECT_EQ(std::get<std::string>(event.fields[2].second), "silent");
}

TEST(Event, TextIsOneLineOfNameAndFields) {
  EXPECT_EQ(ToString(Event("peer_lost").With("stage", 1).With("reason", "connection lost")),
            "peer_lost stage=1 reason=connection lost");
  EXPECT_EQ(ToString(Event("replayed")), "replayed");
}

}  // namespace
}  // namespace starling
