#include "checkpoint/catch_up.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/chunk_donor.h"
#include "checkpoint/result_log.h"
#include "tests/testing/fake_env.h"
#include "tests/testing/fake_transport.h"

namespace starling {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr Era kEra{1};
constexpr int64_t kElements = 100;

// A state is one number; a result adds its first element times the scale.
double Updated(double state, const UpdateScalars& scalars, const Blob& result) {
  return state + scalars.grad_scale * result.As<float>()[0];
}
Hash128 HashOf(double state) { return HashBytes(&state, sizeof(state)); }

// A member whose log a newcomer reads.
struct Member {
  Member(Env* env, const ResultLog::Options& options)
      : log(options),
        donor(
            env, {},
            [this](Content content, StageId, Era era,
                   Version version) -> absl::StatusOr<ChunkedBytes*> {
              if (content != Content::kResult) return absl::AbortedError("no snapshots");
              if (version > version_) return absl::FailedPreconditionError("not decided yet");
              return log.Find(era, version);
            },
            [this](const Endpoint&, uint64_t request, MessageBody body) {
              answers.emplace(request, std::move(body));
            }) {}

  void Decide(bool skip = false) {
    ResultRecord record;
    record.version = version_ = Next(version_);
    record.decision = Value(version_);
    record.skip = skip;
    record.scalars.grad_scale = 0.5;
    record.before = HashOf(state);
    MutableBlob result = MutableBlob::Zeros(DType::kF32, {kElements});
    result.As<float>()[0] = static_cast<float>(Value(version_));
    const Blob bytes = std::move(result).Freeze();
    if (!skip) state = Updated(state, record.scalars, bytes);
    record.after = HashOf(state);
    log.Put(kEra, record, skip ? std::vector<Blob>() : std::vector<Blob>{bytes});
  }

  double state = 1;
  Version version_{0};
  ResultLog log;
  ChunkDonor donor;
  std::map<uint64_t, MessageBody> answers;
};

class CatchUpTest : public testing::Test {
 protected:
  Member& AddMember(const std::string& name, ResultLog::Options options = {1 << 20, 64, 128}) {
    auto& member = members_[TestEndpoint(name)];
    member = std::make_unique<Member>(&env_, options);
    return *member;
  }
  void DecideAll(int count, bool skip = false) {
    for (int i = 0; i < count; ++i) {
      for (auto& [endpoint, member] : members_) member->Decide(skip);
    }
  }
  void Begin(double state = 1, uint64_t version = 0) {
    state_ = state;
    FetchLinks links;
    links.ask = [this](const Endpoint& to, MessageBody body, FetchLinks::OnReply reply) {
      return Ask(to, std::move(body), std::move(reply));
    };
    links.cancel = [this](uint64_t request) { open_.erase(request); };
    CatchUp::Events events;
    events.advanced = [this](const StateName& state) { versions_.push_back(Value(state.version)); };
    events.failed = [this](const absl::Status& why) {
      failed_ = why;
      ++failures_;
    };
    std::vector<Endpoint> donors;
    for (const auto& [endpoint, member] : members_) donors.push_back(endpoint);
    catch_up_ = std::make_unique<CatchUp>(
        &env_, ChunkFetcher::Options{},
        CatchUp::Start{StageId{0}, kElements, {kEra, Version{version}, HashOf(state)}},
        TestEndpoint("me"), donors, links,
        [this](const UpdateScalars& scalars, Blob result,
               std::function<void(absl::StatusOr<Hash128>)> done) {
          env_.Schedule(apply_takes_, [this, scalars, result, done] {
            state_ = Updated(state_, scalars, result) + wrong_by_;
            done(HashOf(state_));
          });
        },
        std::move(events));
    catch_up_->Begin();
  }
  uint64_t Ask(const Endpoint& to, MessageBody body, FetchLinks::OnReply reply) {
    const uint64_t request = ++last_request_;
    open_.insert(request);
    env_.Schedule(absl::Milliseconds(5), [this, to, request, body, reply] {
      const auto it = members_.find(to);
      if (it == members_.end() || open_.erase(request) == 0) return;
      Member& member = *it->second;
      if (const auto* fetch = std::get_if<Fetch>(&body)) member.donor.OnFetch(*fetch, request);
      if (const auto* fetch = std::get_if<FetchIndex>(&body)) {
        member.donor.OnFetchIndex(*fetch, request);
      }
      reply(member.answers.at(request));
    });
    return request;
  }
  uint64_t version() const { return Value(catch_up_->at().version); }

