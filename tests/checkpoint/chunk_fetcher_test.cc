#include "checkpoint/chunk_fetcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/chunked_bytes.h"
#include "tests/testing/fake_env.h"
#include "tests/testing/fake_transport.h"

namespace starling {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kChunk = 1024;
constexpr int64_t kElements = (40 * kChunk + 100) / 4;  // 40 chunks and a bit
constexpr uint64_t kTotal = kElements * 4;

Blob State(float seed) {
  MutableBlob state = MutableBlob::Uninitialized(DType::kF32, {kElements});
  for (int64_t i = 0; i < kElements; ++i) state.As<float>()[i] = seed + static_cast<float>(i % 997);
  return std::move(state).Freeze();
}

// Donors that answer after a while of their own, over a network that this test plays.
class ChunkFetcherTest : public testing::Test {
 protected:
  struct Donor {
    explicit Donor(Blob state) : bytes({std::move(state)}, kChunk) {}
    Donor(std::vector<Blob> pieces, const ResultRecord& record)
        : bytes(std::move(pieces), kChunk, record) {}
    ChunkedBytes bytes;
    absl::Duration per_chunk = absl::Milliseconds(10);  // one after another
    absl::Time free_at = absl::InfinitePast();
    bool dead = false;                              // answers nothing
    bool dead_to_chunks = false;                    // answers its index and nothing more
    absl::StatusCode code = absl::StatusCode::kOk;  // else refuses with it
    std::set<uint64_t> corrupt;                     // chunks it sends with a bit turned
    std::vector<uint64_t> asked;                    // chunks
    size_t open = 0;
    size_t most_open = 0;
  };

  Donor& AddDonor(const std::string& name, Blob state) {
    return donors_.try_emplace(TestEndpoint(name), std::move(state)).first->second;
  }
  Donor& AddDonor(const std::string& name) { return AddDonor(name, state_); }

  void Begin(ChunkFetcher::Options options = {}) {
    std::vector<Endpoint> donors;
    for (const auto& [endpoint, donor] : donors_) donors.push_back(endpoint);
    ChunkFetcher::Want want{Content::kState, StageId{2}, Era{3}, Version{4}, kElements, {}};
    if (know_hash_) want.hash = HashBytes(state_.data(), state_.size_bytes());
    Begin(options, want, donors);
  }
  void Begin(ChunkFetcher::Options options, ChunkFetcher::Want want,
             const std::vector<Endpoint>& donors) {
    FetchLinks links;
    links.ask = [this](const Endpoint& donor, MessageBody body, FetchLinks::OnReply reply) {
      return Ask(donor, std::move(body), std::move(reply));
    };
    links.cancel = [this](uint64_t request) { open_.erase(request); };
    ChunkFetcher::Events events;
    events.done = [this](absl::StatusOr<ChunkFetcher::Fetched> result) {
      ++done_;
      result_ = std::move(result);
      fetcher_.reset();
    };
    events.donor_dropped = [this](const Endpoint& donor, const absl::Status& why) {
      dropped_[donor.control] = why;
    };
    fetcher_ = std::make_unique<ChunkFetcher>(&env_, options, want, TestEndpoint("me"), donors,
                                              links, events);
    fetcher_->Start();
  }

  uint64_t Ask(const Endpoint& to, MessageBody body, FetchLinks::OnReply reply) {
    const uint64_t request = ++last_request_;
    open_.insert(request);
    most_open_ = std::max(most_open_, open_.size());
    const auto it = donors_.find(to);
    if (it == donors_.end()) return request;
    Donor& donor = it->second;
    const auto* fetch = std::get_if<Fetch>(&body);
    if (fetch != nullptr) {
      donor.asked.push_back(fetch->offset_bytes / kChunk);
      donor.most_open = std::max(donor.most_open, ++donor.open);
      asked_bytes_ += fetch->length_bytes;
    }
    donor.free_at = std::max(donor.free_at, env_.Now()) + donor.per_chunk;
    env_.Schedule(donor.free_at - env_.Now(), [this, request, body, reply, &donor] {
      if (std::holds_alternative<Fetch>(body)) --donor.open;
      const bool silent =
          donor.dead || (donor.dead_to_chunks && std::holds_alternative<Fetch>(body));
      if (silent || open_.erase(request) == 0) return;
      reply(AnswerTo(body, &donor));
    });
    return request;
  }

