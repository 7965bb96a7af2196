// Explorer: walks every state that a small model of a protocol can reach, in breadth first order,
// and gives the shortest way to a bad one.
//
// A model is a struct of bytes only (so that two states are equal when their bytes are), with
//   template <typename Sink> void Next(const Model&, Sink sink)   sink(label, next_state)
//   std::string Wrong(const Model&)                                empty: nothing is
// Message passing is modelled as a set of things that were said, which are never taken back: what
// was said may be heard now, later, again, in any order, or never. So delay, reorder, repeats and
// loss need no moves of their own.
#ifndef STARLING_TESTS_MODEL_EXPLORER_H_
#define STARLING_TESTS_MODEL_EXPLORER_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace starling::model {

struct Walk {
  size_t states = 0;
  size_t finished = 0;  // states in which the model's goal is reached
  std::string wrong;    // empty: every state is good
  std::vector<std::string> way;

  std::string ToString() const {
    std::string text = wrong.empty() ? "no bad state" : wrong;
    text += " (" + std::to_string(states) + " states)";
    for (const std::string& move : way) text += "\n  " + move;
    return text;
  }
};

// `Rules` has Next, Wrong and bool Done(const State&). Stops at the first bad state.
template <typename State, typename Rules>
Walk Explore(const State& start, const Rules& rules) {
  static_assert(std::has_unique_object_representations_v<State>, "padding would be compared");
  const auto key_of = [](const State& state) {
    return std::string(reinterpret_cast<const char*>(&state), sizeof(State));
  };
  struct Seen {
    State state;
    size_t before;
    const char* label;
  };
  Walk walk;
  std::deque<Seen> seen{{start, 0, ""}};
  std::unordered_map<std::string, size_t> known{{key_of(start), 0}};
  for (size_t at = 0; at < seen.size(); ++at) {
    const State state = seen[at].state;
    if (rules.Done(state)) ++walk.finished;
    walk.wrong = rules.Wrong(state);
    if (!walk.wrong.empty()) {
      for (size_t i = at; i != 0; i = seen[i].before) walk.way.push_back(seen[i].label);
      std::reverse(walk.way.begin(), walk.way.end());
      break;
    }
    rules.Next(state, [&](const char* label, const State& next) {
      if (known.emplace(key_of(next), seen.size()).second) seen.push_back({next, at, label});
    });
  }
  walk.states = seen.size();
  return walk;
}

}  // namespace starling::model

#endif  // STARLING_TESTS_MODEL_EXPLORER_H_
