// Models of docs/architecture.md, "The end of a step", "Joining" and "The trainer restarts": a
// round with a death, a trainer that dies around a decision, a newcomer that catches up while steps
// are decided. As in work_model_test.cc they are written from the rules, share no code with the
// runtime, and must go wrong when a rule is left out.
#include <cstdint>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/explorer.h"

namespace starling::model {
namespace {

using ::testing::HasSubstr;

bool Has(unsigned mask, int bit) { return (mask >> bit & 1) != 0; }
uint8_t Bit(int bit) { return static_cast<uint8_t>(1 << bit); }

// --- a round with a death ---

// Three members, each with one microbatch of its own and one part to add up. Member 2 may be fenced
// once; then member 0 computes its microbatch again, and round 2 is run by members 0 and 1, who own
// two parts. Owners keep pieces, so those that have not changed are not sent again.
namespace round_model {

enum class Without {
  kNothing,
  kNamesOfPieces,  // a kept piece is used again whatever it is the sum of
  kNamesInApply,   // apply takes whichever result is there
  kEveryAnswer     // the decision does not wait for all members
};

struct State {
  uint8_t fenced;
  uint8_t replayed;
  uint8_t planned;        // rounds begun
  uint8_t pieces[2][3];   // by round and sender, mask of owners that have it
  uint8_t added[2][3];    // by round and part: 0 not yet, else 1 + what it holds
  uint8_t results[2][3];  // by round and member, mask of parts it has
  uint8_t decided;        // 0, or the round
  uint8_t applied[3];     // 0, or the round whose result it took
};

class Rules {
 public:
  explicit Rules(Without without) : without_(without) {}

  static int Members(int round) { return round == 0 ? 3 : 2; }
  static uint8_t All(int round) { return static_cast<uint8_t>((1 << Members(round)) - 1); }

  bool Done(const State& s) const {
    return s.decided != 0 && s.applied[0] != 0 && s.applied[1] != 0;
  }

  std::string Wrong(const State& s) const {
    if (s.applied[0] != 0 && s.applied[1] != 0 && s.applied[0] != s.applied[1]) {
      return "two members took the results of different rounds";
    }
    for (int part = 0; s.decided != 0 && part < Members(s.decided - 1); ++part) {
      // Bits 0 to 2: whose microbatch is in it once, bit 3: some twice
      if (s.added[s.decided - 1][part] - 1 != 7) return "a part does not hold each microbatch once";
    }
    return "";
  }

  template <typename Sink>
  void Next(const State& s, Sink sink) const {
    if (s.planned == 0) {
      State next = s;
      next.planned = 1;
      sink("trainer: round 1", next);
    }
    if (!s.fenced && s.decided == 0) {
      State next = s;
      next.fenced = 1;
      sink("trainer: fences member 2", next);
    }
    if (s.fenced && !s.replayed) {
      State next = s;
      next.replayed = 1;
      sink("member 0 replays", next);
    }
    if (s.replayed && s.planned < 2) {
      State next = s;
      next.planned = 2;
      sink("trainer: round 2", next);
    }
    for (int round = 0; round < s.planned; ++round) Run(s, round, sink);
    Decide(s, sink);
  }

 private:
  template <typename Sink>
  void Run(const State& s, int round, Sink sink) const {
    for (int m = 0; m < Members(round); ++m) {
      for (int owner = 0; owner < Members(round); ++owner) {
        if (Has(s.pieces[round][m], owner)) continue;
        State next = s;
        next.pieces[round][m] |= Bit(owner);
        sink("a piece arrives", next);
      }
      for (int part = 0; part < Members(round); ++part) {
        if (s.added[round][part] == 0 || Has(s.results[round][m], part)) continue;
        State next = s;
        next.results[round][m] |= Bit(part);
        sink("a result arrives", next);
      }
    }
    for (int part = 0; part < Members(round); ++part) {
      if (s.added[round][part] != 0) continue;
      int held = 0;
      bool whole = true;
      for (int m = 0; m < Members(round); ++m) {
        const int own = round == 1 && m == 0 ? 1 | 4 : 1 << m;  // with what it replayed
        const bool kept = round == 1 && Has(s.pieces[0][m], part);
        if (kept && (own == 1 << m || without_ == Without::kNamesOfPieces)) {
          held |= 1 << m;  // the piece of round 1 serves again
        } else if (Has(s.pieces[round][m], part)) {
          held |= own;
        } else {
          whole = false;
        }
      }
      if (!whole) continue;
      State next = s;
      next.added[round][part] = static_cast<uint8_t>(held + 1);
      sink("an owner adds up", next);
    }
  }

