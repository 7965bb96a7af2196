#include "runtime/trainer/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace starling {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

constexpr Epoch kEpoch{1};
constexpr AttemptId kFirst{{kEpoch, 0}, 1};
constexpr AttemptId kSecond{{kEpoch, 0}, 2};

// Replica `which` of `stage`: 10, 11 serve stage 0; 20, 21 stage 1; ...
Incarnation At(uint32_t stage, uint32_t which = 0) { return {kEpoch, 10 * (stage + 1) + which}; }
uint32_t StageOf(Incarnation replica) { return replica.counter / 10 - 1; }

WorkId Work(AttemptId attempt, uint32_t index = 0) {
  return {{Step{1}, WorkKind::kTrain, index}, attempt};
}

// What the live replicas of a swarm answer to a fence. Everything is kept in their logs, unless a
// test says otherwise.
class Answers {
 public:
  explicit Answers(uint32_t stages) {
    for (uint32_t stage = 0; stage < stages; ++stage) {
      for (uint32_t which : {0u, 1u}) answers_[At(stage, which)].stage = StageId{stage};
    }
  }
  Answers& Dead(Incarnation replica) {
    answers_.erase(replica);
    return *this;
  }
  Answers& Open(Incarnation at, std::optional<Incarnation> to, AttemptId attempt = kFirst) {
    return Held(HeldState::kOpen, at, to, attempt);
  }
  Answers& Has(Incarnation at, std::optional<Incarnation> to, AttemptId attempt = kFirst) {
    return Held(HeldState::kAdded, at, to, attempt);
  }
  Answers& Done(Incarnation at, std::optional<Incarnation> to, AttemptId attempt = kFirst) {
    return Held(HeldState::kDone, at, to, attempt);
  }
  // Of the last one named.
  HeldWork& last() { return answers_.at(last_).held.back(); }
  Answers& WithoutLogs() {
    for (auto& [replica, answer] : answers_) {
      for (HeldWork& held : answer.held) held.output_kept = held.gradient_kept = false;
    }
    return *this;
  }
  operator const Ledger::FenceAnswers&() const { return answers_; }  // NOLINT: on purpose

 private:
  Answers& Held(HeldState state, Incarnation at, std::optional<Incarnation> to, AttemptId attempt) {
    HeldWork held;
    held.work = Work(attempt);
    held.state = state;
    held.upstream = StageOf(at) == 0 ? Incarnation{kEpoch, 0} : At(StageOf(at) - 1);
    held.downstream = to;
    held.downstream_attempt = attempt;
    held.accepted = held.output_kept = to.has_value();
    held.gradient_kept = StageOf(at) > 0;
    answers_.at(at).held.push_back(held);
    last_ = at;
    return *this;
  }
  Ledger::FenceAnswers answers_;
  Incarnation last_;
};

std::vector<StageId> Stages(std::vector<uint32_t> numbers) {
  std::vector<StageId> stages;
  for (uint32_t number : numbers) stages.push_back(StageId{number});
  return stages;
}

std::vector<Incarnation> Told(const Ledger::Repair& repair) {
  std::vector<Incarnation> told;
  for (const Ledger::HolderWork& cancel : repair.cancels) told.push_back(cancel.holder);
  return told;
}

// "[1, 2) from 1.10 until 1.30", with "contested" and the stages that add, where not all.
std::vector<std::string> Words(const Ledger::Repair& repair) {
  std::vector<std::string> words;
  for (const Ledger::Splice& splice : repair.splices) {
    std::string text =
        absl::StrCat(splice.contested ? "contested " : "", "[", splice.begin, ", ", splice.end,
                     ") from ", splice.from ? ToString(splice.from->holder) : "the trainer");
    if (splice.until) absl::StrAppend(&text, " until ", ToString(splice.until->holder));
    if (splice.add_at.size() != splice.end - splice.begin) {
      absl::StrAppend(&text, " adding at");
      for (StageId stage : splice.add_at) absl::StrAppend(&text, " ", Value(stage));
    }
    words.push_back(text);
  }
  return words;
}

