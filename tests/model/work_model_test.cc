// A model of docs/architecture.md, "A microbatch's way" and "The end of a step": one microbatch,
// stages of 1, 2 and 2 replicas, one of which is suspected, a busy refusal, an inquiry with a
// contested splice, a fence with an uncontested one, two seals, and the reading of what was sealed.
// No replica ever has to do anything: so every one of them may be slow, silent or dead. It is
// written from the rules alone and shares no code with the runtime: what is tested here is the
// protocol. Leaving out one rule must count the microbatch twice.
//
// The picker of the model trusts the baton: it takes every main segment without looking whether
// two overlap. (The real one looks, and repairs.)
#include <cstdint>
#include <iostream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/explorer.h"

namespace starling::model {
namespace {

constexpr int kReplicas = 5;  // 0: stage 0; 1, 2: stage 1; 3, 4: stage 2
constexpr int kNone = 7;
constexpr int kStage[] = {0, 1, 1, 2, 2};
constexpr int kOther[] = {0, 2, 1, 4, 3};  // the stage's other replica
constexpr int kOffers = 3;                 // that a replica makes at most

enum Phase : uint8_t { kNot, kOpen, kAdded };

struct Held {
  uint8_t phase;
  uint8_t contested;
  uint8_t upstreams;        // mask of replicas that get the gradient
  uint8_t downs;            // mask of replicas it went to
  uint8_t down;             // the last of them, or kNone
  uint8_t offers;           // made so far
  uint8_t until;            // of whom the gradient is claimed instead of passing on, or kNone
  uint8_t offer_contested;  // what its offers carry: a refused one is made again as it was
  uint8_t offer_until;
  uint8_t seals;  // answered before it was added
};

struct Answer {  // to a fence or an inquiry
  uint8_t phase;
  uint8_t down;
};

struct State {
  // Everything said so far
  uint64_t forwards;    // ForwardBit
  uint32_t refusals;    // pair * kOffers + offer
  uint32_t remembered;  // likewise, by who refused
  uint8_t backwards;    // by pair
  uint8_t claims;       // by pair
  uint8_t resends;      // bit 0: the contested one, bit 1: the one after the fence
  uint8_t sealing;      // number of the newest seal; 0: none
  // Replicas
  Held held[kReplicas];
  uint8_t seals[kReplicas];  // answered
  uint8_t promised;          // mask: shuns the suspect
  uint8_t busy_used;
  uint8_t resends_heard;
  // Trainer
  uint8_t suspect;
  uint8_t inquiring;
  uint8_t fenced;
  uint8_t stale;      // seals up to this one were answered before the fence
  uint8_t contested;  // the attempt is, from now on
  uint8_t told;       // mask: answered the inquiry
  Answer answers[kReplicas];
  Answer promises[kReplicas];
  uint8_t resend_to[2];
  uint8_t resend_until[2];
  uint8_t answered;          // mask, the seal
  uint8_t listed_main;       // mask, in the answers
  uint8_t listed_contested;  // likewise
  uint8_t reading;           // the plan is out
  uint8_t picked;            // mask of contested segments
  uint8_t read;
  uint8_t counted[3];  // by stage
  uint8_t unused[3];
};

State Start(int suspect) {
  State s{};
  for (Held& held : s.held) held.down = held.until = held.offer_until = kNone;
  s.held[0].phase = kOpen;  // the trainer's one uncontested send has arrived
  s.suspect = static_cast<uint8_t>(suspect);
  return s;
}

int PairOf(int upstream, int downstream) {
  return upstream == 0 ? downstream - 1 : 2 * upstream + downstream - 3;
}

uint64_t ForwardBit(int pair, int offer, bool contested, int until) {
  const int below = until == kNone ? 0 : until - 2;  // 0, 1, 2; only towards stage 1
  const int bit = pair < 2 ? ((pair * kOffers + offer) * 2 + contested) * 3 + below
                           : 36 + ((pair - 2) * kOffers + offer) * 2 + contested;
  return uint64_t{1} << bit;
}

bool Has(unsigned mask, int bit) { return (mask >> bit & 1) != 0; }
uint8_t Bit(int bit) { return static_cast<uint8_t>(1 << bit); }

// One rule left out.
enum class Without {
  kNothing,
  kSeal,              // what is added after the answer is read too
  kBaton,             // contested work is passed on, and added, as if it were not
  kPromise,           // a fence is answered, but the fenced is still listened to
  kWaiting,           // the trainer splices before everyone has promised
  kUntil,             // a splice that was refused is offered again as if it were new work
  kRefusalRemembered  // a repeat of an offer that was refused may be accepted
};

// All of it at once has too many states: each test takes what belongs together.
struct Model {
  int suspect = 1;
  bool inquiry = false;
  bool fence = false;
  bool busy = false;
  int seals = 1;
};

class Rules {
 public:
  Rules(Model model, Without without) : model_(model), without_(without) {}

