// An exhaustive small model of fences and splices: three stages, two replicas each, one microbatch.
// The replicas are real StageServers, the repairs a real Ledger's; the network, the device and the
// trainer's part are the model's. Every way the messages, the device, the deaths and the answers to
// a fence can interleave is walked, with up to three deaths, in the midst of fences and repairs
// too. Wherever it ends, every stage has been added exactly once by replicas that live, nobody
// waits, and the repairs have counted as lost what was lost.
//
// A state is reached by playing its actions from the beginning; states that look the same are
// walked on from once.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/trainer/ledger.h"
#include "stages/stage_server.h"

namespace starling {
namespace {

constexpr uint32_t kStages = 3;
constexpr int kReplicas = 2 * kStages;
constexpr int kTrainer = -1;
constexpr Step kStep{1};

// Replica r serves stage r / 2.
uint32_t StageOf(int replica) { return static_cast<uint32_t>(replica) / 2; }
Incarnation NameOf(int replica) { return {Epoch{1}, static_cast<uint32_t>(replica + 1)}; }
int ReplicaOf(Incarnation name) { return static_cast<int>(name.counter) - 1; }

struct Setting {
  uint64_t log_budget_bytes = 1000;
  int times = 2;  // that someone dies
  bool two_at_once = false;
};

// Operations wait until the model lets them be done.
class ModelCompute : public Compute {
 public:
  int64_t size() const override { return 1; }
  void Forward(ForwardInput input, Done<ForwardOutput> done) override {
    pending.push_back({absl::StrCat("f", input.work.attempt.counter), [done] {
                         ForwardOutput output;
                         output.output = Blob::OfFloats({1});
                         done(std::move(output));
                       }});
  }
  void Backward(BackwardInput input, Done<BackwardOutput> done) override {
    pending.push_back({absl::StrCat("b", input.work.attempt.counter), [this, input, done] {
                         if (input.segment) added.push_back(input.work.attempt);
                         BackwardOutput output;
                         if (input.want_input_gradient) output.input_gradient = Blob::OfFloats({2});
                         done(std::move(output));
                       }});
  }
  void Drop(WorkId) override {}
  void Decode(Blob, Done<Blob>) override {}
  void Encode(Blob, Coding, Done<Blob>) override {}
  void Seal(Step, Done<std::vector<SegmentSummary>>) override {}
  void Read(Step, std::vector<SegmentId>, Done<SegmentSum>) override {}
  void FreeThrough(Step) override {}
  void Apply(UpdateScalars, std::vector<Blob>, Done<Hash128>) override {}
  void Snapshot(Done<Blob>) override {}
  void Load(Blob, Done<Hash128>) override {}

  std::deque<std::pair<std::string, std::function<void()>>> pending;
  std::vector<AttemptId> added;
};

class World {
 public:
  explicit World(const Setting& setting) : setting_(setting), ledger_(kStages, 1) {
    for (int r = 0; r < kReplicas; ++r) {
      Node& node = nodes_[r];
      node.links.world = this;
      node.links.self = r;
      StageServer::Options options;
      options.stage = StageId{StageOf(r)};
      options.stage_count = kStages;
      options.log_budget_bytes = setting.log_budget_bytes;
      node.server = std::make_unique<StageServer>(options, &node.compute, &node.links);
      node.server->Reset(Version{0});
    }
    SendFromTrainer(std::nullopt);
  }

  // What may happen next, in words that say it all.
  std::vector<std::string> Actions() const {
    std::vector<std::string> actions;
    for (const auto& [what, deliver] : messages_) actions.push_back("deliver " + what);
    for (int r = 0; r < kReplicas; ++r) {
      if (nodes_[r].alive && !nodes_[r].compute.pending.empty()) {
        actions.push_back(absl::StrCat("compute ", r));
      }
      if (fencing_ && nodes_[r].alive && answers_.count(NameOf(r)) == 0) {
        actions.push_back(absl::StrCat("answer ", r));
      }
    }
    // It takes a while until everyone is asked once more: something else happens, if it can.
    if (ask_again_ && !fencing_ && (moved_ || actions.empty())) actions.push_back("ask");
    AddDeaths(&actions);
    return actions;
  }

  void Do(const std::string& action) {
    if (action == "ask") return BeginFence();
    moved_ = moved_ || action[0] == 'd' || action[0] == 'c';
    if (action.rfind("deliver ", 0) == 0) return Deliver(action.substr(8));
    const int first = action[action.find(' ') + 1] - '0';
    if (action.rfind("compute", 0) == 0) {
      auto operation = std::move(nodes_[first].compute.pending.front().second);
      nodes_[first].compute.pending.pop_front();
      operation();
    } else if (action.rfind("answer", 0) == 0) {
      Answer(first);
    } else {
      std::vector<int> dead = {first};
      if (action.back() - '0' != first) dead.push_back(action.back() - '0');
      Die(dead);
    }
  }