// Three stages, one microbatch, sent to At(0).
class LedgerOfThree : public testing::Test {
 protected:
  LedgerOfThree() { ledger_.OnSent(0, kFirst, At(0)); }
  Ledger ledger_{3, 1};
};

TEST_F(LedgerOfThree, NoticesOfEveryStageCompleteIt) {
  for (uint32_t stage : {2u, 1u, 1u}) ledger_.OnAdded(0, kFirst, StageId{stage}, At(stage));
  EXPECT_FALSE(ledger_.complete());
  EXPECT_THAT(ledger_.MissingStages(), ElementsAre(Pair(0, Stages({0}))));
  ledger_.OnAdded(0, kFirst, StageId{0}, At(0));
  EXPECT_TRUE(ledger_.complete());
  EXPECT_TRUE(ledger_.complete(0));
}

TEST_F(LedgerOfThree, NoticesOfUnknownAttemptsIndicesAndStagesAreIgnored) {
  for (uint32_t stage : {0u, 1u, 2u}) {
    ledger_.OnAdded(0, kSecond, StageId{stage}, At(stage));
    ledger_.OnAdded(1, kFirst, StageId{stage}, At(stage));
  }
  ledger_.OnAdded(0, kFirst, StageId{3}, At(3));
  EXPECT_THAT(ledger_.MissingStages(), ElementsAre(Pair(0, Stages({0, 1, 2}))));
}

TEST_F(LedgerOfThree, DeadFirstHolderThatNeverAcceptedIsReplacedFromTheTrainer) {
  const auto repair = ledger_.Resolve(Answers(3).Dead(At(0)));
  EXPECT_THAT(Words(repair), ElementsAre("[0, 3) from the trainer"));
  EXPECT_THAT(repair.cancels, IsEmpty());
  EXPECT_EQ(repair.lost_pairs, 0u);
}

TEST_F(LedgerOfThree, DeadFirstHolderThatHadAcceptedHasLostItsStageAndNoOther) {
  ledger_.OnAccepted(0, kFirst);
  const auto repair = ledger_.Resolve(Answers(3).Dead(At(0)));
  EXPECT_THAT(Words(repair), ElementsAre("[0, 3) from the trainer"));
  EXPECT_EQ(repair.lost_pairs, 1u) << "stages 1 and 2 had not begun";
}

TEST_F(LedgerOfThree, DeadMiddleThatHadPassedOnIsSplicedOut) {
  const auto repair =
      ledger_.Resolve(Answers(3).Dead(At(1)).Open(At(0), At(1)).Open(At(2), std::nullopt));
  EXPECT_THAT(Words(repair), ElementsAre("[1, 2) from 1.10 until 1.30"));
  EXPECT_EQ(repair.splices[0].from->work, Work(kFirst));
  EXPECT_EQ(repair.splices[0].until->attempt, kFirst);
  EXPECT_THAT(repair.cancels, IsEmpty());
  EXPECT_EQ(repair.lost_pairs, 1u);
}

TEST_F(LedgerOfThree, DeadMiddleThatHadNotPassedOnCostsOnlyWhatItHad) {
  const auto repair = ledger_.Resolve(Answers(3).Dead(At(1)).Open(At(0), At(1)));
  EXPECT_THAT(Words(repair), ElementsAre("[1, 3) from 1.10"));
  EXPECT_EQ(repair.lost_pairs, 1u);
}

