#include "runtime/trainer/decision_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "nlohmann/json.hpp"
#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

using ::starling::testing::MemoryDisk;
using ::testing::Contains;

constexpr char kPath[] = "/run/decisions.jsonl";

// Runs each job at once and hands out its status when asked.
class InlineFiles : public Files {
 public:
  explicit InlineFiles(Disk* disk) : disk_(disk) {}
  void Run(std::function<absl::Status(Disk&)> job,
           std::function<void(absl::Status)> done) override {
    done(job(*disk_));
  }

 private:
  Disk* const disk_;
};

class DecisionLogTest : public ::testing::Test {
 protected:
  DecisionLogTest() { disk_.folders.insert("/run"); }
  void Create() { ASSERT_TRUE(CreateDecisionLog(disk_, kPath, RunId{77}).ok()); }
  absl::Status Append(const Decision& decision) {
    absl::Status result = absl::UnknownError("not called");
    log_.Append(decision, [&](absl::Status status) { result = std::move(status); });
    return result;
  }
  static Decision Record(uint64_t number, uint64_t step, uint32_t epoch = 1, uint32_t era = 1) {
    Decision decision;
    decision.number = number;
    decision.epoch = Epoch{epoch};
    decision.era = Era{era};
    decision.step = Step{step};
    return decision;
  }

  MemoryDisk disk_;
  InlineFiles files_{&disk_};
  DecisionLog log_{&files_, kPath};
};

TEST_F(DecisionLogTest, FreshLogNamesTheRunAndNoDecision) {
  Create();
  const auto state = ReadDecisionLog(disk_, kPath);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->run, RunId{77});
  EXPECT_EQ(state->last_number, 0u);
  EXPECT_EQ(state->step, Step{0});
  EXPECT_THAT(disk_.log, Contains("sync /run/decisions.jsonl"));
  EXPECT_THAT(disk_.log, Contains("sync folder /run"));
}