  template <typename Sink>
  void Decide(const State& s, Sink sink) const {
    const int newest = s.planned - 1;
    const bool current = newest >= 0 && (newest == 1 || !s.fenced);
    bool all = true;
    bool one = false;
    for (int m = 0; current && m < Members(newest); ++m) {
      const bool complete = s.results[newest][m] == All(newest);
      all = all && complete;
      one = one || complete;
    }
    const bool enough = without_ == Without::kEveryAnswer ? one : all;
    if (current && s.decided == 0 && enough) {
      State next = s;
      next.decided = static_cast<uint8_t>(s.planned);
      sink("trainer: decides", next);
    }
    for (int m = 0; s.decided != 0 && m < 2; ++m) {
      for (int round = 0; round < 2; ++round) {
        const bool named = round + 1 == s.decided;
        // Without names, and without waiting, some other round's result may be at hand.
        if (!named && without_ != Without::kNamesInApply) continue;
        if (s.applied[m] != 0 || s.results[round][m] != All(round)) continue;
        State next = s;
        next.applied[m] = static_cast<uint8_t>(round + 1);
        sink("a member applies", next);
      }
    }
  }

  const Without without_;
};

TEST(RoundModelTest, EveryInterleavingCountsOnceAndAllTakeOneResult) {
  const Walk walk = Explore(State{}, Rules(Without::kNothing));
  EXPECT_EQ(walk.wrong, "") << walk.ToString();
  EXPECT_GT(walk.finished, 0u);
}

TEST(RoundModelTest, PiecesWithoutNamesLoseAReplay) {
  const Walk walk = Explore(State{}, Rules(Without::kNamesOfPieces));
  EXPECT_THAT(walk.wrong, HasSubstr("each microbatch once")) << walk.ToString();
}

TEST(RoundModelTest, ApplyWithoutNameTakesAnotherRoundsResult) {
  const Walk walk = Explore(State{}, Rules(Without::kNamesInApply));
  EXPECT_THAT(walk.wrong, HasSubstr("different rounds")) << walk.ToString();
}

// Not needed for safety: whoever lacks the named result takes no other. It would have to reload.
TEST(RoundModelTest, DecidingEarlyIsSafeSinceApplyNamesTheRound) {
  const Walk walk = Explore(State{}, Rules(Without::kEveryAnswer));
  EXPECT_EQ(walk.wrong, "") << walk.ToString();
}

}  // namespace round_model

// --- a trainer that dies around a decision ---

// Two replicas of one stage and one microbatch. The first trainer sends it, decides and tells
// everyone, in pieces; a second one begins at any moment. What the first has said may still arrive.
namespace restart_model {

enum class Without {
  kNothing,
  kRecordFirst,  // Apply leaves before the record is on disk
  kRecord,       // the second trainer does not look at the record
  kEveryReport,  // the disk was lost, and the second trainer does not wait for all
  kEpoch         // replicas still listen to the first trainer
};

struct State {
  uint8_t sent[2];   // by trainer: 1 + the replica its microbatch is wired to
  uint8_t added[2];  // by replica: mask of trainers whose microbatch is in its segments
  uint8_t epoch[2];  // by replica
  uint8_t second;    // the second trainer has begun
  uint8_t disk_lost;
  uint8_t record;      // on disk: whose decision
  uint8_t apply[2];    // by trainer: said
  uint8_t decided[2];  // by trainer: what it says, 1 or 2
  uint8_t applied[2];  // by replica
  uint8_t counted[2];  // by trainer: what its decision counts
  uint8_t reported;    // mask
  uint8_t fenced;      // mask: silent for too long, though perhaps not dead
};

class Rules {
 public:
  explicit Rules(Without without) : without_(without) {}

  bool Done(const State& s) const { return s.applied[0] != 0 && s.applied[1] != 0; }

  std::string Wrong(const State& s) const {
    if (Done(s) && s.applied[0] != s.applied[1]) return "two decisions of one step were applied";
    for (int t = 0; t < 2; ++t) {
      if (s.counted[t] > 1) return "a decision counts the microbatch twice";
    }
    return "";
  }

  template <typename Sink>
  void Next(const State& s, Sink sink) const {
    First(s, sink);
    Second(s, sink);
    for (int r = 0; r < 2; ++r) {
      for (int t = 0; t < 2; ++t) Hear(s, r, t, sink);
    }
  }

 private:
  static int Count(unsigned mask) { return (mask & 1) + (mask >> 1 & 1); }

  template <typename Sink>
  static void Send(const State& s, int trainer, Sink sink) {
    for (int r = 0; r < 2; ++r) {
      State next = s;
      next.sent[trainer] = static_cast<uint8_t>(r + 1);
      sink(trainer == 0 ? "trainer 1: sends" : "trainer 2: sends", next);
    }
  }