TEST_F(LedgerOfThree, DeadMiddleWhoseGradientHadPassedUpIsComputedAgainFromBothLogs) {
  ledger_.OnAdded(0, kFirst, StageId{1}, At(1));
  ledger_.OnAdded(0, kFirst, StageId{2}, At(2));
  const auto repair =
      ledger_.Resolve(Answers(3).Dead(At(1)).Has(At(0), At(1)).Done(At(2), std::nullopt));
  EXPECT_THAT(Words(repair), ElementsAre("[1, 2) from 1.10 until 1.30"));
  EXPECT_THAT(ledger_.MissingStages(), ElementsAre(Pair(0, Stages({0, 1}))));
  EXPECT_EQ(repair.lost_pairs, 1u);
}

TEST_F(LedgerOfThree, DeadLastStageIsReplacedFromTheOneBeforeIt) {
  const auto repair = ledger_.Resolve(Answers(3).Dead(At(2)).Open(At(0), At(1)).Open(At(1), At(2)));
  EXPECT_THAT(Words(repair), ElementsAre("[2, 3) from 1.20"));
  EXPECT_THAT(repair.cancels, IsEmpty());
}

TEST_F(LedgerOfThree, DeadFirstStageThatHadPassedOnIsReplacedFromTheTrainerUntilTheSecond) {
  for (const Answers& answers : {Answers(3).Open(At(1), At(2)).Open(At(2), std::nullopt),
                                 Answers(3).Done(At(1), At(2)).Done(At(2), std::nullopt)}) {
    Ledger ledger(3, 1);
    ledger.OnSent(0, kFirst, At(0));
    Answers one_dead = answers;
    EXPECT_THAT(Words(ledger.Resolve(one_dead.Dead(At(0)))),
                ElementsAre("[0, 1) from the trainer until 1.20"));
  }
}

TEST_F(LedgerOfThree, TwoDeadNeighboursAreOneStretch) {
  const auto repair = ledger_.Resolve(Answers(3).Dead(At(0)).Dead(At(1)).Done(At(2), std::nullopt));
  EXPECT_THAT(Words(repair), ElementsAre("[0, 2) from the trainer until 1.30"));
  EXPECT_EQ(repair.lost_pairs, 2u);
}

TEST_F(LedgerOfThree, LiveChainsAreLeftAlone) {
  for (const Answers& answers :
       {Answers(3), Answers(3).Open(At(0), std::nullopt), Answers(3).Open(At(0), At(1)),
        Answers(3).Open(At(0), At(1)).Open(At(1), At(2)).Has(At(2), std::nullopt)}) {
    Ledger ledger(3, 1);
    ledger.OnSent(0, kFirst, At(0));
    Answers other_died = answers;
    const auto repair = ledger.Resolve(other_died.Dead(At(1, 1)));
    EXPECT_THAT(Words(repair), IsEmpty());
    EXPECT_THAT(repair.cancels, IsEmpty());
    EXPECT_FALSE(repair.ask_again);
  }
}

TEST_F(LedgerOfThree, NoticesOfTheLiveSurviveAFence) {
  ledger_.OnAdded(0, kFirst, StageId{2}, At(2));
  ledger_.Resolve(
      Answers(3).Dead(At(1, 1)).Open(At(0), At(1)).Open(At(1), At(2)).Done(At(2), std::nullopt));
  EXPECT_THAT(ledger_.MissingStages(), ElementsAre(Pair(0, Stages({0, 1}))));
}

TEST_F(LedgerOfThree, RefusedAttemptIsAsIfNeverSent) {
  ledger_.OnRefused(0, kFirst);
  EXPECT_FALSE(ledger_.was_sent(0));
  EXPECT_THAT(Words(ledger_.Resolve(Answers(3).Dead(At(0)))), IsEmpty())
      << "it is still to be sent for the first time";
  ledger_.OnAdded(0, kFirst, StageId{2}, At(2));
  EXPECT_THAT(ledger_.MissingStages(), ElementsAre(Pair(0, Stages({0, 1, 2}))));
}

// --- what logs lack --------------------------------------------------------------------