  FakeEnv env_;
  std::map<Endpoint, std::unique_ptr<Member>> members_;
  std::set<uint64_t> open_;
  uint64_t last_request_ = 0;
  absl::Duration apply_takes_ = absl::Milliseconds(10);
  double wrong_by_ = 0;
  double state_ = 1;
  std::vector<uint64_t> versions_;
  absl::Status failed_;
  int failures_ = 0;
  std::unique_ptr<CatchUp> catch_up_;
};

TEST_F(CatchUpTest, RecentResultsAreReplayedInOrderUpToTheMembersState) {
  Member& member = AddMember("a");
  AddMember("b");
  DecideAll(5);
  Begin();
  env_.Advance(absl::Seconds(5));
  EXPECT_EQ(versions_, std::vector<uint64_t>({1, 2, 3, 4, 5}));
  EXPECT_EQ(state_, member.state);
  EXPECT_EQ(catch_up_->at().hash, HashOf(member.state));
  EXPECT_EQ(catch_up_->fetched_bytes(), 5 * kElements * sizeof(float));
  EXPECT_EQ(failures_, 0);
}

TEST_F(CatchUpTest, ItFollowsDecisionsAsTheyAreMade) {
  Member& member = AddMember("a");
  Begin();
  for (uint64_t version = 1; version <= 10; ++version) {
    DecideAll(1);
    env_.Advance(absl::Seconds(3));
    EXPECT_EQ(catch_up_->at().version, Version{version});
  }
  EXPECT_EQ(state_, member.state);
}

TEST_F(CatchUpTest, ASkippedDecisionMovesOnlyTheVersion) {
  AddMember("a");
  DecideAll(1);
  DecideAll(2, true);
  DecideAll(1);
  Begin();
  env_.Advance(absl::Seconds(5));
  EXPECT_EQ(versions_, std::vector<uint64_t>({1, 2, 3, 4}));
  EXPECT_EQ(catch_up_->at().hash, HashOf(members_.begin()->second->state));
}

TEST_F(CatchUpTest, ADonorThatLeavesIsDoneWithout) {
  AddMember("a");
  Member& other = AddMember("b");
  DecideAll(20);
  Begin();
  env_.Advance(absl::Milliseconds(60));
  const uint64_t before = version();
  ASSERT_GT(before, 0u);
  ASSERT_LT(before, 20u);
  members_.erase(TestEndpoint("a"));
  catch_up_->RemoveDonor(TestEndpoint("a"), "connection lost");
  env_.Advance(absl::Seconds(10));
  EXPECT_EQ(version(), 20u);
  EXPECT_EQ(state_, other.state);
}

TEST_F(CatchUpTest, ResultsThatAreGoneMeanThatANewerSnapshotIsNeeded) {
  AddMember("a", {3 * kElements * sizeof(float), 64, 128});
  DecideAll(5);
  Begin();
  env_.Advance(absl::Seconds(5));
  EXPECT_EQ(failures_, 1);
  EXPECT_EQ(failed_.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(failed_.message()), HasSubstr("the oldest kept made 3"));
  EXPECT_FALSE(catch_up_->state_spoiled());
  EXPECT_THAT(versions_, IsEmpty());
}

TEST_F(CatchUpTest, ResultsThatWereAppliedToAnotherStateAreRefused) {
  AddMember("a");
  DecideAll(3);
  Begin(/*state=*/7);
  env_.Advance(absl::Seconds(5));
  EXPECT_EQ(failures_, 1);
  EXPECT_EQ(failed_.code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(catch_up_->state_spoiled());
  EXPECT_EQ(state_, 7) << "nothing was applied";
}

TEST_F(CatchUpTest, AnUpdateWithAnotherOutcomeEndsIt) {
  AddMember("a");
  DecideAll(3);
  wrong_by_ = 1;
  Begin();
  env_.Advance(absl::Seconds(5));
  EXPECT_EQ(failures_, 1);
  EXPECT_EQ(failed_.code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(catch_up_->state_spoiled());
  EXPECT_THAT(versions_, IsEmpty());
}

TEST_F(CatchUpTest, WhileOneIsAppliedOnlyTheNextIsFetched) {
  AddMember("a");
  DecideAll(5);
  apply_takes_ = absl::Seconds(100);
  Begin();
  env_.Advance(absl::Seconds(10));
  EXPECT_TRUE(catch_up_->applying());
  EXPECT_EQ(catch_up_->fetched_bytes(), 2 * kElements * sizeof(float));
}

TEST_F(CatchUpTest, StoppedItFinishesTheUpdateUnderWayAndNoMore) {
  AddMember("a");
  DecideAll(5);
  apply_takes_ = absl::Seconds(1);
  Begin();
  env_.Advance(absl::Milliseconds(1500));
  catch_up_->Stop();
  ASSERT_TRUE(catch_up_->applying());
  const uint64_t before = version();
  env_.Advance(absl::Seconds(20));
  EXPECT_FALSE(catch_up_->applying());
  EXPECT_EQ(version(), before + 1);
  EXPECT_EQ(catch_up_->at().hash, HashOf(state_));
  EXPECT_THAT(open_, IsEmpty());
}

TEST_F(CatchUpTest, DestroyedWhileApplyingItHearsNothing) {
  AddMember("a");
  DecideAll(2);
  Begin();
  while (!catch_up_->applying()) env_.RunNext();
  catch_up_.reset();
  env_.Advance(absl::Seconds(20));
  EXPECT_THAT(versions_, IsEmpty());
  EXPECT_EQ(failures_, 0);
  EXPECT_THAT(open_, IsEmpty());
}

}  // namespace
}  // namespace starling