  template <typename Sink>
  void First(const State& s, Sink sink) const {
    if (s.second) return;  // the lock: it is dead
    State next = s;
    if (!s.sent[0]) {
      return Send(s, 0, sink);
    }
    const int counted = Count(s.added[0]) + Count(s.added[1]);
    if (counted > 0 && s.decided[0] == 0) {
      next.decided[0] = 1;
      next.counted[0] = static_cast<uint8_t>(counted);
      return sink("trainer 1: decides", next);
    }
    if (s.decided[0] != 0 && s.record == 0) {
      next.record = 1;
      sink("trainer 1: record on disk", next);
    }
    next = s;
    if (s.decided[0] != 0 && !s.apply[0] && (s.record || without_ == Without::kRecordFirst)) {
      next.apply[0] = 1;
      sink("trainer 1: apply", next);
    }
  }

  template <typename Sink>
  void Second(const State& s, Sink sink) const {
    if (!s.second) {
      State next = s;
      next.second = 1;
      sink("trainer 2 begins", next);
      if (without_ == Without::kEveryReport) {
        next.disk_lost = 1;
        sink("trainer 2 begins, without the old disk", next);
      }
      return;
    }
    const bool sees = s.record == 1 && !s.disk_lost && without_ != Without::kRecord;
    const bool told =
        (Has(s.reported, 0) && s.applied[0] == 1) || (Has(s.reported, 1) && s.applied[1] == 1);
    State next = s;
    if (s.decided[1] != 0) {
      if (!s.apply[1]) {
        next.record = s.decided[1];
        next.apply[1] = 1;
        sink("trainer 2: record on disk, then apply", next);
      }
      return;
    }
    if (sees || told) {
      next.decided[1] = 1;
      return sink("trainer 2: finishes the old decision", next);
    }
    // kEveryReport stands for a disk that is gone: then the replicas are the record.
    for (int r = 0; r < 2 && s.reported != 0 && s.fenced == 0; ++r) {
      if (Has(s.reported, r)) continue;
      next.fenced = Bit(r);
      sink("trainer 2: fences a silent replica", next);
    }
    next = s;
    const bool all =
        (s.reported | s.fenced) == 3 || (s.reported != 0 && without_ == Without::kEveryReport);
    if (!all) return;
    if (!s.sent[1]) {
      return Send(s, 1, sink);
    }
    const int counted =
        (Has(s.reported, 0) ? Count(s.added[0]) : 0) + (Has(s.reported, 1) ? Count(s.added[1]) : 0);
    if (counted > 0) {
      next.decided[1] = 2;
      next.counted[1] = static_cast<uint8_t>(counted);
      sink("trainer 2: decides", next);
    }
  }

  template <typename Sink>
  void Hear(const State& s, int r, int t, Sink sink) const {
    const bool listens = s.epoch[r] == t || without_ == Without::kEpoch;
    State next = s;
    if (t == 1 && s.second && s.epoch[r] == 0 && !Has(s.fenced, r)) {
      next.epoch[r] = 1;
      next.added[r] = 0;
      next.reported |= Bit(r);
      sink("a replica reports to trainer 2", next);
    }
    if (!listens) return;
    next = s;
    // A repeat is known, as long as the step's work is.
    if (s.sent[t] == r + 1 && s.applied[r] == 0 && !Has(s.added[r], t)) {
      next.added[r] |= Bit(t);
      sink(t == 0 ? "a replica adds for trainer 1" : "a replica adds for trainer 2", next);
    }
    next = s;
    if (s.apply[t] && s.applied[r] == 0) {
      next.applied[r] = s.decided[t];
      sink("a replica applies", next);
    }
  }

  const Without without_;
};

Walk Walked(Without without) { return Explore(State{}, Rules(without)); }

TEST(RestartModelTest, EveryInterleavingAppliesOneDecision) {
  const Walk walk = Walked(Without::kNothing);
  EXPECT_EQ(walk.wrong, "") << walk.ToString();
  EXPECT_GT(walk.finished, 0u);
}

TEST(RestartModelTest, ApplyBeforeTheRecordEndsInTwoDecisions) {
  EXPECT_THAT(Walked(Without::kRecordFirst).wrong, HasSubstr("two decisions"));
}

TEST(RestartModelTest, ARestartThatDoesNotReadTheRecordEndsInTwoDecisions) {
  EXPECT_THAT(Walked(Without::kRecord).wrong, HasSubstr("two decisions"));
}

TEST(RestartModelTest, WithoutTheDiskNotWaitingForEveryReportEndsInTwoDecisions) {
  EXPECT_THAT(Walked(Without::kEveryReport).wrong, HasSubstr("two decisions"));
}

TEST(RestartModelTest, ListeningToTheOldTrainerCountsTwice) {
  EXPECT_THAT(Walked(Without::kEpoch).wrong, HasSubstr("twice"));
}

}  // namespace restart_model

// --- a newcomer at a decision ---

// The swarm goes from version 0 to 2 while a newcomer takes a snapshot of some version and then the
// results of the decisions since. It may be given work as soon as it counts.
namespace join_model {

enum class Without {
  kNothing,
  kVersionAtAdmission,  // whatever was loaded will do
  kVersionOfWork,       // work is run on whatever version is there
  kChain                // a result is applied whatever state it was made from
};

struct State {
  uint8_t version;    // the newest decided
  uint8_t deciding;   // a record is being written
  uint8_t snapshots;  // mask: copies on offer
  uint8_t loaded;     // 1 + the newcomer's version, 0: nothing yet
  uint8_t bits;       // what its state is made of: bit 0 the snapshot, then one per result
  uint8_t told;       // 1 + the version it reported
  uint8_t member;
  uint8_t work;    // mask of versions of which work is on its way to it
  uint8_t ran;     // 1 + the version asked for
  uint8_t ran_on;  // 1 + the version it was run on
  uint8_t took;    // results applied
  uint8_t base;    // of the snapshot
};

class Rules {
 public:
  explicit Rules(Without without) : without_(without) {}