TEST_F(LedgerOfThree, WithoutLogsTheWholePipelineIsPassedAndOnlyTheLostStagesAdd) {
  const auto repair = ledger_.Resolve(
      Answers(3).Dead(At(1)).Done(At(0), At(1)).Done(At(2), std::nullopt).WithoutLogs());
  EXPECT_THAT(Words(repair), ElementsAre("[0, 3) from the trainer adding at 1"));
  EXPECT_THAT(repair.cancels, IsEmpty());
  EXPECT_EQ(repair.lost_pairs, 1u);
}

TEST_F(LedgerOfThree, WithoutAnOutputWhoWaitsInVainIsToldAndComputedAgain) {
  const auto repair = ledger_.Resolve(Answers(3).Dead(At(1)).Open(At(0), At(1)).WithoutLogs());
  EXPECT_THAT(Words(repair), ElementsAre("[0, 3) from the trainer"));
  EXPECT_THAT(Told(repair), ElementsAre(At(0)));
}

TEST_F(LedgerOfThree, WithoutAGradientBelowTheStretchGoesOnToTheEnd) {
  Answers answers = Answers(3).Dead(At(1)).Done(At(0), At(1)).Done(At(2), std::nullopt);
  answers.last().gradient_kept = false;
  EXPECT_THAT(Words(ledger_.Resolve(answers)), ElementsAre("[1, 3) from 1.10 adding at 1"));
}

TEST_F(LedgerOfThree, OneThatWaitsClaimsFromWhoeverAddedTheNextStage) {
  // Two died: the one it was sent to, and the first holder of another attempt that went through.
  ledger_.OnSent(0, kSecond, At(0, 1));
  const auto repair = ledger_.Resolve(Answers(3)
                                          .Dead(At(1))
                                          .Dead(At(0, 1))
                                          .Open(At(0), At(1))
                                          .Done(At(1, 1), At(2), kSecond)
                                          .Done(At(2), std::nullopt, kSecond));
  EXPECT_THAT(Words(repair), ElementsAre("[1, 1) from 1.10 until 1.21"));
  EXPECT_EQ(repair.lost_pairs, 0u);
}

// --- answers that came early -----------------------------------------------------------

TEST_F(LedgerOfThree, HolderThatAnsweredBeforeItPassedOnIsHelpedWithTheLaterOne) {
  // Stage 0 had not sent it when it answered; stage 1 took it and sent it to the dead stage 2
  // before it answered.
  const auto repair =
      ledger_.Resolve(Answers(3).Dead(At(2)).Open(At(0), std::nullopt).Open(At(1), At(2)));
  EXPECT_THAT(Words(repair), ElementsAre("[2, 3) from 1.20"));
  EXPECT_THAT(repair.cancels, IsEmpty());
}

TEST_F(LedgerOfThree, HolderThatAnsweredTooEarlyToTellIsAskedAgain) {
  // As above, without logs: nobody knows yet who waits at stage 1.
  Ledger ledger(4, 1);
  ledger.OnSent(0, kFirst, At(0));
  const auto repair =
      ledger.Resolve(Answers(4).Dead(At(3)).Open(At(0), At(1)).Open(At(2), At(3)).WithoutLogs());
  EXPECT_TRUE(repair.ask_again);
  EXPECT_THAT(Words(repair), IsEmpty());
}

TEST_F(LedgerOfThree, WorkThatWasDoneAfterAllHadAnsweredIsNotDoneAgain) {
  for (uint32_t stage : {0u, 1u, 2u}) ledger_.OnAdded(0, kFirst, StageId{stage}, At(stage));
  EXPECT_THAT(Words(ledger_.Resolve(Answers(3).Dead(At(1, 1)))), IsEmpty());
  Ledger half(3, 1);
  half.OnSent(0, kFirst, At(0));
  half.OnAdded(0, kFirst, StageId{2}, At(2));
  EXPECT_THAT(Words(half.Resolve(Answers(3).Dead(At(1, 1)))), IsEmpty());
}

