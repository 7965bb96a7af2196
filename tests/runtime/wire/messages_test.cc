#include "runtime/wire/messages.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tests/runtime/wire/random_message.h"

namespace starling {
namespace {

TEST(Messages, EveryKindHasItsOwnName) {
  Rng rng(1);
  std::set<std::string> names;
  for (size_t kind = 0; kind < kMessageKinds; ++kind) {
    names.insert(KindOf(RandomMessage(kind, &rng)));
  }
  EXPECT_EQ(names.size(), kMessageKinds);
  EXPECT_EQ(names.count("Forward"), 1u);
}

TEST(Messages, ExactlyThoseWithTensorsTravelOnTheBulkChannel) {
  Rng rng(2);
  const std::set<std::string> with_tensors = {"Chunk", "Forward", "Backward", "Piece", "Result"};
  for (size_t kind = 0; kind < kMessageKinds; ++kind) {
    const Message message = RandomMessage(kind, &rng);
    const bool bulk = ChannelOf(message) == Channel::kBulk;
    EXPECT_EQ(bulk, with_tensors.count(KindOf(message)) == 1) << KindOf(message);
  }
}

}  // namespace
}  // namespace starling