  bool Done(const State& s) const { return s.read != 0; }

  std::string Wrong(const State& s) const {
    for (int stage = 0; Done(s) && stage < 3; ++stage) {
      if (s.counted[stage] != 1) {
        return "stage " + std::to_string(stage) + " counts the microbatch " +
               std::to_string(s.counted[stage]) + " times";
      }
    }
    return "";
  }

  template <typename Sink>
  void Next(const State& s, Sink sink) const {
    if (Done(s)) return;
    for (int r = 0; r < kReplicas; ++r) {
      PassOn(s, r, sink);
      HearForwards(s, r, sink);
      HearGradients(s, r, sink);
      HearTrainer(s, r, sink);
    }
    Repair(s, sink);
    EndStep(s, sink);
  }

 private:
  static uint8_t Members(const State& s) {
    return static_cast<uint8_t>(s.fenced ? 31 & ~Bit(s.suspect) : 31);
  }
  bool Shuns(const State& s, int r, int other) const {
    return other == s.suspect && Has(s.promised, r) && without_ != Without::kPromise;
  }

  // Whose answers to an inquiry matter.
  static uint8_t Neighbours(const State& s) { return kStage[s.suspect] == 1 ? 1 | 8 | 16 : 2 | 4; }
  // What the trainer makes use of; the rest would only be more states.
  static Answer AnswerOf(const State& s, int r) {
    const Held& held = s.held[r];
    if (kStage[r] + 1 == kStage[s.suspect] && held.phase != kNot) return {held.phase, held.down};
    return {static_cast<uint8_t>(kStage[r] == kStage[s.suspect] + 1 && held.phase != kNot), 0};
  }

  static void Add(State* s, int r) {
    Held& held = s->held[r];
    held.phase = kAdded;
    held.seals = s->seals[r];
    for (int up = 0; up < kReplicas; ++up) {
      if (Has(held.upstreams, up)) s->backwards |= Bit(PairOf(up, r));
    }
  }

  static void Ask(State* s, int r, int upstream) {  // for the gradient
    s->held[r].upstreams |= Bit(upstream);
    if (s->held[r].phase == kAdded) s->backwards |= Bit(PairOf(upstream, r));
  }

  bool Offer(State* s, int r, int to, bool contested, int until) const {
    Held& held = s->held[r];
    if (held.offers == kOffers) return false;
    held.offer_contested = contested;
    held.offer_until = static_cast<uint8_t>(until);
    s->forwards |= ForwardBit(PairOf(r, to), held.offers, contested, until);
    held.down = static_cast<uint8_t>(to);
    held.downs |= Bit(to);
    ++held.offers;
    return true;
  }

