// An exhaustive small model of fences: three stages, two replicas each, one microbatch. Every way
// the messages, the deaths and the answers to a fence can interleave is walked, and after it (and
// after a second fence) every stage must be covered exactly once: either by a live replica that has
// added it or will, or by a replay.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "runtime/trainer/ledger.h"

namespace starling {
namespace {

constexpr int kStages = 3;
constexpr int kReplicas = 2 * kStages;
constexpr int kNobody = -1;
constexpr AttemptId kAttempt{{Epoch{1}, 0}, 1};

// Replica r serves stage r / 2.
int StageOf(int replica) { return replica / 2; }
Incarnation NameOf(int replica) { return {Epoch{1}, static_cast<uint32_t>(replica) + 1}; }

enum class Mark : char { kNone = '.', kOpen = 'o', kAdded = 'a' };

struct Node {
  bool alive = true;
  bool promised = false;  // answered the fence under way
  unsigned refuses = 0;   // bit r: it has promised to have nothing to do with replica r
  bool told = false;      // a cancel is on its way to it
  Mark mark = Mark::kNone;
  Mark said = Mark::kNone;  // when it answered
  int said_down = kNobody;
  int up = kNobody;
  int down = kNobody;
};

struct World {
  std::array<Node, kReplicas> nodes;
  // At most one forward and one gradient per stage are on their way: from whom, to whom.
  int forward_from = kNobody;
  int forward_to = 0;  // the trainer has sent it to replica 0
  int gradient_from = kNobody;
  int gradient_to = kNobody;
  int fences = 0;
  bool fencing = false;
  std::shared_ptr<const Ledger> ledger;
  size_t history = 0;  // stands for what the ledger was told

  std::string Key() const {
    std::string key = std::to_string(history);
    for (const Node& n : nodes) {
      key += n.alive ? 'L' : 'D';
      key += n.promised ? 'p' : '-';
      key += n.told ? 't' : '-';
      key += static_cast<char>('0' + n.refuses);
      key += static_cast<char>(n.mark);
      key += static_cast<char>(n.said);
      for (int number : {n.said_down, n.up, n.down}) key += static_cast<char>('1' + number);
    }
    for (int number : {forward_from, forward_to, gradient_from, gradient_to, fences}) {
      key += static_cast<char>('1' + number);
    }
    return key + (fencing ? 'f' : '-');
  }
};

class Model {
 public:
  explicit Model(std::set<int> mask) : mask_(std::move(mask)) {}

  void Explore() {
    World world;
    std::vector<StageId> add_at;
    for (int stage : mask_) add_at.push_back(StageId{static_cast<uint32_t>(stage)});
    if (mask_.size() == kStages) add_at.clear();
    const auto ledger = std::make_shared<Ledger>(kStages, 1);
    ledger->OnSent(0, kAttempt, add_at, NameOf(0));
    world.ledger = ledger;
    Visit(world);
  }
  size_t repairs() const { return repairs_; }

 private:
  bool Adds(int stage) const { return mask_.count(stage) > 0; }
  bool GradientWanted(int stage) const { return *mask_.begin() < stage; }

  // A replica that has promised takes nothing from the dead, whatever was on its way.
  static bool Takes(const World& world, int from, int to) {
    const Node& receiver = world.nodes[to];
    return receiver.alive && (from == kNobody || (receiver.refuses >> from & 1) == 0);
  }