// --- a second death --------------------------------------------------------------------

class SplicedLedger : public LedgerOfThree {
 protected:
  // Stage 1 died after it had passed on; At(0) was told to send it to another as kSecond.
  SplicedLedger() {
    const auto repair =
        ledger_.Resolve(Answers(3).Dead(At(1)).Open(At(0), At(1)).Open(At(2), std::nullopt));
    ledger_.OnSpliced(repair.splices.at(0), kSecond);
  }
  static Answers Mended(Answers answers) {
    answers.Dead(At(1)).Open(At(0), At(1, 1));
    answers.last().downstream_attempt = kSecond;
    return answers;
  }
};

TEST_F(SplicedLedger, SpliceThatWasNotBegunIsPlannedAgainAndNotCountedAgain) {
  const auto repair = ledger_.Resolve(
      Answers(3).Dead(At(1)).Dead(At(0, 1)).Open(At(0), At(1)).Open(At(2), std::nullopt));
  EXPECT_THAT(Words(repair), ElementsAre("[1, 2) from 1.10 until 1.30"));
  EXPECT_EQ(repair.lost_pairs, 0u);
}

TEST_F(SplicedLedger, SpliceOnItsWayIsLeftAlone) {
  const auto repair = ledger_.Resolve(Mended(Answers(3).Dead(At(2, 1)).Open(At(2), std::nullopt)));
  EXPECT_THAT(Words(repair), IsEmpty());
  EXPECT_FALSE(repair.ask_again);
}

TEST_F(SplicedLedger, SplicedReplicaDiesTooAndIsCountedAgain) {
  const auto repair = ledger_.Resolve(Mended(Answers(3).Dead(At(1, 1)).Done(At(2), std::nullopt)));
  EXPECT_THAT(Words(repair), ElementsAre("[1, 2) from 1.10 until 1.30"));
  EXPECT_EQ(repair.lost_pairs, 1u);
}

TEST_F(SplicedLedger, HolderBelowTheSpliceDiesBeforeItsGradientIsClaimed) {
  Answers answers = Mended(Answers(3).Dead(At(2)));
  const auto early = ledger_.Resolve(answers);
  EXPECT_THAT(Words(early), IsEmpty()) << "the claim is still to be refused";
  EXPECT_FALSE(early.ask_again);
  answers.Open(At(1, 1), At(2), kSecond);
  answers.last().claims = true;
  answers.last().downstream_attempt = kFirst;
  const auto repair = ledger_.Resolve(answers);
  EXPECT_THAT(Words(repair), ElementsAre("[2, 3) from 1.21"));
  EXPECT_EQ(repair.lost_pairs, 1u);
}

TEST_F(SplicedLedger, RefusedClaimIsMendedFromTheOutput) {
  Answers answers = Mended(Answers(3).Done(At(2), std::nullopt));
  answers.last();
  Answers refused = Mended(Answers(3));
  refused.Open(At(1, 1), At(2), kSecond);
  refused.last().claims = true;
  refused.last().state = HeldState::kUnclaimed;
  refused.last().downstream_attempt = kFirst;
  refused.Done(At(2), std::nullopt);
  refused.last().gradient_kept = false;
  EXPECT_THAT(Words(ledger_.Resolve(refused)), ElementsAre("[2, 3) from 1.21 adding at"));
}

// --- what a seal shows -----------------------------------------------------------------

std::vector<SegmentEntry> Entries(AttemptId attempt) {
  SegmentEntry entry;
  entry.attempt = attempt;
  return {entry};
}

Answers AllDone() {
  return Answers(3).Done(At(0), At(1)).Done(At(1), At(2)).Done(At(2), std::nullopt);
}

