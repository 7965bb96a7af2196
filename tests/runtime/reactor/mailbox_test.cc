#include "runtime/reactor/mailbox.h"

#include <memory>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace starling {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Mailbox, HandsOutWhatWasPushedInOrder) {
  Mailbox<int> mailbox(10);
  for (int i = 1; i <= 3; ++i) EXPECT_TRUE(mailbox.Push(int(i)));
  mailbox.Wait();
  EXPECT_THAT(mailbox.Take(), ElementsAre(1, 2, 3));
  EXPECT_THAT(mailbox.Take(), IsEmpty());
}

TEST(Mailbox, FullMailboxRefusesAndLeavesTheItem) {
  Mailbox<std::unique_ptr<int>> mailbox(1);
  EXPECT_TRUE(mailbox.Push(std::make_unique<int>(1)));
  auto second = std::make_unique<int>(2);
  EXPECT_FALSE(mailbox.Push(std::move(second)));
  ASSERT_NE(second, nullptr);
  mailbox.Take();
  EXPECT_TRUE(mailbox.Push(std::move(second))) << "there is room again";
}

TEST(Mailbox, ClosedMailboxHandsOutTheRestAndRefuses) {
  Mailbox<int> mailbox(10);
  EXPECT_TRUE(mailbox.Push(1));
  EXPECT_TRUE(mailbox.Push(2));
  EXPECT_THAT(mailbox.Close(), ElementsAre(1, 2));
  EXPECT_TRUE(mailbox.closed());
  EXPECT_FALSE(mailbox.Push(3));
  EXPECT_THAT(mailbox.Take(), IsEmpty());
  mailbox.Wait();  // returns: the consumer must see that it is closed
}

TEST(Mailbox, NothingIsLostOrDoubledWithManyProducers) {
  constexpr int kProducers = 4;
  constexpr int kItems = 2000;
  Mailbox<int> mailbox(64);
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&mailbox, p] {
      for (int i = 0; i < kItems; ++i) {
        while (!mailbox.Push(p * kItems + i)) std::this_thread::yield();
      }
    });
  }
  std::vector<int> next(kProducers, 0);
  for (int taken = 0; taken < kProducers * kItems;) {
    mailbox.Wait();
    for (int item : mailbox.Take()) {
      EXPECT_EQ(item % kItems, next[item / kItems]++) << "of producer " << item / kItems;
      ++taken;
    }
  }
  for (std::thread& producer : producers) producer.join();
  EXPECT_THAT(mailbox.Close(), IsEmpty());
}

}  // namespace
}  // namespace starling
