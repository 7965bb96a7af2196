#include "runtime/trainer/path_repair.h"

#include <algorithm>

namespace starling {
namespace {

class Planner {
 public:
  Planner(uint32_t stages, const std::vector<Holding>& holdings, const Liveness& liveness,
          std::vector<IssuedAttempt>* attempts)
      : stages_(stages), live_(liveness), attempts_(*attempts), at_(stages) {
    for (const Holding& holding : holdings) {
      IssuedAttempt* attempt = Find(holding.work->work.attempt);
      if (attempt == nullptr || holding.stage >= stages_) continue;
      Node node;
      node.holding = holding;
      node.attempt = attempt;
      at_[holding.stage].nodes.push_back(node);
    }
  }

  RepairPlan Run() {
    LearnReach();
    for (uint32_t s = stages_; s-- > 0;) {
      for (Node& node : at_[s].nodes) Judge(&node);
    }
    for (IssuedAttempt& attempt : attempts_) JudgeFirst(attempt);
    for (uint32_t s = stages_; s-- > 0;) ChooseAt(s);
    Settle();
    // A claim there is going to be refused; who makes it will say so.
    const bool refusal = std::any_of(promised_.begin(), promised_.end(),
                                     [this](const Node* target) { return !Helped(target); });
    RepairPlan plan;
    if (refusal && !AllCovered()) return plan;
    plan.unclear = unclear_ && !AllCovered();
    plan.hopeless = live_.impatient && !CanBeDone();
    if (plan.unclear || plan.hopeless) return plan;
    AddStretches(&plan);
    if (!live_.impatient) AddCancels(&plan);
    return plan;
  }

 private:
  // A live replica that holds the microbatch.
  struct Node {
    Holding holding;
    IssuedAttempt* attempt = nullptr;
    bool comes = false;          // it has its gradient, or will get it
    bool gone = false;           // impatient: not to be counted on
    bool doubtful = false;       // impatient: done, but its gradient has not arrived
    const Node* next = nullptr;  // the node its gradient has to come from
  };
  // Held at a stage by a replica that took it only after it had answered.
  struct Late {
    const IssuedAttempt* attempt;
    const Node* below;  // null: nothing is known to be wrong below it
  };
  struct Stage {
    std::vector<Node> nodes;
    std::vector<Late> late;
    bool covered = false;
    const Node* resume = nullptr;  // waits in vain, and is to be helped
    bool late_waits = false;       // one that took it late waits for what `resume` below it gives
    const Node* source = nullptr;  // can give its gradient, now or after the repair
    bool rerun = false;
    bool add = false;
    std::set<Incarnation> unreached;  // it is on its way to these
  };

  IssuedAttempt* Find(const AttemptId& id) {
    const auto it = std::find_if(attempts_.begin(), attempts_.end(),
                                 [&](const IssuedAttempt& a) { return a.id == id; });
    return it == attempts_.end() ? nullptr : &*it;
  }
  static HeldState StateOf(const Node& node) { return node.holding.work->state; }
  static bool Waits(const Node& node) {
    return StateOf(node) == HeldState::kOpen || StateOf(node) == HeldState::kUnclaimed;
  }
  bool Stuck(const Node& node) const {
    return live_.stuck.count(node.holding.holder) > 0 ||
           live_.doubted.count(node.holding.holder) > 0;
  }
  static bool Counts(const IssuedAttempt& attempt, uint32_t stage) {
    return attempt.adds[stage] && attempt.voided.count(stage) == 0;
  }

  // --- what is there ---

  static void Reach(IssuedAttempt* attempt, uint32_t stage) {
    attempt->reached = attempt->begun ? std::max(attempt->reached, stage) : stage;
    attempt->begun = true;
  }

  void LearnReach() {
    for (uint32_t s = 0; s < stages_; ++s) {
      for (Node& node : at_[s].nodes) {
        const HeldWork& work = *node.holding.work;
        Reach(node.attempt, s);
        if (s == node.attempt->begin) node.attempt->landed = true;
        IssuedAttempt* onward = Find(work.downstream_attempt);
        if (work.accepted && !work.claims && onward != nullptr) Reach(onward, s + 1);
      }
    }
  }

  Node* NodeOf(Incarnation holder, const AttemptId& attempt, uint32_t stage) {
    for (Node& node : at_[stage].nodes) {
      if (node.holding.holder == holder && node.attempt->id == attempt) return &node;
    }
    return nullptr;
  }