TEST_F(LedgerOfThree, VoidedAdditionIsLostForGoodAndComputedAgainFromTheLogs) {
  for (uint32_t stage : {0u, 1u, 2u}) ledger_.OnAdded(0, kFirst, StageId{stage}, At(stage));
  ledger_.Void(StageId{1}, Entries(kFirst));
  EXPECT_FALSE(ledger_.complete());
  ledger_.OnAdded(0, kFirst, StageId{1}, At(1));  // a notice repeated
  EXPECT_THAT(ledger_.MissingStages(), ElementsAre(Pair(0, Stages({1}))));
  EXPECT_THAT(Words(ledger_.Resolve(AllDone())), ElementsAre("[1, 2) from 1.10 until 1.30"));
}

TEST_F(LedgerOfThree, VoidingOneOfTwoAdditionsKeepsTheOther) {
  for (uint32_t stage : {0u, 1u, 2u}) ledger_.OnAdded(0, kFirst, StageId{stage}, At(stage));
  Ledger::Splice splice;
  splice.begin = 0;
  splice.end = 2;
  splice.add_at = Stages({1});
  ledger_.OnSent(0, kSecond, At(0), &splice);
  ledger_.OnAdded(0, kSecond, StageId{1}, At(1));
  ledger_.Void(StageId{1}, Entries(kSecond));
  EXPECT_TRUE(ledger_.complete());
  ledger_.Void(StageId{1}, Entries(kFirst));
  EXPECT_FALSE(ledger_.complete());
}

TEST_F(LedgerOfThree, WhatASealedListLacksIsComputedAgain) {
  for (uint32_t stage : {0u, 1u, 2u}) ledger_.OnAdded(0, kFirst, StageId{stage}, At(stage));
  ledger_.Lose(StageId{2}, 0);
  EXPECT_THAT(ledger_.MissingStages(), ElementsAre(Pair(0, Stages({2}))));
  EXPECT_THAT(Words(ledger_.Resolve(AllDone().Dead(At(2, 1)))), ElementsAre("[2, 3) from 1.20"));
}

// --- slow work -------------------------------------------------------------------------

Ledger::Suspicion Overdue(std::set<Incarnation> stuck,
                          std::map<Incarnation, uint32_t> silent = {}) {
  Ledger::Suspicion suspicion;
  suspicion.overdue = {0};
  suspicion.stuck = std::move(stuck);
  suspicion.silent = std::move(silent);
  return suspicion;
}

TEST_F(LedgerOfThree, SlowHolderIsSplicedAroundContestedAndMayGiveUp) {
  const auto repair = ledger_.ResolveSlow(Answers(3).Open(At(0), At(1)).Open(At(1), std::nullopt),
                                          Overdue({At(1)}));
  EXPECT_THAT(Words(repair), ElementsAre("contested [1, 3) from 1.10"));
  EXPECT_THAT(repair.cancels, IsEmpty());
  ASSERT_EQ(repair.give_up.count(0), 1u);
  EXPECT_EQ(repair.give_up.at(0)[0].holder, At(1));
}

TEST_F(LedgerOfThree, SilentHolderIsSplicedAroundContested) {
  const auto repair =
      ledger_.ResolveSlow(Answers(3).Dead(At(1)).Open(At(0), At(1)).Open(At(2), std::nullopt),
                          Overdue({}, {{At(1), 1}}));
  EXPECT_THAT(Words(repair), ElementsAre("contested [1, 2) from 1.10 until 1.30"));
}

TEST_F(LedgerOfThree, ContestedStagesStayContestedWhenSomeoneDies) {
  const auto slow = ledger_.ResolveSlow(Answers(3).Open(At(0), At(1)).Open(At(1), std::nullopt),
                                        Overdue({At(1)}));
  ledger_.OnSpliced(slow.splices[0], kSecond);
  Answers answers = Answers(3).Dead(At(2)).Open(At(0), At(1, 1));
  answers.last().downstream_attempt = kSecond;
  answers.Open(At(1), std::nullopt).Open(At(1, 1), At(2), kSecond);
  EXPECT_THAT(Words(ledger_.Resolve(answers)), ElementsAre("contested [2, 3) from 1.21"));
}

