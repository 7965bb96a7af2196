#include "runtime/trainer/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace starling {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr Epoch kEpoch{1};
constexpr AttemptId kFirst{{kEpoch, 0}, 1};
constexpr AttemptId kSecond{{kEpoch, 0}, 2};

// Replica `which` of `stage`: 10, 11 serve stage 0; 20, 21 stage 1; ...
Incarnation At(uint32_t stage, uint32_t which = 0) { return {kEpoch, 10 * (stage + 1) + which}; }
uint32_t StageOf(Incarnation replica) { return replica.counter / 10 - 1; }

WorkId Work(AttemptId attempt, uint32_t index = 0) {
  return {{Step{1}, WorkKind::kTrain, index}, attempt};
}

// What the live replicas of a swarm answer to a fence.
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
  Answers& Added(Incarnation at, std::optional<Incarnation> to, AttemptId attempt = kFirst) {
    return Held(HeldState::kAdded, at, to, attempt);
  }
  operator const Ledger::FenceAnswers&() const { return answers_; }  // NOLINT: on purpose

 private:
  Answers& Held(HeldState state, Incarnation at, std::optional<Incarnation> to, AttemptId attempt) {
    HeldWork held;
    held.work = Work(attempt);
    held.state = state;
    held.upstream = StageOf(at) == 0 ? Incarnation{kEpoch, 0} : At(StageOf(at) - 1);
    held.downstream = to;
    answers_.at(at).held.push_back(held);
    return *this;
  }
  Ledger::FenceAnswers answers_;
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