  // What becomes of an attempt that someone at `stage` has taken late, or is about to. Gives the
  // node it leads to, if one is known, and sets `comes`.
  const Node* FollowLate(const IssuedAttempt& attempt, uint32_t stage, bool* comes) {
    for (uint32_t s = stage; s < attempt.end; ++s) {
      for (const Node& node : at_[s].nodes) {
        if (node.attempt->id != attempt.id) continue;
        for (uint32_t between = stage; between < s; ++between) {
          at_[between].late.push_back({&attempt, &node});
        }
        *comes = node.comes;
        return &node;
      }
    }
    for (uint32_t s = stage; s < attempt.end; ++s) at_[s].late.push_back({&attempt, nullptr});
    *comes = true;
    if (!attempt.until) return nullptr;
    promised_.push_back(NodeOf(attempt.until->holder, attempt.until->attempt, attempt.end));
    return nullptr;
  }

  void Judge(Node* node) {
    const uint32_t stage = node->holding.stage;
    const HeldWork& work = *node->holding.work;
    if (!Waits(*node)) FollowOnward(*node);
    if (StateOf(*node) == HeldState::kDone) {
      node->comes = true;
    } else if (StateOf(*node) == HeldState::kAdded || stage + 1 == stages_) {
      node->gone = Stuck(*node);
      node->comes = !node->gone;
    } else if (StateOf(*node) == HeldState::kOpen) {
      node->comes = work.downstream ? ComesFrom(node, *work.downstream) : WillGoOn(node);
    }
  }

  // It has its gradient; whoever took its output after they had answered are not to be missed.
  void FollowOnward(const Node& node) {
    const uint32_t below = node.holding.stage + 1;
    const HeldWork& work = *node.holding.work;
    if (below == stages_ || work.claims) return;
    const IssuedAttempt* route = Route(node);
    if (work.downstream) {
      if (NodeOf(*work.downstream, work.downstream_attempt, below) != nullptr) return;
      at_[below].unreached.insert(*work.downstream);
      if (live_.impatient || live_.answered.count(*work.downstream) == 0) return;
      if (route->cancelled.count(*work.downstream) > 0) return;
    } else if (route->contested && !StillContested(*route)) {
      return;
    }
    bool comes = true;
    FollowLate(*route, below, &comes);
  }

  // It has not gone on, or had not when it answered.
  bool WillGoOn(Node* node) {
    if (Stuck(*node) && !node->holding.work->output_kept) {
      node->gone = true;
      return false;
    }
    const IssuedAttempt& route = *Route(*node);
    // Nobody may be able to take it as contested, and there is no need for it any more.
    if (route.contested && !StillContested(route) && node->holding.work->output_kept) return false;
    bool comes = true;
    node->next = FollowLate(route, node->holding.stage + 1, &comes);
    return comes;
  }

  bool StillContested(const IssuedAttempt& attempt) const {
    for (uint32_t s = attempt.begin; s < attempt.end; ++s) {
      if (live_.contested[s]) return true;
    }
    return false;
  }

  // The attempt that its output goes on as.
  const IssuedAttempt* Route(const Node& node) {
    const IssuedAttempt* route = Find(node.holding.work->downstream_attempt);
    return route == nullptr || node.holding.work->claims ? node.attempt : route;
  }

  bool ComesFrom(Node* node, Incarnation downstream) {
    const uint32_t below = node->holding.stage + 1;
    const HeldWork& work = *node->holding.work;
    if (live_.answered.count(downstream) == 0) {
      at_[below].unreached.insert(downstream);
      return false;
    }
    Node* next = NodeOf(downstream, work.downstream_attempt, below);
    node->next = next;
    if (next != nullptr) {
      if (live_.impatient && StateOf(*next) == HeldState::kDone) {
        next->doubtful = true;
        node->next = nullptr;
        return false;
      }
      return next->comes;
    }
    const IssuedAttempt* route = Route(*node);
    if (!work.claims) at_[below].unreached.insert(downstream);
    if (work.claims || live_.impatient || route->end <= below) return false;
    if (route->cancelled.count(downstream) > 0) return false;
    bool comes = true;
    node->next = FollowLate(*route, below, &comes);
    return comes;
  }