TEST_F(LedgerOfThree, StagesAreContestedNoLongerThanTheSlowOneMayLive) {
  const auto slow = ledger_.ResolveSlow(Answers(3).Open(At(0), At(1)).Open(At(1), std::nullopt),
                                        Overdue({At(1)}));
  ledger_.OnSpliced(slow.splices[0], kSecond);
  Answers answers = Answers(3).Dead(At(1)).Dead(At(1, 1)).Open(At(0), At(1, 1));
  answers.last().downstream_attempt = kSecond;
  EXPECT_THAT(Words(ledger_.Resolve(answers)), ElementsAre("[1, 3) from 1.10"));
}

TEST_F(LedgerOfThree, CopyThatNobodyCouldTakeIsContestedNoMoreWhenTheSlowOneIsGone) {
  const auto slow = ledger_.ResolveSlow(Answers(3).Open(At(0), At(1)).Open(At(1), std::nullopt),
                                        Overdue({At(1)}));
  ledger_.OnSpliced(slow.splices[0], kSecond);
  Answers answers = Answers(3).Open(At(0), std::nullopt);
  answers.last().downstream_attempt = kSecond;
  answers.last().output_kept = true;
  EXPECT_THAT(Words(ledger_.Resolve(answers)), IsEmpty());
  EXPECT_THAT(Words(ledger_.Resolve(answers.Dead(At(1)))), ElementsAre("[1, 3) from 1.10"));
}

TEST_F(LedgerOfThree, OutputThatWaitsForAReceiverIsNotSentByOthersToo) {
  // Stages 0 and 1 are done; stage 1 sends to the last one again, as soon as there is somebody.
  Answers answers = Answers(3).Done(At(0), At(1)).Done(At(1), std::nullopt);
  answers.last().output_kept = true;
  EXPECT_THAT(Words(ledger_.ResolveSlow(answers, Overdue({}))), IsEmpty());
}

TEST_F(LedgerOfThree, OutputOfDoneWorkThatDoesNotArriveGoesToAnotherContested) {
  const Answers answers = Answers(3).Done(At(0), At(1)).Done(At(1), At(2));
  EXPECT_THAT(Words(ledger_.ResolveSlow(answers, Overdue({}))),
              ElementsAre("contested [2, 3) from 1.20"));
}

TEST_F(LedgerOfThree, WhoIsStillAliveAfterItWasReplacedIsNamedAgain) {
  const Answers answers = Answers(3).Open(At(0), At(1));  // it does not arrive there
  const auto slow = ledger_.ResolveSlow(answers, Overdue({}));
  ledger_.OnSpliced(slow.splices[0], kSecond);
  Answers unsent = Answers(3).Open(At(0), std::nullopt);
  unsent.last().downstream_attempt = kSecond;
  unsent.last().output_kept = true;
  EXPECT_THAT(ledger_.ResolveSlow(unsent, Overdue({})).rivals, ElementsAre(At(1)));
}

TEST_F(LedgerOfThree, ResendThatWasLostIsDoneUncontestedForTheDeadAddNothing) {
  Answers answers = Answers(3).Dead(At(1)).Open(At(0), At(1)).Done(At(2), std::nullopt);
  ledger_.OnSpliced(ledger_.Resolve(answers).splices.at(0), kSecond);
  EXPECT_THAT(Words(ledger_.ResolveSlow(answers, Overdue({}))),
              ElementsAre("[1, 2) from 1.10 until 1.30"));
}

TEST_F(LedgerOfThree, BusyHolderIsWaitedFor) {
  const auto repair =
      ledger_.ResolveSlow(Answers(3).Open(At(0), At(1)).Open(At(1), std::nullopt), Overdue({}));
  EXPECT_THAT(Words(repair), IsEmpty());
}