  // All that may happen next without a death or an answer.
  std::vector<World> Steps(const World& world) const {
    std::vector<World> next;
    if (world.forward_to != kNobody && Takes(world, world.forward_from, world.forward_to)) {
      next.push_back(world);
      AcceptForward(&next.back());
    }
    if (world.gradient_to != kNobody && Takes(world, world.gradient_from, world.gradient_to)) {
      next.push_back(world);
      World& w = next.back();
      const int to = w.gradient_to;
      w.gradient_from = w.gradient_to = kNobody;
      if (w.nodes[to].mark == Mark::kOpen) Add(&w, to);
    }
    for (int r = 0; r < kReplicas; ++r) {
      const Node& node = world.nodes[r];
      if (!node.alive) continue;
      if (node.told) {
        next.push_back(world);
        Node& n = next.back().nodes[r];
        n.told = false;
        if (n.mark == Mark::kOpen) n.mark = Mark::kNone;
      }
      if (node.mark != Mark::kOpen) continue;
      if (StageOf(r) == kStages - 1) {
        next.push_back(world);
        Add(&next.back(), r);
      } else if (node.down == kNobody) {
        const int to = NextFor(world, r);
        if (to == kNobody) continue;
        next.push_back(world);
        next.back().nodes[r].down = to;
        next.back().forward_from = r;
        next.back().forward_to = to;
      }
    }
    return next;
  }

  void AcceptForward(World* world) const {
    const int from = world->forward_from;
    Node& node = world->nodes[world->forward_to];
    node.mark = Mark::kOpen;
    node.up = from;
    world->forward_from = world->forward_to = kNobody;
    // Who neither adds nor passes a gradient on is done as soon as it is accepted.
    if (from != kNobody && world->nodes[from].alive && !Adds(StageOf(from)) &&
        !GradientWanted(StageOf(from))) {
      world->nodes[from].mark = Mark::kAdded;
    }
  }

  void Add(World* world, int replica) const {
    Node& node = world->nodes[replica];
    node.mark = Mark::kAdded;
    if (!GradientWanted(StageOf(replica)) || node.up == kNobody) return;
    world->gradient_from = replica;
    world->gradient_to = node.up;
  }

  // Prefers the first of the stage, until it knows better.
  static int NextFor(const World& world, int replica) {
    for (int to : {2 * (StageOf(replica) + 1), 2 * (StageOf(replica) + 1) + 1}) {
      if ((world.nodes[replica].refuses >> to & 1) == 0) return to;
    }
    return kNobody;
  }

  void Visit(const World& world) {
    if (testing::Test::HasFailure() || !seen_.insert(world.Key()).second) return;
    for (const World& next : Steps(world)) Visit(next);
    if (world.fencing) {
      Answers(world);
    } else if (world.fences < 2) {
      Deaths(world);
    }
  }

  // Up to two replicas die at this moment.
  void Deaths(const World& world) {
    for (int a = 0; a < kReplicas; ++a) {
      for (int b = a; b < kReplicas; ++b) {
        if (!world.nodes[a].alive || !world.nodes[b].alive) continue;
        World next = world;
        next.nodes[a].alive = next.nodes[b].alive = false;
        next.fencing = true;
        ++next.fences;
        for (Node& node : next.nodes) {
          node.promised = false;
          node.said = Mark::kNone;
          node.said_down = kNobody;
        }
        Visit(next);
      }
    }
  }

  void Answers(const World& world) {
    bool all = true;
    for (int r = 0; r < kReplicas; ++r) {
      if (!world.nodes[r].alive || world.nodes[r].promised) continue;
      all = false;
      World next = world;
      Node& node = next.nodes[r];
      node.promised = true;
      for (int dead = 0; dead < kReplicas; ++dead) {
        if (!world.nodes[dead].alive) node.refuses |= 1u << dead;
      }
      node.said = node.mark;
      node.said_down = node.down;
      Visit(next);
    }
    if (all) Repair(world);
  }