  std::string Key() const {
    std::string key = absl::StrCat(deaths_, fencing_ ? "F" : "-", ask_again_ ? "A" : "-",
                                   moved_ ? "m" : "-", "|", history_, "|");
    for (const Node& node : nodes_) {
      if (!node.alive) {
        key += "dead;";
        continue;
      }
      key += Looks(&node);
      for (const auto& [what, operation] : node.compute.pending) key += what;
      for (const AttemptId& attempt : node.compute.added)
        absl::StrAppend(&key, "+", attempt.counter);
      key += node.log + ";";
    }
    for (const auto& [what, deliver] : messages_) key += what + ",";
    for (const auto& [holder, answer] : answers_) {
      absl::StrAppend(&key, "<", holder.counter, Describe(answer.held));
    }
    return key;
  }

  // Nothing can happen any more.
  void Judge(const std::string& how) const {
    for (uint32_t stage = 0; stage < kStages; ++stage) {
      size_t added = 0;
      for (int r = 0; r < kReplicas; ++r) {
        if (StageOf(r) == stage && nodes_[r].alive) added += nodes_[r].compute.added.size();
      }
      EXPECT_EQ(added, 1u) << "stage " << stage << " after " << how;
    }
    for (int r = 0; r < kReplicas; ++r) {
      if (!nodes_[r].alive) continue;
      EXPECT_EQ(nodes_[r].server->load().queued, 0u) << "replica " << r << " waits after " << how;
    }
  }

  size_t repairs() const { return repairs_; }
  bool exhausted() const { return fence_number_ > 20 || next_attempt_ > 40; }
  // Of one death at a time: what the repairs said was lost, and what was.
  uint32_t counted_lost() const { return counted_lost_; }
  uint32_t really_lost() const { return static_cast<uint32_t>(lost_at_.size()); }
  bool one_by_one() const { return one_by_one_; }

 private:
  class Links : public StageLinks {
   public:
    std::optional<Incarnation> ChooseNext(std::optional<Incarnation> avoid) override {
      const int first = 2 * (static_cast<int>(StageOf(self)) + 1);
      for (int to : {first, first + 1}) {
        if (world->nodes_[self].refuses.count(to) == 0 && avoid != NameOf(to)) return NameOf(to);
      }
      return std::nullopt;
    }
    void SendForward(Incarnation to, Forward forward, Answered accepted) override {
      const std::string what = absl::StrCat("F", forward.work.attempt.counter);
      world->Post(what, self, ReplicaOf(to), [=](World* w) {
        const auto code = w->Server(to).OnForward(NameOf(self), forward);
        if (w->nodes_[self].alive) accepted(code);
      });
    }
    void NextFinished(Incarnation) override {}
    bool SendClaim(Incarnation to, const Claim& claim, Answered answered) override {
      const std::string what =
          absl::StrCat("C", claim.as.counter, "of", claim.work.attempt.counter);
      world->Post(what, self, ReplicaOf(to), [=](World* w) {
        const auto code = w->Server(to).OnClaim(NameOf(self), claim);
        absl::StrAppend(&w->nodes_[ReplicaOf(to)].log, what, code == absl::StatusCode::kOk);
        if (w->nodes_[self].alive) answered(code);
      });
      return true;
    }
    void SendBackward(Incarnation to, Backward backward) override {
      world->Post(absl::StrCat("B", backward.work.attempt.counter), self, ReplicaOf(to),
                  [=](World* w) { w->Server(to).OnBackward(NameOf(self), backward); });
    }
    void Notify(Notice notice) override {
      if (notice.progress == Progress::kUnclaimed) world->ask_again_ = true;
      if (notice.progress != Progress::kAdded) return;
      world->ledger_.OnAdded(0, notice.work.attempt, StageId{StageOf(self)}, NameOf(self));
      absl::StrAppend(&world->history_, "+", self, "of", notice.work.attempt.counter);
    }
    void DeviceFailed(const absl::Status& status) override { FAIL() << status; }

    World* world = nullptr;
    int self = 0;
  };
  struct Node {
    bool alive = true;
    std::set<int> refuses;  // it has promised to have nothing to do with these
    std::string log;        // what a report does not show
    ModelCompute compute;
    Links links;
    std::unique_ptr<StageServer> server;
  };

  StageServer& Server(Incarnation name) { return *nodes_[ReplicaOf(name)].server; }

  static std::string Describe(const std::vector<HeldWork>& works) {
    std::string text;
    for (const HeldWork& held : works) {
      absl::StrAppend(&text, "[", held.work.attempt.counter, "s", static_cast<int>(held.state), "u",
                      held.upstream.counter, "d", held.downstream ? held.downstream->counter : 0,
                      "n", held.downstream_attempt.counter, held.output_kept ? "o" : "",
                      held.gradient_kept ? "g" : "", held.claims ? "c" : "", "]");
    }
    return text;
  }
  // An old fence without anyone in it changes nothing.
  static std::string Looks(const Node* node) {
    return Describe(node->server->OnFence({0, kStep, {}}).held);
  }