  MessageBody AnswerTo(const MessageBody& body, Donor* donor) {
    const auto* fetch = std::get_if<Fetch>(&body);
    if (donor->code != absl::StatusCode::kOk) {
      if (fetch == nullptr) return ChunkIndex{donor->code, "refused", 0, 0, {}, {}};
      return Chunk{donor->code, "refused", 0, 0, {}};
    }
    if (fetch == nullptr) return *donor->bytes.Index();
    Chunk chunk = donor->bytes.Cut(*fetch);
    if (donor->corrupt.count(fetch->offset_bytes / kChunk) != 0) {
      std::string bytes = chunk.bytes.ToStringBytes();
      bytes[bytes.size() / 2] ^= 1;
      chunk.bytes = Blob::OfString(bytes);
    }
    return chunk;
  }

  // Lets time pass until the download has ended, for a while of virtual time.
  void Finish(absl::Duration limit = absl::Minutes(10)) {
    const absl::Time end = env_.Now() + limit;
    while (done_ == 0 && env_.next_timer() <= end && env_.RunNext()) {
    }
  }
  void ExpectState() {
    ASSERT_EQ(done_, 1);
    ASSERT_TRUE(result_.ok()) << result_.status();
    EXPECT_EQ(result_->bytes.dtype(), DType::kF32);
    ASSERT_EQ(result_->bytes.shape(), state_.shape());
    EXPECT_EQ(std::memcmp(result_->bytes.data(), state_.data(), kTotal), 0);
    EXPECT_THAT(open_, IsEmpty()) << "requests left behind";
  }
  absl::StatusCode DroppedWith(const std::string& name) {
    const auto it = dropped_.find(TestEndpoint(name).control);
    return it == dropped_.end() ? absl::StatusCode::kOk : it->second.code();
  }