  template <typename Sink>
  void PassOn(const State& s, int r, Sink sink) const {
    const Held& held = s.held[r];
    if (held.phase != kOpen) return;
    if (kStage[r] == 2) {
      State next = s;
      Add(&next, r);
      return sink("the last stage adds", next);
    }
    if (held.down != kNone) return;
    for (int to = 1; to < kReplicas; ++to) {
      if (kStage[to] != kStage[r] + 1 || Shuns(s, r, to)) continue;
      State next = s;
      if (held.until != kNone) {
        if (to != held.until) continue;
        next.held[r].down = held.until;
        next.held[r].downs |= Bit(to);
        next.claims |= Bit(PairOf(r, to));
        sink("claims the gradient below", next);
      } else if (Offer(&next, r, to, held.contested || held.offer_contested,
                       without_ == Without::kUntil ? kNone : held.offer_until)) {
        sink("passes on", next);
      }
    }
  }

  template <typename Sink>
  void HearForwards(const State& s, int r, Sink sink) const {
    for (int from = 0; from < kReplicas; ++from) {
      if (kStage[from] + 1 != kStage[r] || Shuns(s, r, from)) continue;
      for (int offer = 0; offer < kOffers; ++offer) {
        for (int contested = 0; contested < 2; ++contested) {
          for (int until : {kNone, 3, 4}) {
            if (until != kNone && kStage[r] == 2) continue;
            const uint64_t bit = ForwardBit(PairOf(from, r), offer, contested != 0, until);
            if ((s.forwards & bit) != 0) HearForward(s, r, from, offer, contested, until, sink);
          }
        }
      }
    }
  }

  template <typename Sink>
  void HearForward(const State& s, int r, int from, int offer, int contested, int until,
                   Sink sink) const {
    State next = s;
    const uint32_t name = uint32_t{1} << (PairOf(from, r) * kOffers + offer);
    if (s.held[r].phase != kNot) {
      Ask(&next, r, from);
      return sink("hears of it again", next);
    }
    if ((s.remembered & name) != 0) return;
    if (model_.busy && !s.busy_used) {
      next.busy_used = 1;
      next.refusals |= name;
      if (without_ != Without::kRefusalRemembered) next.remembered |= name;
      sink("refuses: busy", next);
      next = s;
    }
    Held& held = next.held[r];
    held.phase = kOpen;
    held.contested = static_cast<uint8_t>(without_ == Without::kBaton ? 0 : contested);
    held.upstreams = Bit(from);
    held.until = static_cast<uint8_t>(until);
    sink(contested ? "accepts, contested" : "accepts", next);
  }

  template <typename Sink>
  void HearGradients(const State& s, int r, Sink sink) const {
    for (int other = 0; other < kReplicas; ++other) {
      if (Shuns(s, r, other)) continue;
      if (kStage[other] == kStage[r] + 1 && Has(s.backwards, PairOf(r, other)) &&
          s.held[r].phase == kOpen && Has(s.held[r].downs, other)) {
        State next = s;
        Add(&next, r);
        sink("gets the gradient and adds", next);
      }
      if (kStage[other] + 1 == kStage[r] && other != 0 && Has(s.claims, PairOf(other, r)) &&
          s.held[r].phase != kNot) {
        State next = s;
        Ask(&next, r, other);
        sink("hears a claim", next);
      }
    }
  }