  void Post(const std::string& what, int from, int to, std::function<void(World*)> deliver) {
    if (to != kTrainer && !nodes_[to].alive) return;
    messages_.emplace(absl::StrCat(what, " ", from, ">", to), [this, to, deliver] {
      if (nodes_[to].alive) deliver(this);
    });
  }

  void Deliver(const std::string& what) {
    const auto it = messages_.find(what);
    auto deliver = std::move(it->second);
    messages_.erase(it);
    deliver();
  }

  // Up to two die at once the first time, one the second; never the last of a stage.
  void AddDeaths(std::vector<std::string>* actions) const {
    if (deaths_ >= setting_.times) return;
    // After the first, only of those that have something to lose.
    const auto may_die = [&](int r) {
      return nodes_[r].alive && nodes_[r ^ 1].alive && (deaths_ == 0 || !Looks(&nodes_[r]).empty());
    };
    for (int a = 0; a < kReplicas; ++a) {
      for (int b = a; b < kReplicas; ++b) {
        if (!may_die(a) || !may_die(b) || (b == a + 1 && StageOf(a) == StageOf(b))) continue;
        if (!setting_.two_at_once && a != b) continue;
        actions->push_back(absl::StrCat("die ", a, b));
      }
    }
  }

  void Die(const std::vector<int>& dead) {
    ++deaths_;
    one_by_one_ = one_by_one_ && deaths_ == 1 && dead.size() == 1;
    for (int r : dead) {
      Node& node = nodes_[r];
      const FenceAck had = node.server->OnFence({0, kStep, {}});
      if (!had.held.empty()) lost_at_.insert(r);
      node.alive = false;
      const std::string target = absl::StrCat(">", r);
      for (auto it = messages_.begin(); it != messages_.end();) {
        const bool to_it = it->first.substr(it->first.size() - 2) == target;
        it = to_it ? messages_.erase(it) : std::next(it);
      }
    }
    BeginFence();
  }

  void BeginFence() {
    fencing_ = true;
    ask_again_ = moved_ = false;
    ++fence_number_;
    answers_.clear();
  }

  void Answer(int r) {
    Node& node = nodes_[r];
    Fence fence;
    fence.number = fence_number_;
    fence.step = kStep;
    for (int dead = 0; dead < kReplicas; ++dead) {
      if (nodes_[dead].alive) continue;
      node.refuses.insert(dead);
      fence.fenced.push_back(NameOf(dead));
    }
    answers_[NameOf(r)] = {StageId{StageOf(r)}, node.server->OnFence(fence).held};
    node.server->RetrySends();
    const auto alive =
        std::count_if(nodes_.begin(), nodes_.end(), [](const Node& n) { return n.alive; });
    if (static_cast<std::ptrdiff_t>(answers_.size()) == alive) Repair();
  }

  void Repair() {
    ++repairs_;
    fencing_ = false;
    const Ledger::Repair repair = ledger_.Resolve(answers_);
    for (const auto& [holder, answer] : answers_) {
      absl::StrAppend(&history_, "<", holder.counter, Describe(answer.held));
    }
    history_ += "/";
    answers_.clear();
    counted_lost_ += repair.lost_pairs;
    ask_again_ = ask_again_ || repair.ask_again;
    for (const Ledger::HolderWork& cancel : repair.cancels) {
      Post(absl::StrCat("X", cancel.work.attempt.counter, "n", fence_number_), kTrainer,
           ReplicaOf(cancel.holder), [cancel, number = fence_number_](World* w) {
             w->Server(cancel.holder).OnCancel({{cancel.work}, number});
           });
    }
    for (const Ledger::Splice& splice : repair.splices) {
      EXPECT_FALSE(splice.contested);
      if (!splice.from) {
        SendFromTrainer(splice);
        continue;
      }
      const AttemptId attempt{{Epoch{1}, 0}, next_attempt_++};
      ledger_.OnSpliced(splice, attempt);
      Resend resend;
      resend.number = fence_number_;
      resend.works.push_back({splice.from->work, attempt, splice.add_at, splice.until, false});
      Post(absl::StrCat("R", attempt.counter), kTrainer, ReplicaOf(splice.from->holder),
           [resend, to = splice.from->holder](World* w) {
             const absl::StatusCode code = w->Server(to).OnResend(resend);
             absl::StrAppend(&w->nodes_[ReplicaOf(to)].log, "R", resend.works[0].as.counter);
             if (code != absl::StatusCode::kOk && resend.number == w->fence_number_) {
               w->ask_again_ = true;
             }
           });
    }
  }

