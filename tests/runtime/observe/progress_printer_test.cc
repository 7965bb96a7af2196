#include "runtime/observe/progress_printer.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace starling {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Not;

class ProgressPrinterTest : public ::testing::Test {
 protected:
  ProgressPrinter Make(bool terminal) {
    return ProgressPrinter({200, terminal},
                           [this](const std::string& line) { lines_.push_back(line); });
  }
  std::vector<std::string> lines_;
};

StepReport Report(uint64_t step, double step_s) {
  StepReport report;
  report.step = Step{step};
  report.loss = 2.81214;
  report.gradient_norm = 0.9141;
  report.learning_rate = 2.91e-3;
  report.tokens_per_s = 9311.7;
  report.step_s = step_s;
  report.replicas = {2, 1, 2};
  return report;
}

TEST_F(ProgressPrinterTest, StepLineHoldsEverythingAPersonLooksFor) {
  Make(false).OnStep(Report(57, 0.5));
  EXPECT_THAT(lines_, ElementsAre("step  57/200  loss 2.8121  norm 0.914  lr 2.91e-03   9312 tok/s"
                                  "  replicas 2/1/2  eta 1:12"));
}

TEST_F(ProgressPrinterTest, RetriesSkipsAndAWrongLaneAreSaid) {
  StepReport report = Report(200, 0.5);
  report.retries = 3;
  report.skipped = true;
  report.lane_ok = false;
  Make(false).OnStep(report);
  EXPECT_THAT(lines_[0], HasSubstr("retries 3"));
  EXPECT_THAT(lines_[0], HasSubstr("skipped"));
  EXPECT_THAT(lines_[0], HasSubstr("LANE WRONG"));
  EXPECT_THAT(lines_[0], Not(HasSubstr("eta")));
}

TEST_F(ProgressPrinterTest, OneSlowStepHardlyMovesTheEta) {
  ProgressPrinter progress = Make(false);
  for (uint64_t step = 1; step <= 10; ++step) progress.OnStep(Report(step, 1.0));
  progress.OnStep(Report(11, 11.0));
  EXPECT_THAT(lines_.back(), HasSubstr("eta 6:18"));  // 189 steps of 2 s
}

TEST_F(ProgressPrinterTest, LostReplicaIsAPlainSentence) {
  Make(false).OnEvent(
      Event("peer_lost").With("stage", 1).With("pid", 123).With("reason", "connection lost"));
  EXPECT_THAT(lines_, ElementsAre("         lost replica of stage 1 (pid 123): connection lost"));
}

TEST_F(ProgressPrinterTest, ColourOnATerminalOnly) {
  Make(true).Say("hello");
  EXPECT_THAT(lines_[0], HasSubstr("\033["));
  lines_.clear();
  Make(false).Say("hello");
  EXPECT_THAT(lines_[0], Not(HasSubstr("\033[")));
}

TEST_F(ProgressPrinterTest, EventsForProgramsOnlyAreNotPrinted) {
  Make(false).OnEvent(Event("state_hash").With("stage", 1));
  EXPECT_THAT(lines_, ElementsAre());
}

TEST(ToSentenceTest, EventsWithMissingFieldsStillMakeASentence) {
  for (const char* name : {"peer_joined", "replayed", "evaluated", "local_gave_up", "waiting"}) {
    EXPECT_THAT(ToSentence(Event(name)), Not(HasSubstr("\n"))) << name;
    EXPECT_NE(ToSentence(Event(name)), "") << name;
  }
}

TEST(ToSentenceTest, EvaluationsAndReplaysAreCounted) {
  EXPECT_EQ(ToSentence(Event("evaluated").With("step", 50).With("validation_loss", 2.31)),
            "validation loss 2.3100 nats/byte at step 50");
  EXPECT_EQ(
      ToSentence(
          Event("evaluated").With("step", 50).With("validation_loss", 2.31).With("per", "token")),
      "validation loss 2.3100 nats/token at step 50");
  EXPECT_EQ(ToSentence(Event("replayed").With("step", 9).With("microbatches", 1).With("pairs", 3)),
            "replayed 3 lost gradients (1 microbatch) of step 9");
}

TEST(FormatSecondsTest, MinutesAndHours) {
  EXPECT_EQ(FormatSeconds(6.6), "0:07");
  EXPECT_EQ(FormatSeconds(3723), "1:02:03");
  EXPECT_EQ(FormatSeconds(-1), "0:00");
}

}  // namespace
}  // namespace starling