  // What the trainer has sent, and nobody has said to have.
  void JudgeFirst(const IssuedAttempt& attempt) {
    if (!attempt.first || attempt.landed) return;
    if (live_.impatient) {
      at_[attempt.begin].unreached.insert(*attempt.first);
      return;
    }
    bool comes = true;
    if (live_.answered.count(*attempt.first) > 0) FollowLate(attempt, attempt.begin, &comes);
  }

  // --- what is to be done ---

  bool AllCovered() const {
    return std::all_of(at_.begin(), at_.end(), [](const Stage& s) { return s.covered; });
  }

  static bool Comes(const Late& late) { return late.below == nullptr || late.below->comes; }

  bool Covered(uint32_t s) const {
    const Stage& stage = at_[s];
    if (live_.noted[s]) return true;
    for (const Node& node : stage.nodes) {
      if (node.comes && Counts(*node.attempt, s)) return true;
    }
    return std::any_of(stage.late.begin(), stage.late.end(),
                       [&](const Late& late) { return Comes(late) && Counts(*late.attempt, s); });
  }

  // Called from the last stage up.
  void ChooseAt(uint32_t s) {
    Stage& stage = at_[s];
    stage.covered = Covered(s);
    if (!stage.covered) {
      for (const Node& node : stage.nodes) {
        if (!Waits(node) || node.comes || node.gone || !Counts(*node.attempt, s)) continue;
        const bool can_claim = s + 1 < stages_ && at_[s + 1].source != nullptr;
        if (!node.holding.work->output_kept && !can_claim && LinkBroken(node)) continue;
        stage.resume = &node;  // the last issued
      }
      for (const Late& late : stage.late) {
        if (stage.resume != nullptr || Comes(late) || !Counts(*late.attempt, s)) continue;
        if (Helped(late.below)) {
          stage.late_waits = true;
        } else {
          unclear_ = true;  // it waits in vain, and nobody knows yet who it is
        }
      }
      stage.rerun = stage.resume == nullptr && !stage.late_waits;
    }
    stage.source = SourceAt(stage);
  }

  // `node` will have its gradient after the repair.
  bool Helped(const Node* node) const {
    for (; node != nullptr; node = node->next) {
      if (node->comes || at_[node->holding.stage].resume == node) return true;
    }
    return false;
  }

  const Node* SourceAt(const Stage& stage) const {
    if (stage.resume != nullptr && stage.resume->holding.work->gradient_kept) return stage.resume;
    const Node* found = nullptr;
    for (const Node& node : stage.nodes) {
      if (!node.comes || node.gone || !node.holding.work->gradient_kept) continue;
      if (node.doubtful && live_.again) continue;
      if (found == nullptr || StateOf(node) == HeldState::kDone) found = &node;
    }
    return found;
  }

  // It waits for one that will not send it anything.
  bool LinkBroken(const Node& node) const { return !Helped(node.next); }

  bool NeedsBelow(uint32_t s) const {
    return at_[s].rerun || (at_[s].resume != nullptr && LinkBroken(*at_[s].resume));
  }

  // What is run again may need more to be run again, below and above it, until nothing changes. Who
  // waits at such a stage and will be helped all the same adds it there, and no one else does.
  void Settle() {
    bool changed = true;
    while (changed) {
      changed = PassDown();
      changed = PassUp() || changed;
      for (Stage& stage : at_) {
        if (!stage.rerun || stage.resume == nullptr || !LinkBroken(*stage.resume)) continue;
        stage.resume = nullptr;
        changed = true;
      }
    }
    for (Stage& stage : at_) {
      stage.add = stage.rerun && !stage.covered && stage.resume == nullptr;
    }
  }

  // A stretch goes on through stages that can give no gradient.
  bool PassDown() {
    bool changed = false;
    for (uint32_t s = 0; s + 1 < stages_; ++s) {
      Stage& below = at_[s + 1];
      if (!NeedsBelow(s) || below.rerun || below.source != nullptr) continue;
      if (!below.late.empty()) unclear_ = true;
      below.rerun = changed = true;
    }
    return changed;
  }

  // And it begins where an output is kept.
  bool PassUp() {
    bool changed = false;
    for (uint32_t s = stages_ - 1; s > 0; --s) {
      if (!at_[s].rerun || at_[s - 1].rerun) continue;
      Stage& above = at_[s - 1];
      if (Sender(s - 1) != nullptr) continue;
      if (above.late_waits || !above.late.empty()) unclear_ = true;
      above.rerun = changed = true;
    }
    return changed;
  }