  void Repair(World world) {
    ++repairs_;
    Ledger::FenceAnswers answers;
    for (int r = 0; r < kReplicas; ++r) {
      const Node& node = world.nodes[r];
      if (!node.alive) continue;
      Ledger::FenceAnswer& answer = answers[NameOf(r)];
      answer.stage = StageId{static_cast<uint32_t>(StageOf(r))};
      if (node.said == Mark::kNone) continue;
      HeldWork held;
      held.work = {{Step{1}, WorkKind::kTrain, 0}, kAttempt};
      held.state = node.said == Mark::kAdded ? HeldState::kAdded : HeldState::kOpen;
      held.upstream = node.up == kNobody ? Incarnation{Epoch{1}, 0} : NameOf(node.up);
      if (node.said_down != kNobody) held.downstream = NameOf(node.said_down);
      answer.held.push_back(held);
    }
    const auto ledger = std::make_shared<Ledger>(*world.ledger);
    const Ledger::Repair repair = ledger->Resolve(answers);
    world.ledger = ledger;
    world.history = histories_.try_emplace(world.Key(), histories_.size() + 1).first->second;
    std::set<int> told;
    for (const Ledger::HolderWork& cancel : repair.cancels) {
      const int replica = static_cast<int>(cancel.holder.counter) - 1;
      EXPECT_TRUE(told.insert(replica).second) << "cancelled twice";
    }
    Judge(world, repair, told);
    world.fencing = false;
    for (int replica : told) world.nodes[replica].told = true;
    Visit(world);
  }

  // Lets all that can still happen happen, but for the cancels of this repair.
  void Judge(World world, const Ledger::Repair& repair, const std::set<int>& told) const {
    const std::string before = world.Key();
    std::vector<World> next = Steps(world);
    while (!next.empty()) {
      world = next.front();
      next = Steps(world);
    }
    const auto found = repair.replays.find(0);
    for (int stage = 0; stage < kStages; ++stage) {
      int counted = 0;
      if (found != repair.replays.end()) {
        counted += static_cast<int>(std::count(found->second.begin(), found->second.end(),
                                               StageId{static_cast<uint32_t>(stage)}));
      }
      for (int r : {2 * stage, 2 * stage + 1}) {
        const Node& node = world.nodes[r];
        if (Adds(stage) && node.alive && node.mark == Mark::kAdded) ++counted;
      }
      // Without a live replica to go on to, a microbatch waits for a joiner and is not lost.
      if (counted == 0 && WaitsForAJoiner(world, stage)) continue;
      EXPECT_EQ(counted, 1) << "stage " << stage << " after " << before;
    }
    for (int r = 0; r < kReplicas; ++r) {
      const Node& node = world.nodes[r];
      if (!node.alive) continue;
      const bool waits = node.mark == Mark::kOpen;
      if (waits && WaitsForAJoiner(world, StageOf(r))) continue;
      if (waits) {
        EXPECT_TRUE(told.count(r) > 0 || node.told) << "replica " << r << " after " << before;
      }
      if (told.count(r) > 0 && Adds(StageOf(r))) {
        EXPECT_NE(node.mark, Mark::kAdded) << "replica " << r << " after " << before;
      }
    }
  }

  // The microbatch is held at `stage` or above by a live replica that has no next one to send it
  // to.
  static bool WaitsForAJoiner(const World& world, int stage) {
    for (int r = 0; r < kReplicas; ++r) {
      const Node& node = world.nodes[r];
      const int below = StageOf(r) + 1;
      if (below < kStages && node.alive && node.mark == Mark::kOpen && node.down == kNobody &&
          !world.nodes[2 * below].alive && !world.nodes[2 * below + 1].alive) {
        // Everyone between it and `stage` waits with it, or has not seen it yet.
        int holder = r;
        while (StageOf(holder) > stage && node.up != kNobody) {
          const int up = world.nodes[holder].up;
          if (up == kNobody || !world.nodes[up].alive) return false;
          holder = up;
        }
        return true;
      }
    }
    return false;
  }

  const std::set<int> mask_;
  std::unordered_set<std::string> seen_;
  std::map<std::string, size_t> histories_;
  size_t repairs_ = 0;
};

TEST(LedgerModel, WhoeverDiesEveryStageIsCoveredExactlyOnce) {
  Model model({0, 1, 2});
  model.Explore();
  EXPECT_GT(model.repairs(), 10000u);
}

TEST(LedgerModel, WhoeverDiesInAMaskedReplayItsStagesAreCoveredExactlyOnce) {
  for (const std::set<int>& mask : {std::set<int>{1}, {2}}) {
    Model model(mask);
    model.Explore();
    EXPECT_GT(model.repairs(), 5000u);
    if (HasFailure()) break;
  }
}

}  // namespace
}  // namespace starling