  template <typename Sink>
  void HearTrainer(const State& s, int r, Sink sink) const {
    const Held& held = s.held[r];
    for (int offer = 0; offer < kOffers; ++offer) {
      if (held.phase != kOpen || held.down == kNone || held.until != kNone) break;
      if (offer + 1 != held.offers || Shuns(s, r, held.down)) continue;
      if ((s.refusals >> (PairOf(r, held.down) * kOffers + offer) & 1) == 0) continue;
      State next = s;
      next.held[r].down = kNone;
      sink("hears the refusal", next);
    }
    if (s.inquiring && Has(Neighbours(s), r) && !Has(s.told, r)) {
      State next = s;
      next.told |= Bit(r);
      next.answers[r] = AnswerOf(s, r);
      sink("answers the inquiry", next);
    }
    if (s.fenced && r != s.suspect && !Has(s.promised, r)) {
      State next = s;
      next.promised |= Bit(r);
      next.promises[r] = AnswerOf(s, r);
      sink("promises", next);
    }
    for (int k = 0; k < 2; ++k) {
      if (!Has(s.resends, k) || Has(s.resends_heard, k) || s.resend_to[k] != r) continue;
      State next = s;
      next.resends_heard |= Bit(k);
      // Only in place of the suspect: it may have gone elsewhere since the trainer was told.
      if (held.down == s.suspect) {
        Offer(&next, r, kOther[s.suspect], k == 0 || s.contested || held.contested,
              s.resend_until[k]);
      }
      sink(k == 0 ? "resends, contested" : "resends after the fence", next);
    }
    if (s.sealing > s.seals[r]) {
      State next = s;
      next.seals[r] = s.sealing;
      next.answered |= Bit(r);
      if (held.phase == kAdded)
        (held.contested ? next.listed_contested : next.listed_main) |= Bit(r);
      sink("seals", next);
    }
  }

  // Where the path has its gap, from answers: who sends again, and whose gradient is claimed.
  static bool FindGap(const State& s, const Answer* answers, int* to, int* until) {
    *until = kNone;
    for (int u = 0; u < kReplicas; ++u) {
      if (kStage[u] + 1 != kStage[s.suspect] || answers[u].phase == kNot) continue;
      if (answers[u].down != s.suspect) continue;
      *to = u;
      for (int d = kReplicas - 1; d > 2; --d) {
        if (kStage[d] == kStage[s.suspect] + 1 && answers[d].phase != kNot) *until = d;
      }
      return true;
    }
    return false;
  }

  template <typename Sink>
  void Repair(const State& s, Sink sink) const {
    const uint8_t others = static_cast<uint8_t>(31 & ~Bit(s.suspect));
    if (model_.inquiry && !s.inquiring && !s.fenced) {
      State next = s;
      next.inquiring = 1;
      sink("trainer: who has it?", next);
    }
    if (model_.fence && !s.fenced && s.sealing < model_.seals) {
      State next = s;
      next.fenced = 1;
      next.reading = next.picked = 0;
      next.stale = s.sealing;
      sink("trainer: fences the suspect", next);
    }
    if (s.told == Neighbours(s) && !Has(s.resends, 0) && !s.fenced) {
      Splice(s, s.answers, 0, "trainer: splices, contested", sink);
    }
    const bool all =
        without_ == Without::kWaiting ? s.told == Neighbours(s) : (s.promised & others) == others;
    if (s.fenced && all && !Has(s.resends, 1)) {
      Splice(s, without_ == Without::kWaiting ? s.answers : s.promises, 1,
             "trainer: splices after the fence", sink);
    }
  }

  template <typename Sink>
  static void Splice(const State& s, const Answer* answers, int k, const char* label, Sink sink) {
    int to = 0;
    int until = kNone;
    if (!FindGap(s, answers, &to, &until)) return;
    State next = s;
    next.resends |= Bit(k);
    next.resend_to[k] = static_cast<uint8_t>(to);
    next.resend_until[k] = static_cast<uint8_t>(until);
    if (k == 0) next.contested = 1;
    sink(label, next);
  }

  template <typename Sink>
  void EndStep(const State& s, Sink sink) const {
    const uint8_t members = Members(s);
    const bool answered = (s.answered & members) == members && s.sealing > s.stale;
    if (!s.reading && s.sealing < model_.seals && (s.sealing == s.stale || answered)) {
      State next = s;
      ++next.sealing;
      next.answered = next.listed_main = next.listed_contested = 0;
      sink("trainer: seals", next);
    }
    State next = s;
    if (s.reading) {
      Read(&next, members);
      return sink("the segments are read", next);
    }
    if (!answered) return;
    for (int stage = 0; stage < 3; ++stage) {
      bool covered = false;
      for (int r = 0; r < kReplicas; ++r) {
        if (kStage[r] == stage && Has(s.listed_main & members, r)) covered = true;
      }
      for (int r = 0; r < kReplicas && !covered; ++r) {
        if (kStage[r] != stage || !Has(s.listed_contested & members, r)) continue;
        next.picked |= Bit(r);
        covered = true;
      }
      if (!covered) return;
    }
    next.reading = 1;
    sink("trainer: picks", next);
  }