// Three stages, one microbatch, sent to At(0).
class LedgerOfThree : public testing::Test {
 protected:
  LedgerOfThree() { ledger_.OnSent(0, kFirst, {}, At(0)); }
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

TEST_F(LedgerOfThree, DeadFirstHolderThatNeverAcceptedLosesEveryStage) {
  const auto repair = ledger_.Resolve(Answers(3).Dead(At(0)));
  EXPECT_THAT(repair.replays, ElementsAre(Pair(0, Stages({0, 1, 2}))));
  EXPECT_THAT(repair.cancels, IsEmpty());
  EXPECT_EQ(repair.added_and_lost, 0u);
}

TEST_F(LedgerOfThree, DeadMiddleThatHadPassedOnLosesItselfAndWhatWaitsForIt) {
  const auto repair =
      ledger_.Resolve(Answers(3).Dead(At(1)).Open(At(0), At(1)).Open(At(2), std::nullopt));
  EXPECT_THAT(repair.replays, ElementsAre(Pair(0, Stages({0, 1}))));
  EXPECT_THAT(Told(repair), ElementsAre(At(0)));
  EXPECT_EQ(repair.cancels[0].work, Work(kFirst));
}

TEST_F(LedgerOfThree, DeadMiddleThatHadNotPassedOnLosesEveryStage) {
  const auto repair = ledger_.Resolve(Answers(3).Dead(At(1)).Open(At(0), At(1)));
  EXPECT_THAT(repair.replays, ElementsAre(Pair(0, Stages({0, 1, 2}))));
  EXPECT_THAT(Told(repair), ElementsAre(At(0)));
}

TEST_F(LedgerOfThree, DeadMiddleWhoseGradientHadPassedUpLosesItselfOnly) {
  ledger_.OnAdded(0, kFirst, StageId{1}, At(1));
  ledger_.OnAdded(0, kFirst, StageId{2}, At(2));
  const auto repair =
      ledger_.Resolve(Answers(3).Dead(At(1)).Added(At(0), At(1)).Added(At(2), std::nullopt));
  EXPECT_THAT(repair.replays, ElementsAre(Pair(0, Stages({1}))));
  EXPECT_THAT(repair.cancels, IsEmpty());
  EXPECT_EQ(repair.added_and_lost, 1u);
  EXPECT_THAT(ledger_.MissingStages(), ElementsAre(Pair(0, Stages({0, 1}))));
}

TEST_F(LedgerOfThree, DeadLastStageLosesAllThatWaitForIt) {
  const auto repair = ledger_.Resolve(Answers(3).Dead(At(2)).Open(At(0), At(1)).Open(At(1), At(2)));
  EXPECT_THAT(repair.replays, ElementsAre(Pair(0, Stages({0, 1, 2}))));
  EXPECT_THAT(Told(repair), ElementsAre(At(0), At(1)));
}

TEST_F(LedgerOfThree, LiveChainsAreLeftAlone) {
  for (const Answers& answers :
       {Answers(3), Answers(3).Open(At(0), std::nullopt), Answers(3).Open(At(0), At(1)),
        Answers(3).Open(At(0), At(1)).Open(At(1), At(2)).Added(At(2), std::nullopt)}) {
    Answers other_died = answers;
    const auto repair = ledger_.Resolve(other_died.Dead(At(1, 1)));
    EXPECT_THAT(repair.replays, IsEmpty());
    EXPECT_THAT(repair.cancels, IsEmpty());
  }
}

TEST_F(LedgerOfThree, NoticesOfTheLiveSurviveAFence) {
  ledger_.OnAdded(0, kFirst, StageId{2}, At(2));
  ledger_.Resolve(
      Answers(3).Dead(At(1, 1)).Open(At(0), At(1)).Open(At(1), At(2)).Added(At(2), std::nullopt));
  EXPECT_THAT(ledger_.MissingStages(), ElementsAre(Pair(0, Stages({0, 1}))));
}

TEST_F(LedgerOfThree, TwoDeadNeighboursLeaveWhatTheyHadPassedOn) {
  const auto repair =
      ledger_.Resolve(Answers(3).Dead(At(0)).Dead(At(1)).Added(At(2), std::nullopt));
  EXPECT_THAT(repair.replays, ElementsAre(Pair(0, Stages({0, 1}))));
  EXPECT_THAT(repair.cancels, IsEmpty());
}

TEST_F(LedgerOfThree, RefusedAttemptIsAsIfNeverSent) {
  ledger_.OnRefused(0, kFirst);
  EXPECT_FALSE(ledger_.was_sent(0));
  const auto repair = ledger_.Resolve(Answers(3).Dead(At(0)));
  EXPECT_THAT(repair.replays, IsEmpty()) << "it is still to be sent for the first time";
  ledger_.OnAdded(0, kFirst, StageId{2}, At(2));
  EXPECT_THAT(ledger_.MissingStages(), ElementsAre(Pair(0, Stages({0, 1, 2}))));
}

TEST_F(LedgerOfThree, SecondFenceAfterARepairKnowsWhatSurvivedTheFirst) {
  ledger_.Resolve(Answers(3).Dead(At(1)).Open(At(0), At(1)).Open(At(2), std::nullopt));
  ledger_.OnSent(0, kSecond, Stages({0, 1}), At(0, 1));
  const Answers alive = Answers(3)
                            .Dead(At(1))
                            .Added(At(2), std::nullopt)
                            .Open(At(0, 1), At(1, 1), kSecond)
                            .Open(At(1, 1), At(2, 1), kSecond);
  Answers one_dead = alive;
  EXPECT_THAT(ledger_.Resolve(one_dead.Dead(At(0))).replays, IsEmpty());
  Answers two_dead = alive;
  const auto repair = ledger_.Resolve(two_dead.Dead(At(0)).Dead(At(2)));
  EXPECT_THAT(repair.replays, ElementsAre(Pair(0, Stages({2}))));
  EXPECT_THAT(repair.cancels, IsEmpty());
}

TEST_F(LedgerOfThree, MaskedReplayThatIsLostAgainIsReplayedForItsOwnStages) {
  ledger_.Resolve(Answers(3).Dead(At(1)).Added(At(0), At(1)).Added(At(2), std::nullopt));
  ledger_.OnSent(0, kSecond, Stages({1}), At(0));
  // Stage 0 is done with it: no gradient of it is wanted there.
  const auto repair = ledger_.Resolve(Answers(3)
                                          .Dead(At(1))
                                          .Dead(At(1, 1))
                                          .Added(At(0), At(1))
                                          .Added(At(2), std::nullopt)
                                          .Added(At(0), At(1, 1), kSecond)
                                          .Open(At(2, 1), std::nullopt, kSecond));
  EXPECT_THAT(repair.replays, ElementsAre(Pair(0, Stages({1}))));
  EXPECT_THAT(repair.cancels, IsEmpty());
}

TEST_F(LedgerOfThree, CancelledStretchIsNotTakenForOneOnItsWay) {
  // Stage 0 only passes it on; stage 1 waits in vain for a dead stage 2.
  Ledger ledger(3, 1);
  ledger.OnSent(0, kFirst, Stages({1, 2}), At(0));
  const auto first = ledger.Resolve(Answers(3).Dead(At(2)).Added(At(0), At(1)).Open(At(1), At(2)));
  EXPECT_THAT(Told(first), ElementsAre(At(1)));
  const auto second = ledger.Resolve(Answers(3).Dead(At(2)).Added(At(0), At(1)));
  EXPECT_THAT(second.replays, ElementsAre(Pair(0, Stages({0, 1, 2}))));
}

TEST_F(LedgerOfThree, HolderThatAnsweredBeforeItPassedOnIsCancelledIfALaterOneWaitsInVain) {
  // Stage 0 had not sent it when it answered; stage 1 took it and sent it to the dead stage 2
  // before it answered.
  const auto repair =
      ledger_.Resolve(Answers(3).Dead(At(2)).Open(At(0), std::nullopt).Open(At(1), At(2)));
  EXPECT_THAT(repair.replays, ElementsAre(Pair(0, Stages({0, 1, 2}))));
  EXPECT_THAT(Told(repair), testing::IsSupersetOf({At(0), At(1)}));
}

std::vector<SegmentEntry> Entries(AttemptId attempt) {
  SegmentEntry entry;
  entry.attempt = attempt;
  return {entry};
}

TEST_F(LedgerOfThree, VoidedAdditionIsLostForGood) {
  for (uint32_t stage : {0u, 1u, 2u}) ledger_.OnAdded(0, kFirst, StageId{stage}, At(stage));
  ledger_.Void(StageId{1}, Entries(kFirst));
  EXPECT_FALSE(ledger_.complete());
  ledger_.OnAdded(0, kFirst, StageId{1}, At(1));  // a notice repeated
  EXPECT_THAT(ledger_.MissingStages(), ElementsAre(Pair(0, Stages({1}))));
  const auto repair = ledger_.Resolve(
      Answers(3).Added(At(0), At(1)).Added(At(1), At(2)).Added(At(2), std::nullopt));
  EXPECT_THAT(repair.replays, ElementsAre(Pair(0, Stages({1}))));
}

TEST_F(LedgerOfThree, VoidingOneOfTwoAdditionsKeepsTheOther) {
  for (uint32_t stage : {0u, 1u, 2u}) ledger_.OnAdded(0, kFirst, StageId{stage}, At(stage));
  ledger_.OnSent(0, kSecond, Stages({1}), At(0));
  ledger_.OnAdded(0, kSecond, StageId{1}, At(1));
  ledger_.Void(StageId{1}, Entries(kSecond));
  EXPECT_TRUE(ledger_.complete());
  ledger_.Void(StageId{1}, Entries(kFirst));
  EXPECT_FALSE(ledger_.complete());
}

TEST_F(LedgerOfThree, WhatASealedListLacksIsReplayedAfterAFenceToo) {
  for (uint32_t stage : {0u, 1u, 2u}) ledger_.OnAdded(0, kFirst, StageId{stage}, At(stage));
  ledger_.Lose(StageId{2}, 0);
  EXPECT_THAT(ledger_.MissingStages(), ElementsAre(Pair(0, Stages({2}))));
  const auto repair = ledger_.Resolve(
      Answers(3).Dead(At(2, 1)).Added(At(0), At(1)).Added(At(1), At(2)).Added(At(2), std::nullopt));
  EXPECT_THAT(repair.replays, ElementsAre(Pair(0, Stages({2}))));
}

TEST(Ledger, OtherMicrobatchesAreUntouchedByALoss) {
  Ledger ledger(2, 3);
  ledger.OnSent(0, kFirst, {}, At(0));
  ledger.OnSent(1, kSecond, {}, At(0, 1));
  for (uint32_t stage : {0u, 1u}) ledger.OnAdded(1, kSecond, StageId{stage}, At(stage, 1));
  Ledger::FenceAnswers answers = Answers(2).Dead(At(0));
  for (uint32_t stage : {0u, 1u}) {
    HeldWork held;
    held.work = Work(kSecond, 1);
    held.state = HeldState::kAdded;
    if (stage == 0) held.downstream = At(1, 1);
    answers[At(stage, 1)].held.push_back(held);
  }
  const auto repair = ledger.Resolve(answers);
  EXPECT_THAT(repair.replays, ElementsAre(Pair(0, Stages({0, 1}))));
  EXPECT_TRUE(ledger.complete(1));
  EXPECT_FALSE(ledger.was_sent(2));
}

TEST(Ledger, FiveStagesWithTwoGapsKeepThreeStretches) {
  Ledger ledger(5, 1);
  ledger.OnSent(0, kFirst, {}, At(0));
  const auto repair = ledger.Resolve(Answers(5)
                                         .Dead(At(1))
                                         .Dead(At(3))
                                         .Open(At(0), At(1))
                                         .Open(At(2), At(3))
                                         .Open(At(4), std::nullopt));
  EXPECT_THAT(repair.replays, ElementsAre(Pair(0, Stages({0, 1, 2, 3}))));
  EXPECT_THAT(Told(repair), UnorderedElementsAre(At(0), At(2)));
}

}  // namespace
}  // namespace starling