  bool Done(const State& s) const { return s.member && s.version == 2 && s.loaded == 3; }

  std::string Wrong(const State& s) const {
    if (s.ran != 0 && s.ran != s.ran_on) return "work was run on another version than it names";
    if (s.loaded != 0 && s.loaded - 1 != s.base + s.took) return "the state skipped a result";
    return "";
  }

  template <typename Sink>
  void Next(const State& s, Sink sink) const {
    State next = s;
    if (!s.deciding && s.version < 2) {
      next.deciding = 1;
      sink("trainer: decides", next);
    }
    next = s;
    if (s.deciding) {
      next.deciding = 0;
      ++next.version;
      sink("trainer: the record is on disk", next);
    }
    next = s;
    next.snapshots |= Bit(s.version);
    sink("a donor takes a snapshot", next);
    for (int v = 0; v < 3 && s.loaded == 0; ++v) {
      if (!Has(s.snapshots, v)) continue;
      next = s;
      next.loaded = static_cast<uint8_t>(v + 1);
      next.base = static_cast<uint8_t>(v);
      sink("newcomer: loads a snapshot", next);
    }
    // The result that makes version v, recorded by the members.
    for (int v = 1; v <= s.version && s.loaded != 0; ++v) {
      const bool chained = s.loaded == v;  // its state is v - 1
      if (!chained && (without_ != Without::kChain || s.loaded > v)) continue;
      next = s;
      next.loaded = static_cast<uint8_t>(v + 1);
      ++next.took;
      sink("newcomer: applies a result", next);
    }
    if (s.loaded != 0 && s.told != s.loaded) {
      next = s;
      next.told = s.loaded;
      sink("newcomer: reports", next);
    }
    const bool current = s.told == s.version + 1 || without_ == Without::kVersionAtAdmission ||
                         without_ == Without::kVersionOfWork;
    if (!s.member && s.told != 0 && !s.deciding && current) {
      next = s;
      next.member = 1;
      sink("trainer: it counts", next);
    }
    if (s.member && !s.deciding && !Has(s.work, s.version)) {
      next = s;
      next.work |= Bit(s.version);
      sink("trainer: sends work", next);
    }
    for (int v = 0; v < 3; ++v) {
      if (!Has(s.work, v) || s.loaded == 0) continue;
      if (s.loaded != v + 1 && without_ != Without::kVersionOfWork &&
          without_ != Without::kVersionAtAdmission) {
        continue;  // early: it waits; late: it is refused
      }
      next = s;
      next.ran = static_cast<uint8_t>(v + 1);
      next.ran_on = s.loaded;
      sink("newcomer: runs it", next);
    }
  }

 private:
  const Without without_;
};

Walk Walked(Without without) { return Explore(State{}, Rules(without)); }

TEST(JoinModelTest, EveryInterleavingRunsWorkOnItsVersion) {
  const Walk walk = Walked(Without::kNothing);
  EXPECT_EQ(walk.wrong, "") << walk.ToString();
  EXPECT_GT(walk.finished, 0u);
}

TEST(JoinModelTest, ServingBeforeCaughtUpRunsWorkOnAnotherVersion) {
  EXPECT_THAT(Walked(Without::kVersionAtAdmission).wrong, HasSubstr("another version"));
}

TEST(JoinModelTest, WorkThatDoesNotNameItsVersionRunsOnAnother) {
  EXPECT_THAT(Walked(Without::kVersionOfWork).wrong, HasSubstr("another version"));
}

TEST(JoinModelTest, ResultsThatAreNotChainedLeaveAGap) {
  EXPECT_THAT(Walked(Without::kChain).wrong, HasSubstr("skipped a result"));
}

}  // namespace join_model
}  // namespace
}  // namespace starling::model
