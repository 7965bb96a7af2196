#include "runtime/trainer/step_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "runtime/base/lane.h"
#include "tests/testing/fake_env.h"
#include "tests/testing/fake_transport.h"

namespace starling {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr Epoch kEpoch{1};
constexpr Step kStep{4};
constexpr Incarnation kA{kEpoch, 1};   // stage 0
constexpr Incarnation kA2{kEpoch, 2};  // stage 0
constexpr Incarnation kB{kEpoch, 3};   // stage 1
constexpr Incarnation kB2{kEpoch, 4};  // stage 1, where a test lets it join

class FakeFeed : public DataFeed {
 public:
  absl::Status second;  // of microbatch 1
  MicrobatchData Train(Step, uint32_t index) const override {
    MicrobatchData data = Data(index);
    if (index == 1) data.status = second;
    return data;
  }
  MicrobatchData Evaluate(uint32_t index) const override { return Data(100 + index); }
  uint32_t train_microbatches() const override { return 2; }
  uint32_t evaluate_microbatches() const override { return 1; }

 private:
  static MicrobatchData Data(uint32_t first) {
    const int32_t token = static_cast<int32_t>(first);
    MicrobatchData data;
    data.tokens = Blob::CopyOf(&token, DType::kI32, {1, 1});
    data.targets = data.tokens;
    data.first_sequence = first;
    return data;
  }
};

std::string NameOf(Incarnation replica) { return ToString(replica); }

// Two stages: two replicas of the first, one of the second. The test plays all of them.
class StepRunTest : public testing::Test {
 protected:
  struct Request {
    Incarnation to;
    Message message;
  };