  void Read(State* s, uint8_t members) const {
    s->read = 1;
    for (int r = 0; r < kReplicas; ++r) {
      const Held& held = s->held[r];
      const bool frozen = held.seals < s->sealing || without_ == Without::kSeal;
      if (!Has(members, r) || held.phase != kAdded || !frozen) continue;
      if (!held.contested || Has(s->picked, r)) ++s->counted[kStage[r]];
    }
  }

  const Model model_;
  const Without without_;
};

Walk Walked(Model model, Without without) {
  return Explore(Start(model.suspect), Rules(model, without));
}

struct Case {
  const char* name;
  Model model;
  Without without = Without::kNothing;
};

void PrintTo(const Case& one, std::ostream* out) { *out << one.name; }

class WorkModelTest : public testing::TestWithParam<Case> {};

TEST_P(WorkModelTest, EveryInterleavingCountsTheMicrobatchOnce) {
  const Walk walk = Walked(GetParam().model, Without::kNothing);
  EXPECT_EQ(walk.wrong, "") << walk.ToString();
  EXPECT_GT(walk.finished, 0u);
  std::cout << walk.states << " states, " << walk.finished << " with a decision\n";
}

// Suspect, inquiry, fence, busy, seals
constexpr Model kFence{1, false, true, false, 2};
constexpr Model kFenceAtTheEnd{3, false, true, false, 2};
constexpr Model kFenceBusy{1, false, true, true, 1};
constexpr Model kFenceBusyAtTheEnd{3, false, true, true, 1};
constexpr Model kInquiry{1, true, false, false, 2};
constexpr Model kInquiryAtTheEnd{3, true, false, false, 2};
constexpr Model kInquiryThenFence{1, true, true, false, 1};
constexpr Model kInquiryThenFenceAtTheEnd{3, true, true, false, 1};

INSTANTIATE_TEST_SUITE_P(
    Cases, WorkModelTest,
    testing::Values(Case{"Fence", kFence}, Case{"FenceAtTheEnd", kFenceAtTheEnd},
                    Case{"FenceBusy", kFenceBusy}, Case{"FenceBusyAtTheEnd", kFenceBusyAtTheEnd},
                    Case{"Inquiry", kInquiry}, Case{"InquiryAtTheEnd", kInquiryAtTheEnd},
                    Case{"InquiryThenFence", kInquiryThenFence},
                    Case{"InquiryThenFenceAtTheEnd", kInquiryThenFenceAtTheEnd}),
    [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

class WorkModelWithoutTest : public testing::TestWithParam<Case> {};

TEST_P(WorkModelWithoutTest, TheMicrobatchIsCountedTwice) {
  const Walk walk = Walked(GetParam().model, GetParam().without);
  EXPECT_THAT(walk.wrong, testing::HasSubstr("counts the microbatch 2 times")) << walk.ToString();
}

INSTANTIATE_TEST_SUITE_P(
    Rules, WorkModelWithoutTest,
    testing::Values(Case{"TheSeal", kInquiry, Without::kSeal},
                    Case{"TheBaton", kInquiry, Without::kBaton},
                    Case{"ThePromise", kFence, Without::kPromise},
                    Case{"WaitingForThePromises", kInquiryThenFence, Without::kWaiting},
                    Case{"TheSpliceInASecondOffer", kFenceBusy, Without::kUntil},
                    Case{"RememberingRefusals", kFenceBusy, Without::kRefusalRemembered}),
    [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

}  // namespace
}  // namespace starling::model