  const Blob state_ = State(1);
  bool know_hash_ = true;
  FakeEnv env_;
  std::map<Endpoint, Donor> donors_;
  uint64_t last_request_ = 0;
  std::set<uint64_t> open_;
  size_t most_open_ = 0;
  uint64_t asked_bytes_ = 0;
  int done_ = 0;
  absl::StatusOr<ChunkFetcher::Fetched> result_ = absl::UnknownError("not done");
  std::map<std::string, absl::Status> dropped_;
  std::unique_ptr<ChunkFetcher> fetcher_;
};

TEST_F(ChunkFetcherTest, OneDonorGivesTheWholeStateAndEachChunkIsAskedForOnce) {
  Donor& donor = AddDonor("a");
  Begin();
  Finish();
  ExpectState();
  EXPECT_EQ(donor.asked.size(), 41u);
  EXPECT_LE(donor.most_open, ChunkFetcher::Options().window);
  EXPECT_THAT(dropped_, IsEmpty());
  EXPECT_EQ(env_.timers(), 0u);
}

TEST_F(ChunkFetcherTest, SeveralDonorsShareTheWork) {
  for (const char* name : {"a", "b", "c"}) AddDonor(name);
  Begin();
  Finish();
  ExpectState();
  size_t asked = 0;
  for (const auto& [endpoint, donor] : donors_) {
    EXPECT_GE(donor.asked.size(), 10u);
    asked += donor.asked.size();
  }
  EXPECT_EQ(asked, 41u);
}

TEST_F(ChunkFetcherTest, ASlowDonorIsAskedForLess) {
  Donor& fast = AddDonor("fast");
  Donor& slow = AddDonor("slow");
  slow.per_chunk = absl::Milliseconds(80);
  Begin();
  Finish();
  ExpectState();
  EXPECT_GE(fast.asked.size(), 4 * slow.asked.size());
  EXPECT_GE(slow.asked.size(), 1u);
  EXPECT_LE(slow.most_open, 2u);
}

TEST_F(ChunkFetcherTest, ADonorThatLeavesMidwayIsResumedAtTheOthers) {
  Donor& leaver = AddDonor("a");
  Donor& stayer = AddDonor("b");
  Begin();
  env_.Advance(absl::Milliseconds(105));
  const size_t asked_before = leaver.asked.size();
  ASSERT_GT(asked_before, 4u);
  leaver.dead = true;
  fetcher_->RemoveDonor(TestEndpoint("a"), "connection lost");
  EXPECT_EQ(DroppedWith("a"), absl::StatusCode::kUnavailable);
  Finish();
  ExpectState();
  EXPECT_EQ(leaver.asked.size(), asked_before);
  EXPECT_LE(leaver.asked.size() + stayer.asked.size(), 41u + 4u) << "what was here is kept";
}

TEST_F(ChunkFetcherTest, ADonorThatDiesSilentlyCostsOnlyItsOpenChunks) {
  Donor& dying = AddDonor("a");
  Donor& stayer = AddDonor("b");
  Begin();
  env_.Advance(absl::Milliseconds(105));
  dying.dead = true;
  const absl::Time died = env_.Now();
  Finish();
  ExpectState();
  EXPECT_LT(env_.Now() - died, absl::Seconds(5)) << "not only when it is dropped for its silence";
  EXPECT_LE(dying.asked.size() + stayer.asked.size(), 41u + 4u);
}

TEST_F(ChunkFetcherTest, AChunkOverdueAtOneDonorIsAskedOfAnother) {
  Donor& stuck = AddDonor("a");
  AddDonor("b");
  stuck.dead_to_chunks = true;
  Begin();
  env_.Advance(absl::Seconds(5));
  EXPECT_EQ(done_, 0) << "too little is known of it, it may yet answer";
  Finish();
  ExpectState();
  EXPECT_EQ(stuck.asked.size(), 2u);
}

TEST_F(ChunkFetcherTest, ADonorThatNeverAnswersIsDroppedAfterAWhile) {
  AddDonor("a").dead = true;
  const absl::Time start = env_.Now();
  Begin();
  Finish();
  EXPECT_EQ(result_.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(env_.Now() - start, absl::Seconds(30));
  EXPECT_EQ(DroppedWith("a"), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(open_, IsEmpty());
}

TEST_F(ChunkFetcherTest, WhenAllDonorsAreGoneItEndsAborted) {
  AddDonor("a");
  AddDonor("b");
  Begin();
  env_.Advance(absl::Milliseconds(55));
  fetcher_->RemoveDonor(TestEndpoint("a"), "fenced");
  fetcher_->RemoveDonor(TestEndpoint("b"), "connection lost");
  EXPECT_EQ(done_, 0) << "never inline";
  Finish();
  EXPECT_EQ(done_, 1);
  EXPECT_EQ(result_.status().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(result_.status().message()), HasSubstr("connection lost"));
  EXPECT_THAT(open_, IsEmpty());
}

TEST_F(ChunkFetcherTest, WithoutAnyDonorItEndsAborted) {
  Begin();
  Finish();
  EXPECT_EQ(result_.status().code(), absl::StatusCode::kAborted);
}

TEST_F(ChunkFetcherTest, ADonorAddedMidwayHelps) {
  AddDonor("a");
  Begin();
  env_.Advance(absl::Milliseconds(100));
  Donor& late = AddDonor("b");
  fetcher_->AddDonor(TestEndpoint("b"));
  fetcher_->AddDonor(TestEndpoint("b"));
  Finish();
  ExpectState();
  EXPECT_GT(late.asked.size(), 10u);
}

TEST_F(ChunkFetcherTest, ADonorAddedAfterTheOnlyOneStalledSavesIt) {
  Donor& stalled = AddDonor("a");
  Begin();
  env_.Advance(absl::Milliseconds(105));
  stalled.dead = true;
  env_.Advance(absl::Seconds(20));
  AddDonor("b");
  fetcher_->AddDonor(TestEndpoint("b"));
  Finish();
  ExpectState();
}

TEST_F(ChunkFetcherTest, AChunkWithWrongBitsIsRefetchedAndItsDonorReported) {
  Donor& liar = AddDonor("liar");
  AddDonor("honest");
  for (uint64_t chunk = 0; chunk < 41; ++chunk) liar.corrupt.insert(chunk);
  Begin();
  Finish();
  ExpectState();
  EXPECT_EQ(DroppedWith("liar"), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DroppedWith("honest"), absl::StatusCode::kOk);
}

TEST_F(ChunkFetcherTest, AnIndexThatFewerGiveDoesNotCount) {
  AddDonor("a liar", State(9)).per_chunk = absl::Milliseconds(1);  // the first to answer
  AddDonor("b");
  AddDonor("c");
  Begin();
  Finish();
  ExpectState();
  EXPECT_EQ(DroppedWith("a liar"), absl::StatusCode::kDataLoss);
  EXPECT_EQ(dropped_.size(), 1u);
}

TEST_F(ChunkFetcherTest, ManyWhoLieTogetherAreFoundOutByTheHashOfTheWhole) {
  // They agree with the honest one but for a few elements: the other chunks are kept.
  MutableBlob copy = MutableBlob::Uninitialized(DType::kF32, {kElements});
  std::memcpy(copy.data(), state_.data(), kTotal);
  copy.As<float>()[5000] += 1;
  const Blob wrong = std::move(copy).Freeze();
  AddDonor("liar 1", wrong);
  AddDonor("liar 2", wrong);
  Donor& honest = AddDonor("honest");
  honest.per_chunk = absl::Milliseconds(20);
  Begin();
  Finish();
  ExpectState();
  EXPECT_EQ(DroppedWith("liar 1"), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DroppedWith("liar 2"), absl::StatusCode::kDataLoss);
  EXPECT_THAT(honest.asked, ElementsAre(5000 * 4 / kChunk));
}

TEST_F(ChunkFetcherTest, OnlyLiarsMeanDataLoss) {
  AddDonor("a", State(9));
  AddDonor("b", State(9));
  Begin();
  Finish();
  EXPECT_EQ(result_.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(dropped_.size(), 2u);
  EXPECT_THAT(open_, IsEmpty());
}

TEST_F(ChunkFetcherTest, ADonorThatLiedIsNotTakenBack) {
  AddDonor("a").corrupt = {0};
  AddDonor("b");
  Begin();
  env_.Advance(absl::Milliseconds(100));
  ASSERT_EQ(DroppedWith("a"), absl::StatusCode::kDataLoss);
  const size_t asked = donors_.at(TestEndpoint("a")).asked.size();
  fetcher_->AddDonor(TestEndpoint("a"));
  Finish();
  ExpectState();
  EXPECT_EQ(donors_.at(TestEndpoint("a")).asked.size(), asked);
}

TEST_F(ChunkFetcherTest, AnotherSizeOrAnIndexThatDoesNotFitIsDataLoss) {
  AddDonor("short", Blob::OfFloats({1, 2, 3}));
  Begin();
  Finish();
  EXPECT_EQ(result_.status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ChunkFetcherTest, NotYetAndBusyAreAskedAgainLater) {
  for (auto code : {absl::StatusCode::kFailedPrecondition, absl::StatusCode::kResourceExhausted}) {
    donors_.clear();
    done_ = 0;
    Donor& donor = AddDonor("a");
    donor.code = code;
    Begin();
    env_.Advance(absl::Seconds(10));
    EXPECT_EQ(done_, 0);
    EXPECT_THAT(dropped_, IsEmpty());
    donor.code = absl::StatusCode::kOk;
    env_.Advance(absl::Seconds(2.1));
    donor.code = code;
    env_.Advance(absl::Seconds(1));
    donor.code = absl::StatusCode::kOk;
    Finish();
    ExpectState();
  }
}

TEST_F(ChunkFetcherTest, ADonorThatDoesNotHaveItIsDropped) {
  AddDonor("a").code = absl::StatusCode::kAborted;
  AddDonor("b");
  Begin();
  Finish();
  ExpectState();
  EXPECT_EQ(DroppedWith("a"), absl::StatusCode::kAborted);
}

TEST_F(ChunkFetcherTest, ADonorThatLetsItGoMidwayIsDroppedAndTheRestComesFromOthers) {
  Donor& forgetful = AddDonor("a");
  AddDonor("b");
  Begin();
  env_.Advance(absl::Milliseconds(105));
  forgetful.code = absl::StatusCode::kAborted;
  Finish();
  ExpectState();
  EXPECT_EQ(DroppedWith("a"), absl::StatusCode::kAborted);
}

TEST_F(ChunkFetcherTest, TheRateIsBounded) {
  for (const char* name : {"a", "b", "c"}) AddDonor(name);
  ChunkFetcher::Options options;
  options.bytes_per_s = 8 * kChunk;
  const absl::Time start = env_.Now();
  Begin(options);
  while (done_ == 0 && env_.RunNext()) {
    const double seconds = absl::ToDoubleSeconds(env_.Now() - start);
    ASSERT_LE(static_cast<double>(asked_bytes_), options.bytes_per_s * (seconds + 0.25) + 1);
  }
  ExpectState();
  EXPECT_NEAR(absl::ToDoubleSeconds(env_.Now() - start), 41.0 / 8, 0.5);
}

TEST_F(ChunkFetcherTest, ProgressIsCounted) {
  AddDonor("a");
  Begin();
  EXPECT_EQ(fetcher_->progress().total_bytes, 0u);
  env_.Advance(absl::Milliseconds(55));
  const ChunkFetcher::Progress progress = fetcher_->progress();
  EXPECT_EQ(progress.total_bytes, kTotal);
  EXPECT_EQ(progress.received_bytes, 4 * kChunk);
  EXPECT_EQ(progress.donors, 1u);
  EXPECT_EQ(progress.asked_elsewhere, 0u);
}

TEST_F(ChunkFetcherTest, DestroyedItCancelsAllAndCallsNothing) {
  AddDonor("a");
  AddDonor("b").dead = true;
  Begin();
  env_.Advance(absl::Milliseconds(55));
  fetcher_.reset();
  EXPECT_THAT(open_, IsEmpty());
  env_.Advance(absl::Minutes(5));
  EXPECT_EQ(done_, 0);
}

TEST_F(ChunkFetcherTest, DonorsThatComeAndGoAndLieAndStallDoNotKeepItFromTheState) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    env_ = FakeEnv(seed);
    donors_.clear();
    dropped_.clear();
    done_ = 0;
    Rng rng(seed);
    AddDonor("honest").per_chunk = absl::Milliseconds(1 + static_cast<int>(rng.Below(50)));
    for (const char* name : {"a", "b", "z"}) {
      Donor& donor =
          AddDonor(name, rng.Chance(0.3) ? State(static_cast<float>(rng.Below(3))) : state_);
      donor.per_chunk = absl::Milliseconds(1 + static_cast<int>(rng.Below(100)));
      if (rng.Chance(0.3)) donor.corrupt = {rng.Below(41), rng.Below(41)};
      if (rng.Chance(0.2)) donor.dead_to_chunks = true;
    }
    Begin();
    for (int i = 0; i < 10 && done_ == 0; ++i) {
      env_.Advance(absl::Milliseconds(static_cast<int>(rng.Below(60))));
      const Endpoint other = TestEndpoint(rng.Chance(0.5) ? "a" : "z");
      if (done_ != 0) break;
      switch (rng.Below(4)) {
        case 0:
          fetcher_->RemoveDonor(other, "gone");
          break;
        case 1:
          fetcher_->AddDonor(other);
          break;
        case 2:
          donors_.at(other).dead = true;
          break;
        default:
          donors_.at(other).dead = false;
      }
    }
    Finish();
    ExpectState();
    ASSERT_EQ(DroppedWith("honest"), absl::StatusCode::kOk);
    if (HasFailure()) return;
  }
}

// --- results ---

TEST_F(ChunkFetcherTest, AResultComesWithItsRecord) {
  ResultRecord record;
  record.version = Version{8};
  record.decision = 77;
  donors_.try_emplace(
      TestEndpoint("a"),
      std::vector<Blob>{state_.Slice(0, 1000), state_.Slice(1000, kElements - 1000)}, record);
  Begin({}, {Content::kResult, StageId{0}, Era{1}, Version{8}, kElements, {}}, {TestEndpoint("a")});
  Finish();
  ExpectState();
  ASSERT_TRUE(result_->result);
  EXPECT_EQ(result_->result->decision, 77u);
}

TEST_F(ChunkFetcherTest, ASkippedDecisionsResultHasNoBytes) {
  ResultRecord record;
  record.version = Version{8};
  record.skip = true;
  donors_.try_emplace(TestEndpoint("a"), std::vector<Blob>(), record);
  Begin({}, {Content::kResult, StageId{0}, Era{1}, Version{8}, kElements, {}}, {TestEndpoint("a")});
  Finish();
  ASSERT_TRUE(result_.ok()) << result_.status();
  EXPECT_TRUE(result_->bytes.empty());
  EXPECT_TRUE(result_->result->skip);
}

TEST_F(ChunkFetcherTest, AResultOfAnotherVersionIsDataLoss) {
  ResultRecord record;
  record.version = Version{9};
  donors_.try_emplace(TestEndpoint("a"), std::vector<Blob>{state_}, record);
  Begin({}, {Content::kResult, StageId{0}, Era{1}, Version{8}, kElements, {}}, {TestEndpoint("a")});
  Finish();
  EXPECT_EQ(result_.status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace starling