TEST_F(DecisionLogTest, ExistingLogIsNotOverwritten) {
  Create();
  const std::string before = disk_.files[kPath];
  EXPECT_EQ(CreateDecisionLog(disk_, kPath, RunId{78}).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(disk_.files[kPath], before);
}

TEST_F(DecisionLogTest, NewestRecordIsReadBack) {
  Create();
  ASSERT_TRUE(Append(Record(1, 1)).ok());
  ASSERT_TRUE(Append(Record(2, 2, 3, 2)).ok());
  const auto state = ReadDecisionLog(disk_, kPath);
  ASSERT_TRUE(state.ok());
  EXPECT_EQ(state->last_number, 2u);
  EXPECT_EQ(state->epoch, Epoch{3});
  EXPECT_EQ(state->era, Era{2});
  EXPECT_EQ(state->step, Step{2});
}

TEST_F(DecisionLogTest, RecordThatOnlyChangesMembersKeepsTheStep) {
  Create();
  ASSERT_TRUE(Append(Record(1, 9)).ok());
  ASSERT_TRUE(Append(Record(2, 0)).ok());
  const auto state = ReadDecisionLog(disk_, kPath);
  ASSERT_TRUE(state.ok());
  EXPECT_EQ(state->last_number, 2u);
  EXPECT_EQ(state->step, Step{9});
}

TEST_F(DecisionLogTest, AppendIsSyncedBeforeItIsDone) {
  Create();
  disk_.log.clear();
  ASSERT_TRUE(Append(Record(1, 1)).ok());
  EXPECT_EQ(disk_.log.back(), std::string("sync ") + kPath);
}

TEST_F(DecisionLogTest, FullDiskIsReported) {
  Create();
  disk_.budget_bytes = disk_.used_bytes() + 10;
  EXPECT_EQ(Append(Record(1, 1)).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(DecisionLogTest, TornLastLineIsIgnoredAndTheNextRecordIsReadable) {
  Create();
  ASSERT_TRUE(Append(Record(1, 1)).ok());
  const std::string whole = disk_.files[kPath];
  const std::string line = ToJsonLine(Record(2, 2));
  for (size_t bytes = 1; bytes < line.size(); bytes += 7) {
    disk_.files[kPath] = whole + line.substr(0, bytes);
    DecisionLog log(&files_, kPath);  // of the trainer that is started again
    auto state = ReadDecisionLog(disk_, kPath);
    ASSERT_TRUE(state.ok()) << "torn after " << bytes;
    EXPECT_EQ(state->last_number, 1u) << "torn after " << bytes;
    log.Append(Record(2, 2), [](absl::Status status) { ASSERT_TRUE(status.ok()) << status; });
    state = ReadDecisionLog(disk_, kPath);
    ASSERT_TRUE(state.ok());
    EXPECT_EQ(state->last_number, 2u) << "torn after " << bytes;
  }
}

TEST_F(DecisionLogTest, FileThatIsNoLogIsDataLoss) {
  for (const char* text :
       {"", "\n", "hello\n", "[1]\n", "{}\n", "{\"format\": \"one\"}\n",
        "{\"format\": 2, \"run\": 77}\n", "{\"format\": 1, \"run\": -1}\n", "{\"format\": 1}\n"}) {
    disk_.files[kPath] = text;
    EXPECT_EQ(ReadDecisionLog(disk_, kPath).status().code(), absl::StatusCode::kDataLoss) << text;
  }
}

TEST_F(DecisionLogTest, MissingLogIsNotFound) {
  EXPECT_EQ(ReadDecisionLog(disk_, kPath).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(DecisionLogTest, RecordIsOneLineWithEverythingThatWasDecided) {
  Decision decision = Record(4, 3);
  decision.loss = 2.5;
  decision.groups.push_back({{Epoch{1}, Step{3}, 1, 2},
                             {{{Epoch{1}, 5}, {{SegmentId{0}, Hash128{1, 2}}}}},
                             Hash128{3, 4},
                             0.5,
                             99});
  decision.leaves.push_back({Epoch{1}, 6});
  const std::string line = ToJsonLine(decision);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["loss"], 2.5);
  EXPECT_EQ(json["groups"][0]["lane"], 99);
  EXPECT_EQ(json["groups"][0]["members"][0]["segments"][0]["list"], ToHex(Hash128{1, 2}));
  EXPECT_EQ(json["leaves"][0], ToString(Incarnation{Epoch{1}, 6}));
}

Decision FullRecord() {
  Decision decision;
  decision.number = 4;
  decision.epoch = Epoch{3};
  decision.era = Era{2};
  decision.step = Step{5};
  decision.computed_on = Version{3};
  decision.skip = true;
  decision.loss = 0.1;
  decision.gradient_norm = 1.0 / 3;
  decision.learning_rate = 3e-3;
  decision.tokens = 4096;
  decision.scalars.grad_scale = 0.1f;
  decision.scalars.step_size = 1.0f / 3;
  decision.groups.push_back({{Epoch{3}, Step{5}, 1, 2},
                             {{{Epoch{3}, 5}, {{SegmentId{7}, Hash128{~uint64_t{0}, 2}}}}},
                             Hash128{3, 4},
                             0.7,
                             ~uint64_t{0}});
  decision.joins.push_back(
      {{Epoch{3}, 9}, PeerId{~uint64_t{5}}, StageId{1}, {"tcp://a", "tcp://b"}});
  decision.leaves.push_back({Epoch{1}, 6});
  return decision;
}

TEST(DecisionJson, EveryFieldIsReadBackToTheBit) {
  const Decision decision = FullRecord();
  const std::string line = ToJsonLine(decision);
  const absl::StatusOr<Decision> read = ParseDecision(line);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(ToJsonLine(*read), line);
  EXPECT_EQ(read->computed_on, Version{3});
  EXPECT_EQ(read->scalars.grad_scale, decision.scalars.grad_scale);
  EXPECT_EQ(read->groups[0].round, decision.groups[0].round);
  EXPECT_EQ(read->groups[0].members[0].segments[0].list_hash, (Hash128{~uint64_t{0}, 2}));
  EXPECT_EQ(read->joins[0].peer, decision.joins[0].peer);
  EXPECT_EQ(read->joins[0].address, decision.joins[0].address);
  EXPECT_EQ(read->leaves[0], decision.leaves[0]);
}

TEST(DecisionJson, RecordThatDoesNotSayOtherwiseWasComputedOnTheVersionBefore) {
  std::string line = ToJsonLine(FullRecord());
  const std::string field = R"("computed_on":3,)";
  ASSERT_NE(line.find(field), std::string::npos) << line;
  line.erase(line.find(field), field.size());
  const absl::StatusOr<Decision> read = ParseDecision(line);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->computed_on, Version{4});
}

TEST(DecisionJson, NumberThatIsNotFiniteIsReadAsNotANumber) {
  Decision decision = FullRecord();
  decision.loss = std::numeric_limits<double>::infinity();
  const absl::StatusOr<Decision> read = ParseDecision(ToJsonLine(decision));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(std::isnan(read->loss));
}

TEST(DecisionJson, TornOrMangledLineIsDataLoss) {
  const std::string line = ToJsonLine(FullRecord());
  for (size_t bytes = 0; bytes < line.size(); ++bytes) {
    EXPECT_EQ(ParseDecision(line.substr(0, bytes)).status().code(), absl::StatusCode::kDataLoss);
  }
  for (const char* key : {"number", "era", "scalars", "groups", "replica", "list", "joins"}) {
    std::string other = line;
    other.replace(other.find(key), 1, "?");
    EXPECT_EQ(ParseDecision(other).status().code(), absl::StatusCode::kDataLoss) << key;
  }
}

TEST_F(DecisionLogTest, MembersAreThoseWhoJoinedAndDidNotLeaveInTheNewestEra) {
  Create();
  const auto member = [](uint32_t counter) {
    Member member;
    member.incarnation = {Epoch{1}, counter};
    return member;
  };
  Decision joins = Record(1, 0);
  joins.joins = {member(1), member(2)};
  ASSERT_TRUE(Append(joins).ok());
  Decision step = Record(2, 1);
  step.leaves = {member(1).incarnation};
  ASSERT_TRUE(Append(step).ok());
  auto state = ReadDecisionLog(disk_, kPath);
  ASSERT_TRUE(state.ok());
  EXPECT_EQ(state->members.size(), 1u);
  EXPECT_EQ(state->members.count(member(2).incarnation), 1u);
  ASSERT_TRUE(state->newest.has_value());
  EXPECT_EQ(state->newest->number, 2u);

  ASSERT_TRUE(Append(Record(3, 0, 1, 2)).ok());  // a new era: everyone is a joiner again
  state = ReadDecisionLog(disk_, kPath);
  ASSERT_TRUE(state.ok());
  EXPECT_TRUE(state->members.empty());
  EXPECT_FALSE(state->newest.has_value());
  EXPECT_EQ(state->step, Step{1});
}

TEST_F(DecisionLogTest, SkippedStepsAreKnownUntilTheyAreTakenAgain) {
  Create();
  Decision skip = Record(1, 3);
  skip.skip = true;
  ASSERT_TRUE(Append(skip).ok());
  EXPECT_EQ(ReadDecisionLog(disk_, kPath)->skipped, std::set<Step>{Step{3}});
  ASSERT_TRUE(Append(Record(2, 3, 1, 2)).ok());
  EXPECT_TRUE(ReadDecisionLog(disk_, kPath)->skipped.empty());
}

TEST_F(DecisionLogTest, RecordBehindOneThatFilledTheDiskIsReadable) {
  Create();
  ASSERT_TRUE(Append(Record(1, 1)).ok());
  disk_.budget_bytes = disk_.used_bytes() + 10;
  EXPECT_FALSE(Append(Record(2, 2)).ok());
  disk_.budget_bytes = std::numeric_limits<uint64_t>::max();
  ASSERT_TRUE(Append(Record(3, 3)).ok());
  EXPECT_EQ(ReadDecisionLog(disk_, kPath)->last_number, 3u);
}

}  // namespace
}  // namespace starling
