#include "runtime/observe/events_writer.h"

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace starling {
namespace {

const absl::Time kNow = absl::FromUnixMillis(1767269122125);  // 2026-01-01 12:05:22.125 UTC

TEST(EventsWriterTest, TimeAndNameComeFirstThenFieldsInOrder) {
  const Event event =
      Event("peer_lost").With("stage", 1).With("loss", 0.1).With("reason", "connection lost");
  EXPECT_EQ(ToEventLine(kNow, event),
            R"({"time":"2026-01-01T12:05:22.125Z","event":"peer_lost","stage":1,"loss":0.1,)"
            R"("reason":"connection lost"})");
}

TEST(EventsWriterTest, NumbersThatNoDoubleHoldsStayExact) {
  const auto line = nlohmann::json::parse(
      ToEventLine(kNow, Event("state_hash").With("version", int64_t{9007199254740993})));
  EXPECT_EQ(line["version"].get<int64_t>(), 9007199254740993);
}

TEST(EventsWriterTest, TextThatIsNotUtf8StillMakesALine) {
  const std::string line =
      ToEventLine(kNow, Event("peer_arrived").With("host", std::string("a\xff\nb")));
  EXPECT_TRUE(nlohmann::json::accept(line)) << line;
  EXPECT_EQ(line.find('\n'), std::string::npos);
}

}  // namespace
}  // namespace starling