  StepRunTest() {
    Join(kA, 0);
    Join(kA2, 0);
    Join(kB, 1);
    Wire();
  }
  void Join(Incarnation incarnation, uint32_t stage) {
    Replica replica;
    replica.member = {incarnation, PeerId{incarnation.counter}, StageId{stage},
                      TestEndpoint(NameOf(incarnation))};
    swarm_.Add(replica);
  }
  void Wire() { wiring_.SetCandidates(swarm_.TakersOf(StageId{0})); }
  void Start(uint32_t microbatches = 2, bool evaluate = false, uint32_t window = 8,
             StepRun::Options options = {}) {
    options.step = kStep;
    options.microbatches = microbatches;
    options.evaluate = evaluate;
    options.window = window;
    options.groups = groups_;
    run_ = std::make_unique<StepRun>(
        options, &env_, &swarm_, &feed_, &wiring_,
        [this](const Event& event) { events_.push_back(event.name); }, [this] { return may_seal_; },
        [this](const std::map<Incarnation, Hash128>& states) {
          sealed_states_ = states;
          return states_are_right_;
        },
        [this](Incarnation replica, const std::string& reason) {
          fenced_.emplace_back(replica, reason);
          swarm_.Remove(replica);
          run_->OnFenced({replica});
        },
        [this](absl::StatusOr<StepOutcome> outcome) { outcome_ = std::move(outcome); });
    run_->Start();
  }
  // The requests of one kind that were sent since the last call; others are dropped.
  template <typename Body>
  std::vector<Request> Take() {
    std::vector<Request> requests;
    for (const SentMessage& sent : transport_.TakeMessages()) {
      if (!std::holds_alternative<Body>(sent.message.body)) continue;
      for (Incarnation replica : {kA, kA2, kB, kB2}) {
        if (sent.to == TestEndpoint(NameOf(replica))) requests.push_back({replica, sent.message});
      }
    }
    return requests;
  }
  void Answer(const Request& request, MessageBody body) {
    Message reply;
    reply.sender = request.to;
    reply.reply_to = request.message.request;
    reply.body = std::move(body);
    swarm_.outbox().OnReply(reply);
  }
  static const Forward& ForwardOf(const Request& request) {
    return std::get<Forward>(request.message.body);
  }
  void Accept(const Request& request) { Answer(request, Ack{}); }
  void Added(Incarnation by, const Request& forward) {
    run_->OnNotice(by, {ForwardOf(forward).work, Progress::kAdded, 0, 0});
  }
  // Sends and adds everything: microbatch by microbatch at the replica that got it, then at kB.
  std::vector<Request> RunAll() {
    std::vector<Request> forwards = Take<Forward>();
    for (const Request& forward : forwards) {
      Accept(forward);
      Added(kB, forward);
      Added(forward.to, forward);
    }
    return forwards;
  }
  static SegmentSummary Segment(uint32_t id, const std::vector<Request>& forwards) {
    SegmentSummary segment;
    segment.id = SegmentId{id};
    for (const Request& forward : forwards) {
      const WorkId& work = ForwardOf(forward).work;
      segment.entries.push_back({work.id.index, work.attempt, 1.5 + work.id.index, 10});
    }
    return segment;
  }
  using Lists = std::map<Incarnation, std::vector<SegmentSummary>>;
  // Answers the seals that were sent.
  void Seal(Lists lists) {
    const std::vector<Request> seals = Take<starling::Seal>();
    ASSERT_EQ(seals.size(), swarm_.replicas().size());
    for (const Request& seal : seals) {
      Sealed sealed;
      sealed.step = kStep;
      sealed.number = std::get<starling::Seal>(seal.message.body).number;
      sealed.segments = lists[seal.to];
      Answer(seal, sealed);
    }
  }
  // Each stage's lists where both microbatches were added once.
  static Lists ListsOf(const std::vector<Request>& forwards) {
    Lists lists;
    for (const Request& forward : forwards) lists[forward.to] = {};
    for (auto& [replica, segments] : lists) {
      std::vector<Request> own;
      for (const Request& forward : forwards) {
        if (forward.to == replica) own.push_back(forward);
      }
      segments = {Segment(0, own)};
    }
    lists[kB] = {Segment(0, forwards)};
    return lists;
  }
  using Works = std::map<Incarnation, std::vector<HeldWork>>;
  // Answers the fences that were sent, but for those of `silent`.
  void Promise(Works works, const std::set<Incarnation>& silent = {}) {
    for (const Request& fence : Take<Fence>()) {
      if (silent.count(fence.to) > 0) continue;
      FenceAck ack;
      ack.number = std::get<Fence>(fence.message.body).number;
      ack.held = works[fence.to];
      Answer(fence, ack);
    }
  }
  // As a replica reports it, everything kept.
  static HeldWork Held(const Request& forward, HeldState state,
                       std::optional<Incarnation> downstream = std::nullopt) {
    HeldWork held;
    held.work = ForwardOf(forward).work;
    held.state = state;
    held.upstream = {kEpoch, 0};
    held.downstream = downstream;
    held.downstream_attempt = held.work.attempt;
    held.output_kept = downstream.has_value();
    held.gradient_kept = true;
    return held;
  }
  Reduced Sum(const Request& reduce) const {
    const RoundPlan& plan = std::get<Reduce>(reduce.message.body).plan;
    Reduced reduced;
    reduced.round = plan.id;
    reduced.square_norm = 0.25;
    reduced.result_hash = Hash128{plan.id.group, 1};
    reduced.lane = plan.expected_lane;
    return reduced;
  }
  absl::StatusCode Code() const {
    return outcome_ ? outcome_->status().code() : absl::StatusCode::kUnknown;
  }