TEST_F(LedgerOfThree, SlowHolderThatIsTheLastOfItsStageIsWaitedFor) {
  const auto repair = ledger_.ResolveSlow(
      Answers(3).Dead(At(1, 1)).Open(At(0), At(1)).Open(At(1), std::nullopt), Overdue({At(1)}));
  EXPECT_THAT(Words(repair), IsEmpty());
  EXPECT_THAT(repair.hopeless, ElementsAre(0));
}

TEST_F(LedgerOfThree, WorkThatDoesNotArriveGoesToAnotherContested) {
  EXPECT_THAT(Words(ledger_.ResolveSlow(Answers(3).Open(At(0), At(1)), Overdue({}))),
              ElementsAre("contested [1, 3) from 1.10"));
}

TEST_F(LedgerOfThree, FirstSendThatDoesNotArriveIsSentToAnotherContested) {
  const auto repair = ledger_.ResolveSlow(Answers(3), Overdue({}));
  EXPECT_THAT(Words(repair), ElementsAre("contested [0, 3) from the trainer"));
  EXPECT_TRUE(repair.splices[0].avoid_first);
}

TEST_F(LedgerOfThree, GradientThatDoesNotArriveIsClaimedThenComputedByAnother) {
  const Answers answers =
      Answers(3).Open(At(0), At(1)).Done(At(1), At(2)).Done(At(2), std::nullopt);
  EXPECT_THAT(Words(ledger_.ResolveSlow(answers, Overdue({}))),
              ElementsAre("[1, 1) from 1.10 until 1.20"));
  Ledger::Suspicion again = Overdue({});
  again.again = {0};
  EXPECT_THAT(Words(ledger_.ResolveSlow(answers, again)),
              ElementsAre("contested [1, 2) from 1.10 until 1.30 adding at"));
}

TEST_F(LedgerOfThree, DoneWorkWhoseNoticeIsLateIsNotDoneAgain) {
  EXPECT_THAT(Words(ledger_.ResolveSlow(AllDone(), Overdue({}))), IsEmpty());
  EXPECT_TRUE(ledger_.complete());
}

// --- several ---------------------------------------------------------------------------

TEST(Ledger, OtherMicrobatchesAreUntouchedByALoss) {
  Ledger ledger(2, 3);
  ledger.OnSent(0, kFirst, At(0));
  ledger.OnSent(1, kSecond, At(0, 1));
  for (uint32_t stage : {0u, 1u}) ledger.OnAdded(1, kSecond, StageId{stage}, At(stage, 1));
  Ledger::FenceAnswers answers = Answers(2).Dead(At(0));
  for (uint32_t stage : {0u, 1u}) {
    HeldWork held;
    held.work = Work(kSecond, 1);
    held.state = HeldState::kDone;
    if (stage == 0) held.downstream = At(1, 1);
    held.downstream_attempt = kSecond;
    answers[At(stage, 1)].held.push_back(held);
  }
  EXPECT_THAT(Words(ledger.Resolve(answers)), ElementsAre("[0, 2) from the trainer"));
  EXPECT_TRUE(ledger.complete(1));
  EXPECT_FALSE(ledger.was_sent(2));
}

TEST(Ledger, FiveStagesWithTwoGapsAreMendedAtBoth) {
  Ledger ledger(5, 1);
  ledger.OnSent(0, kFirst, At(0));
  const auto repair = ledger.Resolve(Answers(5)
                                         .Dead(At(1))
                                         .Dead(At(3))
                                         .Open(At(0), At(1))
                                         .Open(At(2), At(3))
                                         .Open(At(4), std::nullopt));
  EXPECT_THAT(Words(repair),
              ElementsAre("[1, 2) from 1.10 until 1.30", "[3, 4) from 1.30 until 1.50"));
  EXPECT_EQ(repair.lost_pairs, 2u);
}

}  // namespace
}  // namespace starling