  const Node* Sender(uint32_t s) const {
    const Stage& stage = at_[s];
    if (stage.late_waits) return nullptr;
    if (stage.resume != nullptr) {
      return stage.resume->holding.work->output_kept ? stage.resume : nullptr;
    }
    const Node* found = nullptr;
    for (const Node& node : stage.nodes) {
      if (node.gone || !node.holding.work->output_kept) continue;
      if (found == nullptr || StateOf(node) == HeldState::kDone) found = &node;
    }
    return found;
  }

  // Every stage to be run again has a replica that can be counted on.
  bool CanBeDone() const {
    for (uint32_t s = 0; s < stages_; ++s) {
      if (!at_[s].rerun) continue;
      const bool one =
          std::any_of(live_.answered.begin(), live_.answered.end(), [&](const auto& live) {
            return live.second == s && live_.stuck.count(live.first) == 0 &&
                   at_[s].unreached.count(live.first) == 0;
          });
      if (!one) return false;
    }
    return true;
  }

  std::optional<Splice> UntilAt(uint32_t s) const {
    if (s >= stages_) return std::nullopt;
    const Node& node = *at_[s].source;
    return Splice{StageId{s}, node.holding.holder, node.attempt->id};
  }

  void AddStretches(RepairPlan* plan) {
    for (uint32_t s = 0; s < stages_; ++s) {
      const Node* resume = at_[s].resume;
      if (resume != nullptr && LinkBroken(*resume) && !at_[s + 1].rerun) {
        plan->stretches.push_back({resume->holding, s + 1, s + 1, {}, UntilAt(s + 1), {}});
      }
      if (!at_[s].rerun || (s > 0 && at_[s - 1].rerun)) continue;
      Stretch stretch;
      stretch.begin = s;
      if (s > 0) stretch.from = Sender(s - 1)->holding;
      uint32_t end = s;
      for (; end < stages_ && at_[end].rerun; ++end) {
        if (at_[end].add) stretch.add_at.push_back(StageId{end});
        if (at_[end].add && WasBegun(end)) ++plan->lost_pairs;
        if (live_.impatient) AddAvoided(end, plan, &stretch.rivals);
      }
      stretch.end = end;
      stretch.until = UntilAt(end);
      plan->stretches.push_back(std::move(stretch));
    }
  }

  // The newest attempt that was to add it there had come that far; said once.
  bool WasBegun(uint32_t s) {
    for (auto it = attempts_.rbegin(); it != attempts_.rend(); ++it) {
      if (!it->adds[s]) continue;
      return it->begun && it->reached >= s && it->lost.insert(s).second;
    }
    return false;
  }

  void AddAvoided(uint32_t s, RepairPlan* plan, std::set<Incarnation>* rivals) {
    for (const auto& [replica, stage] : live_.silent) {
      if (stage == s) rivals->insert(replica);
    }
    for (Incarnation replica : at_[s].unreached) {
      if (live_.answered.count(replica) > 0) rivals->insert(replica);
    }
    for (const Node& node : at_[s].nodes) {
      if (node.gone || node.doubtful) rivals->insert(node.holding.holder);
      if (!node.gone) continue;
      plan->avoided.push_back(node.holding);
      node.attempt->cancelled.insert(node.holding.holder);
    }
  }

  void AddCancels(RepairPlan* plan) const {
    for (const Stage& stage : at_) {
      for (const Node& node : stage.nodes) {
        if (!Waits(node) || node.comes || stage.resume == &node) continue;
        if (node.gone || Helped(node.next)) continue;
        plan->cancels.push_back(node.holding);
        node.attempt->cancelled.insert(node.holding.holder);
      }
    }
  }

  const uint32_t stages_;
  const Liveness& live_;
  std::vector<IssuedAttempt>& attempts_;
  std::vector<Stage> at_;
  std::vector<const Node*> promised_;  // what attempts on their way are going to claim from
  bool unclear_ = false;
};

}  // namespace

RepairPlan PlanRepair(uint32_t stages, const std::vector<Holding>& holdings,
                      const Liveness& liveness, std::vector<IssuedAttempt>* attempts) {
  return Planner(stages, holdings, liveness, attempts).Run();
}

}  // namespace starling