  FakeEnv env_;
  FakeTransport transport_{TestEndpoint("trainer")};
  Swarm swarm_{&env_, &transport_, RunId{9}, kEpoch, 2};
  FakeFeed feed_;
  Wiring wiring_{Wiring::Options()};
  std::vector<std::string> events_;
  std::vector<ParameterGroup> groups_ = {{{StageId{0}}, 8}, {{StageId{1}}, 8}};
  bool may_seal_ = true;
  bool states_are_right_ = true;
  std::map<Incarnation, Hash128> sealed_states_;
  std::vector<std::pair<Incarnation, std::string>> fenced_;
  std::optional<absl::StatusOr<StepOutcome>> outcome_;
  std::unique_ptr<StepRun> run_;
};

TEST_F(StepRunTest, AStepAheadSendsWhenThereIsRoomAndIsSealedWhenItIsPromoted) {
  bool room = false;
  StepRun::Options options;
  options.computed_on = Version{2};
  options.room = [&room] { return room; };
  Start(2, false, 8, options);
  EXPECT_THAT(Take<Forward>(), IsEmpty());
  room = true;
  run_->Poke();
  const std::vector<Request> forwards = RunAll();
  ASSERT_THAT(forwards, SizeIs(2));
  EXPECT_EQ(ForwardOf(forwards[0]).version, Version{2});
  EXPECT_EQ(run_->in_flight(), 0u);
  env_.Advance(absl::Minutes(1));
  EXPECT_THAT(Take<starling::Seal>(), IsEmpty());
  run_->Promote(/*evaluate=*/true);
  const std::vector<Request> evaluations = Take<Forward>();
  ASSERT_THAT(evaluations, SizeIs(1));
  EXPECT_EQ(ForwardOf(evaluations[0]).version, Version{3}) << "the one that was just decided";
  Accept(evaluations[0]);
  run_->OnNotice(kB, {ForwardOf(evaluations[0]).work, Progress::kEvaluated, 5.0, 2});
  Seal(ListsOf(forwards));
  for (const Request& reduce : Take<Reduce>()) Answer(reduce, Sum(reduce));
  ASSERT_TRUE(outcome_ && outcome_->ok());
  EXPECT_EQ((*outcome_)->computed_on, Version{2});
  EXPECT_EQ((*outcome_)->evaluation_loss, 2.5);
}

TEST_F(StepRunTest, AStepAheadReplaysWhatADeadReplicaHadAndJudgesNobodySlow) {
  StepRun::Options options;
  options.room = [] { return true; };
  Start(2, false, 8, options);
  const std::vector<Request> forwards = Take<Forward>();
  for (const Request& forward : forwards) Accept(forward);
  env_.Advance(absl::Minutes(5));
  EXPECT_THAT(Take<Fence>(), IsEmpty()) << "its work stands behind that of the step before";
  swarm_.Remove(kA);
  Wire();
  run_->OnFenced({kA});
  Promise({});
  std::vector<Request> again = Take<Forward>();
  ASSERT_FALSE(again.empty());
  for (const Request& replay : again) {
    EXPECT_EQ(replay.to, kA2);
    EXPECT_TRUE(ForwardOf(replay).replay);
  }
}

TEST_F(StepRunTest, WhoLeavesWhileAStepAheadIsFencedOwesItNoPromise) {
  Join(kB2, 1);
  StepRun::Options options;
  options.room = [] { return true; };
  Start(1, false, 8, options);
  const std::vector<Request> forwards = Take<Forward>();
  Accept(forwards[0]);
  swarm_.Remove(kB);
  run_->OnFenced({kB});
  const Incarnation leaver = forwards[0].to == kA ? kA2 : kA;
  Promise({}, {leaver});
  swarm_.Remove(leaver);
  run_->OnMembersChanged();
  Works works;
  works[forwards[0].to] = {Held(forwards[0], HeldState::kOpen, kB)};
  Promise(works);
  EXPECT_STREQ(run_->phase_name(), "running");
  EXPECT_THAT(Take<Resend>(), SizeIs(1));
}

TEST_F(StepRunTest, UndisturbedStepEndsInASum) {
  Start();
  const std::vector<Request> forwards = RunAll();
  ASSERT_THAT(forwards, SizeIs(2));
  EXPECT_EQ(ForwardOf(forwards[0]).version, Version{3});
  EXPECT_FALSE(ForwardOf(forwards[0]).contested);
  Seal(ListsOf(forwards));
  const std::vector<Request> reduces = Take<Reduce>();
  ASSERT_THAT(reduces, SizeIs(3));
  for (const Request& reduce : reduces) {
    const RoundPlan& plan = std::get<Reduce>(reduce.message.body).plan;
    EXPECT_EQ(plan.expected_lane, LaneTotal(kStep, StageId{plan.id.group}, 2));
    EXPECT_EQ(plan.members.size(), plan.id.group == 0 ? 2u : 1u);
    EXPECT_FALSE(outcome_.has_value());
    Answer(reduce, Sum(reduce));
  }
  ASSERT_TRUE(outcome_ && outcome_->ok());
  const StepOutcome& outcome = **outcome_;
  EXPECT_EQ(outcome.loss_sum, 4.0);
  EXPECT_EQ(outcome.tokens, 20);
  EXPECT_EQ(outcome.square_norm, 0.5);
  EXPECT_EQ(outcome.groups.size(), 2u);
  EXPECT_EQ(outcome.retries, 0u);
  EXPECT_EQ(outcome.replayed, 0u);
}

TEST_F(StepRunTest, TieIsSummedByTheReplicasOfAllItsStagesAndCountedOnce) {
  groups_.push_back({{StageId{0}, StageId{1}}, 24});
  Start();
  Seal(ListsOf(RunAll()));
  const std::vector<Request> reduces = Take<Reduce>();
  ASSERT_THAT(reduces, SizeIs(3 + 3));
  std::set<Incarnation> tied;
  for (const Request& reduce : reduces) {
    const RoundPlan& plan = std::get<Reduce>(reduce.message.body).plan;
    EXPECT_FALSE(outcome_.has_value());
    Answer(reduce, Sum(reduce));
    if (plan.id.group != 2) continue;
    tied.insert(reduce.to);
    ASSERT_THAT(plan.members, SizeIs(3));
    EXPECT_EQ(plan.members[2].incarnation, kB);
    for (const RoundMemberPlan& member : plan.members) EXPECT_THAT(member.segments, SizeIs(1));
    EXPECT_EQ(plan.parts.back().begin + plan.parts.back().count, 24);
    EXPECT_EQ(plan.expected_lane,
              LaneTotal(kStep, StageId{0}, 2) + LaneTotal(kStep, StageId{1}, 2));
  }
  EXPECT_THAT(tied, ElementsAre(kA, kA2, kB));
  ASSERT_TRUE(outcome_ && outcome_->ok());
  EXPECT_THAT((*outcome_)->groups, SizeIs(3));
  EXPECT_EQ((*outcome_)->square_norm, 0.75);
  EXPECT_EQ((*outcome_)->loss_sum, 4.0);
}

TEST_F(StepRunTest, StagesThatHoldDifferentResultsOfTheirTieAreDataLoss) {
  groups_.push_back({{StageId{0}, StageId{1}}, 24});
  Start();
  Seal(ListsOf(RunAll()));
  for (const Request& reduce : Take<Reduce>()) {
    Reduced reduced = Sum(reduce);
    if (reduce.to == kB && reduced.round.group == 2) reduced.result_hash.low ^= 1;
    Answer(reduce, reduced);
  }
  EXPECT_EQ(Code(), absl::StatusCode::kDataLoss);
}

TEST_F(StepRunTest, BusyAnswerIsSentAgainUncontestedUnderANewAttempt) {
  Start(1);
  const std::vector<Request> first = Take<Forward>();
  ASSERT_THAT(first, SizeIs(1));
  Answer(first[0], Ack{absl::StatusCode::kResourceExhausted, "busy"});
  env_.Advance(absl::Seconds(1));
  const std::vector<Request> second = Take<Forward>();
  ASSERT_THAT(second, SizeIs(1));
  EXPECT_NE(second[0].to, first[0].to) << "the busy one is left out for a while";
  EXPECT_FALSE(ForwardOf(second[0]).contested) << "a refusal gives the baton back";
  EXPECT_EQ(ForwardOf(second[0]).work.id, ForwardOf(first[0]).work.id);
  EXPECT_NE(ForwardOf(second[0]).work.attempt, ForwardOf(first[0]).work.attempt);
}

TEST_F(StepRunTest, WindowBoundsWhatIsInFlight) {
  Start(2, false, 1);
  const std::vector<Request> first = Take<Forward>();
  ASSERT_THAT(first, SizeIs(1));
  Accept(first[0]);
  Added(kB, first[0]);
  EXPECT_THAT(Take<Forward>(), IsEmpty());
  Added(first[0].to, first[0]);
  EXPECT_THAT(Take<Forward>(), SizeIs(1));
  EXPECT_EQ(run_->done_microbatches(), 1u);
}

TEST_F(StepRunTest, WrongLaneIsDataLoss) {
  Start();
  Seal(ListsOf(RunAll()));
  for (const Request& reduce : Take<Reduce>()) {
    Reduced reduced = Sum(reduce);
    if (reduce.to == kB) reduced.lane += LaneTerm(kStep, 0, StageId{1});
    Answer(reduce, reduced);
  }
  EXPECT_EQ(Code(), absl::StatusCode::kDataLoss);
}

TEST_F(StepRunTest, ReplicasWithDifferentResultsAreDataLoss) {
  Start();
  Seal(ListsOf(RunAll()));
  for (const Request& reduce : Take<Reduce>()) {
    Reduced reduced = Sum(reduce);
    if (reduce.to == kA2) reduced.result_hash.low ^= 1;
    Answer(reduce, reduced);
  }
  EXPECT_EQ(Code(), absl::StatusCode::kDataLoss);
}

TEST_F(StepRunTest, RoundWithWrongNumbersIsDataLoss) {
  Start();
  Seal(ListsOf(RunAll()));
  const std::vector<Request> reduces = Take<Reduce>();
  ASSERT_THAT(reduces, SizeIs(3));
  Reduced failed = Sum(reduces[0]);
  failed.code = absl::StatusCode::kDataLoss;
  Answer(reduces[0], failed);
  EXPECT_EQ(Code(), absl::StatusCode::kDataLoss);
}

TEST_F(StepRunTest, RoundThatCannotBeFollowedIsSealedAndTriedAgainAFewTimes) {
  Start();
  const auto lists = ListsOf(RunAll());
  for (int tries = 0; tries < 6; ++tries) {
    ASSERT_FALSE(outcome_.has_value()) << tries;
    Seal(lists);
    const std::vector<Request> reduces = Take<Reduce>();
    ASSERT_THAT(reduces, SizeIs(3));
    Reduced failed = Sum(reduces[0]);
    failed.code = absl::StatusCode::kAborted;
    Answer(reduces[0], failed);
  }
  EXPECT_EQ(Code(), absl::StatusCode::kDataLoss);
}

TEST_F(StepRunTest, WrongStateAtTheSealEndsTheStepBeforeAnyRound) {
  states_are_right_ = false;
  Start();
  Seal(ListsOf(RunAll()));
  EXPECT_THAT(Take<Reduce>(), SizeIs(0));
  EXPECT_THAT(sealed_states_, SizeIs(3));
  EXPECT_FALSE(outcome_.has_value());
}

TEST_F(StepRunTest, OverlappingSegmentsAreVoidedAndOnlyWhatIsMissingIsReplayed) {
  Start();
  const std::vector<Request> forwards = RunAll();
  Lists lists;
  lists[kA] = {Segment(0, {forwards[0]})};
  lists[kA2] = {Segment(0, forwards)};  // microbatch 0 twice
  lists[kA2][0].entries[0].attempt.counter = 99;
  lists[kB] = {Segment(0, forwards)};
  Seal(lists);
  EXPECT_THAT(events_, Contains("segment_voided"));
  // Everyone is asked who holds what.
  Works works;
  for (const Request& forward : forwards) {
    works[forward.to].push_back(Held(forward, HeldState::kDone, kB));
    works[kB].push_back(Held(forward, HeldState::kDone));
  }
  Promise(works);
  const std::vector<Request> replays = RunAll();
  ASSERT_THAT(replays, SizeIs(1));
  const Forward& replay = ForwardOf(replays[0]);
  EXPECT_EQ(replay.work.id.index, 1u);
  EXPECT_FALSE(replay.contested) << "the voided one does not count any more";
  EXPECT_THAT(replay.add_at, ElementsAre(StageId{0}));
  ASSERT_TRUE(replay.until.has_value());
  EXPECT_EQ(replay.until->holder, kB);
}

TEST_F(StepRunTest, DeathOfTheSecondStageIsMendedFromTheLogOnceAllHavePromised) {
  Join(kB2, 1);
  Start(1);
  const std::vector<Request> forwards = Take<Forward>();
  Accept(forwards[0]);
  Added(kB, forwards[0]);
  swarm_.Remove(kB);
  run_->OnFenced({kB});
  EXPECT_STREQ(run_->phase_name(), "fencing");
  Promise({}, {kA, kA2, kB2});  // lost on the way
  run_->OnFenced({});           // asked again: older answers no longer count
  Works works;
  works[forwards[0].to] = {Held(forwards[0], HeldState::kOpen, kB)};
  Promise(works);
  const std::vector<Request> resends = Take<Resend>();
  ASSERT_THAT(resends, SizeIs(1));
  EXPECT_EQ(resends[0].to, forwards[0].to);
  const Resend& resend = std::get<Resend>(resends[0].message.body);
  ASSERT_THAT(resend.works, SizeIs(1));
  EXPECT_EQ(resend.works[0].work, ForwardOf(forwards[0]).work);
  EXPECT_NE(resend.works[0].as, ForwardOf(forwards[0]).work.attempt);
  EXPECT_THAT(resend.works[0].add_at, ElementsAre(StageId{1}));
  EXPECT_FALSE(resend.works[0].contested);
  EXPECT_THAT(events_, Contains("replayed"));
  // What the mended path adds counts.
  const WorkId mended{resend.works[0].work.id, resend.works[0].as};
  run_->OnNotice(kB2, {mended, Progress::kAdded, 0, 0});
  Added(forwards[0].to, forwards[0]);
  EXPECT_EQ(run_->done_microbatches(), 1u);
}

TEST_F(StepRunTest, ResendThatIsRefusedAndClaimThatIsRefusedAreLookedAtAgain) {
  Join(kB2, 1);
  Start(1);
  const std::vector<Request> forwards = Take<Forward>();
  Accept(forwards[0]);
  swarm_.Remove(kB);
  run_->OnFenced({kB});
  Works works;
  works[forwards[0].to] = {Held(forwards[0], HeldState::kOpen, kB)};
  Promise(works);
  std::vector<Request> resends = Take<Resend>();
  ASSERT_THAT(resends, SizeIs(1));
  Answer(resends[0], Ack{absl::StatusCode::kAborted, ""});
  env_.Advance(absl::Milliseconds(100));
  Promise(works);
  resends = Take<Resend>();
  ASSERT_THAT(resends, SizeIs(1)) << "planned once more";
  Answer(resends[0], Ack{});
  run_->OnNotice(kB2, {ForwardOf(forwards[0]).work, Progress::kUnclaimed, 0, 0});
  env_.Advance(absl::Milliseconds(100));
  EXPECT_THAT(Take<Fence>(), SizeIs(3));
}

// --- slow work -------------------------------------------------------------------------

TEST_F(StepRunTest, OverdueWorkIsAskedAboutAndComputedByAnotherContested) {
  Join(kB2, 1);
  Start(1);
  const Request forward = Take<Forward>()[0];
  Accept(forward);
  env_.Advance(absl::Seconds(31));
  Works works;
  works[forward.to] = {Held(forward, HeldState::kOpen, kB)};
  works[kB] = {Held(forward, HeldState::kOpen)};  // on its device, for ever
  Promise(works);
  const std::vector<Request> resends = Take<Resend>();
  ASSERT_THAT(resends, SizeIs(1));
  const Resend& resend = std::get<Resend>(resends[0].message.body);
  EXPECT_TRUE(resend.works[0].contested);
  EXPECT_THAT(events_, Contains("contested"));
  EXPECT_STREQ(run_->phase_name(), "running") << "nobody waits for the answers";
  // The copy is done: the slow one may stop.
  run_->OnNotice(kB2, {{resend.works[0].work.id, resend.works[0].as}, Progress::kAdded, 1, 1});
  Added(forward.to, forward);
  const std::vector<Request> cancels = Take<Cancel>();
  ASSERT_THAT(cancels, SizeIs(1));
  EXPECT_EQ(cancels[0].to, kB);
}

TEST_F(StepRunTest, ReplicaThatAnswersNothingIsSplicedAroundThenFenced) {
  Join(kB2, 1);
  Start(1);
  const Request forward = Take<Forward>()[0];
  Accept(forward);
  Works works;
  works[forward.to] = {Held(forward, HeldState::kOpen, kB)};
  int spliced = 0;
  for (int i = 0; i < 10000 && fenced_.empty(); ++i) {
    env_.Advance(absl::Milliseconds(100));
    for (const SentMessage& sent : transport_.TakeMessages()) {
      spliced += std::holds_alternative<Resend>(sent.message.body) ? 1 : 0;
      const auto* fence = std::get_if<Fence>(&sent.message.body);
      if (fence == nullptr || sent.to == TestEndpoint(NameOf(kB))) continue;
      FenceAck ack;
      ack.number = fence->number;
      if (sent.to == TestEndpoint(NameOf(forward.to))) ack.held = works[forward.to];
      Answer({kA, sent.message}, ack);
    }
  }
  EXPECT_GT(spliced, 0);
  ASSERT_THAT(fenced_, SizeIs(1));
  EXPECT_EQ(fenced_[0].first, kB);
  EXPECT_THAT(fenced_[0].second, testing::HasSubstr("holds up step 4"));
}

TEST_F(StepRunTest, OverdueWorkThatIsStillToBeSentIsNotSentTwice) {
  Start(1);
  const Request first = Take<Forward>()[0];
  swarm_.Remove(kA);
  swarm_.Remove(kA2);
  run_->OnFenced({kA, kA2});
  wiring_.SetCandidates({});
  Promise({});
  for (int i = 0; i < 600; ++i) {
    env_.Advance(absl::Milliseconds(100));
    Promise({});
  }
  EXPECT_THAT(events_, testing::Not(Contains("contested")));
  Join(kA, 0);
  Wire();
  run_->Poke();
  EXPECT_THAT(Take<Forward>(), SizeIs(1));
}

TEST_F(StepRunTest, WorkThatShowsSignsIsNotAskedAbout) {
  Start(1);
  const Request forward = Take<Forward>()[0];
  Accept(forward);
  env_.Advance(absl::Seconds(20));
  Added(kB, forward);
  env_.Advance(absl::Seconds(20));
  EXPECT_THAT(Take<Fence>(), IsEmpty());
}

TEST_F(StepRunTest, LoopThatSleptBlamesNobodyForIt) {
  Start(1);
  Accept(Take<Forward>()[0]);
  env_.Sleep(absl::Seconds(100));
  env_.Advance(absl::Seconds(1));
  EXPECT_THAT(Take<Fence>(), IsEmpty());
}

TEST_F(StepRunTest, OverdueEvaluationIsSentAgain) {
  Start(0, true);
  const Request forward = Take<Forward>()[0];
  Accept(forward);
  env_.Advance(absl::Seconds(31));
  const std::vector<Request> again = Take<Forward>();
  ASSERT_THAT(again, SizeIs(1));
  EXPECT_EQ(ForwardOf(again[0]).work.id, ForwardOf(forward).work.id);
}

TEST_F(StepRunTest, SealThatIsNotAnsweredCostsTheSilentOneItsPlaceButNotTheLastOfAStage) {
  for (Incarnation silent : {kA, kB}) {
    events_.clear();
    fenced_.clear();
    if (swarm_.Find(kA) == nullptr) Join(kA, 0);
    Start(1);
    RunAll();
    for (const Request& seal : Take<starling::Seal>()) {
      if (seal.to == silent) continue;
      Sealed sealed;
      sealed.step = kStep;
      sealed.number = 1;
      Answer(seal, sealed);
    }
    env_.Advance(absl::Minutes(5));
    EXPECT_EQ(fenced_.size(), silent == kA ? 1u : 0u);
    if (silent == kB) continue;
    EXPECT_THAT(fenced_[0].second, testing::HasSubstr("has not answered a seal"));
  }
}

TEST_F(StepRunTest, AnswerToAnotherSealIsNotTakenForThisOne) {
  Start(1);
  const std::vector<Request> forwards = RunAll();
  const std::vector<Request> seals = Take<starling::Seal>();
  ASSERT_THAT(seals, SizeIs(3));
  Sealed wrong;
  wrong.step = kStep;
  wrong.number = 9;
  Answer(seals[0], wrong);
  const std::vector<Request> again = Take<starling::Seal>();
  ASSERT_THAT(again, SizeIs(1)) << "it is asked once more";
  Lists lists = ListsOf(forwards);
  for (const Request& seal : {again[0], seals[1], seals[2]}) {
    Sealed sealed;
    sealed.step = kStep;
    sealed.number = 1;
    sealed.segments = lists[seal.to];
    Answer(seal, sealed);
  }
  EXPECT_STREQ(run_->phase_name(), "reducing");
}

TEST_F(StepRunTest, ContestedSegmentCountsWhereTheSlowOneHasNotAdded) {
  Start(1);
  const std::vector<Request> forwards = RunAll();
  Lists lists = ListsOf(forwards);
  lists[kA].clear();
  lists[kA2].clear();
  SegmentSummary contested = Segment(3, forwards);
  contested.contested = true;
  lists[kA2] = {contested};
  Seal(lists);
  for (const Request& reduce : Take<Reduce>()) Answer(reduce, Sum(reduce));
  ASSERT_TRUE(outcome_ && outcome_->ok());
  EXPECT_EQ((*outcome_)->groups[0].members[1].segments[0].id, SegmentId{3});
}

TEST_F(StepRunTest, SealWaitsForEvaluationsAndForPermission) {
  may_seal_ = false;
  Start(1, true);
  const std::vector<Request> forwards = Take<Forward>();
  ASSERT_THAT(forwards, SizeIs(2));
  EXPECT_EQ(ForwardOf(forwards[0]).work.id.kind, WorkKind::kEvaluate);
  Accept(forwards[0]);
  Accept(forwards[1]);
  Added(kB, forwards[1]);
  Added(forwards[1].to, forwards[1]);
  may_seal_ = true;
  run_->Poke();
  EXPECT_THAT(Take<starling::Seal>(), IsEmpty());
  may_seal_ = false;
  run_->OnNotice(kB, {ForwardOf(forwards[0]).work, Progress::kEvaluated, 6, 4});
  EXPECT_THAT(Take<starling::Seal>(), IsEmpty());
  may_seal_ = true;
  run_->Poke();
  Lists lists;
  lists[forwards[1].to] = {Segment(0, {forwards[1]})};
  lists[kB] = {Segment(0, {forwards[1]})};
  Seal(lists);
  for (const Request& reduce : Take<Reduce>()) Answer(reduce, Sum(reduce));
  ASSERT_TRUE(outcome_ && outcome_->ok());
  EXPECT_EQ((*outcome_)->evaluation_loss, 1.5);
}

TEST_F(StepRunTest, RunOfNothingButAnEvaluationEndsWithIt) {
  Start(0, true);
  const std::vector<Request> forwards = Take<Forward>();
  ASSERT_THAT(forwards, SizeIs(1));
  run_->OnNotice(kB, {ForwardOf(forwards[0]).work, Progress::kEvaluated, 6, 4});
  ASSERT_TRUE(outcome_ && outcome_->ok());
  EXPECT_THAT((*outcome_)->groups, IsEmpty());
  EXPECT_EQ((*outcome_)->evaluation_loss, 1.5);
}

TEST_F(StepRunTest, NoticesOfStrangersAndOfOtherStepsAreIgnored) {
  Start(1);
  const Request forward = Take<Forward>()[0];
  Notice notice{ForwardOf(forward).work, Progress::kAdded, 0, 0};
  run_->OnNotice({kEpoch, 77}, notice);
  notice.work.id.step = Step{3};
  run_->OnNotice(kB, notice);
  run_->OnNotice(forward.to, notice);
  EXPECT_EQ(run_->done_microbatches(), 0u);
  EXPECT_THAT(Take<starling::Seal>(), IsEmpty());
}

TEST_F(StepRunTest, MicrobatchThatHasNoDataEndsTheStepWithTheFeedsWords) {
  feed_.second = absl::InvalidArgumentError("shard 7: token 3 is 300");
  Start();
  ASSERT_TRUE(outcome_.has_value());
  EXPECT_EQ(outcome_->status(), feed_.second);
  EXPECT_THAT(Take<Forward>(), SizeIs(1));  // the one before it
  outcome_.reset();
  run_->Poke();
  EXPECT_FALSE(outcome_.has_value());
}

TEST_F(StepRunTest, AnswersAfterItIsGoneAreHarmless) {
  Start();
  const std::vector<Request> forwards = Take<Forward>();
  run_.reset();
  for (const Request& forward : forwards) {
    Answer(forward, Ack{absl::StatusCode::kResourceExhausted, ""});
  }
  env_.Advance(absl::Seconds(1));
  EXPECT_THAT(Take<Forward>(), IsEmpty());
}

}  // namespace
}  // namespace starling