  void SendFromTrainer(const std::optional<Ledger::Splice>& splice) {
    Forward forward;
    forward.work = {{kStep, WorkKind::kTrain, 0}, {{Epoch{1}, 0}, next_attempt_++}};
    forward.input = forward.targets = Blob::OfFloats({0});
    forward.gradient_wanted = false;
    if (splice) {
      forward.replay = true;
      forward.add_at = splice->add_at;
      forward.until = splice->until;
    }
    const int to = nodes_[0].alive ? 0 : 1;
    ledger_.OnSent(0, forward.work.attempt, NameOf(to), splice ? &*splice : nullptr);
    Post(absl::StrCat("F", forward.work.attempt.counter), kTrainer, to, [forward, to](World* w) {
      w->nodes_[to].server->OnForward({Epoch{1}, 0}, forward);
      w->ledger_.OnAccepted(0, forward.work.attempt);
    });
  }

  const Setting setting_;
  Ledger ledger_;
  std::array<Node, kReplicas> nodes_;
  std::multimap<std::string, std::function<void()>> messages_;  // by what, from and to
  Ledger::FenceAnswers answers_;
  bool fencing_ = false;
  bool ask_again_ = false;
  bool moved_ = false;  // since everyone was asked last
  uint64_t fence_number_ = 0;
  uint32_t next_attempt_ = 1;
  int deaths_ = 0;
  bool one_by_one_ = true;
  uint32_t counted_lost_ = 0;
  std::set<int> lost_at_;  // the dead that had it
  size_t repairs_ = 0;
  std::string history_;  // stands for what the ledger was told
};

class Explorer {
 public:
  explicit Explorer(Setting setting) : setting_(std::move(setting)) {}

  void Explore() { Visit(std::make_unique<World>(setting_)); }
  size_t states() const { return seen_.size(); }
  size_t ends() const { return ends_; }
  size_t repaired() const { return repaired_; }

 private:
  std::unique_ptr<World> Play() const {
    auto world = std::make_unique<World>(setting_);
    for (const std::string& action : path_) world->Do(action);
    return world;
  }

  std::string How() const {
    std::string how;
    for (const std::string& action : path_) how += "\n  " + action;
    return how;
  }

  void Visit(std::unique_ptr<World> world) {
    if (testing::Test::HasFailure() ||
        !seen_.insert(std::hash<std::string>()(world->Key())).second) {
      return;
    }
    ASSERT_FALSE(world->exhausted()) << "it never ends:" << How();
    std::vector<std::string> actions = world->Actions();
    const bool settled = std::all_of(actions.begin(), actions.end(),
                                     [](const std::string& a) { return a.rfind("die", 0) == 0; });
    if (settled) {
      ++ends_;
      if (world->repairs() > 0) ++repaired_;
      world->Judge(How());
      // Without logs, what was not lost is computed again too.
      if (world->one_by_one() && setting_.log_budget_bytes >= 1000) {
        EXPECT_EQ(world->counted_lost(), world->really_lost()) << How();
      }
    }
    actions.erase(std::unique(actions.begin(), actions.end()), actions.end());
    for (size_t i = 0; i < actions.size(); ++i) {
      path_.push_back(actions[i]);
      if (world == nullptr) {
        Visit(Play());
      } else if (actions.size() == 1) {
        world->Do(actions[i]);
        Visit(std::move(world));
      } else {
        if (i + 1 == actions.size()) {
          world->Do(actions[i]);
          Visit(std::move(world));
        } else {
          Visit(Play());
        }
      }
      path_.pop_back();
    }
  }

  const Setting setting_;
  std::vector<std::string> path_;
  std::unordered_set<size_t> seen_;
  size_t ends_ = 0;
  size_t repaired_ = 0;
};

size_t RepairedWays(Setting setting) {
  Explorer explorer(setting);
  explorer.Explore();
  return explorer.repaired();
}

TEST(LedgerModel, WhoeverDiesEveryStageIsAddedExactlyOnceAndOnlyWhatWasLostAgain) {
  EXPECT_GT(RepairedWays(Setting{}), 5000u);
  Setting two;
  two.times = 1;
  two.two_at_once = true;
  EXPECT_GT(RepairedWays(two), 1000u);
}

// Without a log; with one that has room for outputs only, or for gradients only.
TEST(LedgerModel, WhateverTheLogsLackEveryStageIsAddedExactlyOnce) {
  for (uint64_t budget : {0, 8, 4}) {
    Setting setting;
    setting.log_budget_bytes = budget;
    setting.times = 1;
    setting.two_at_once = true;
    EXPECT_GT(RepairedWays(setting), 1000u) << budget;
    if (HasFailure()) break;
  }
}

}  // namespace
}  // namespace starling
