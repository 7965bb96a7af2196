#include "runtime/reactor/poller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zmq.h>

#include <string>
#include <vector>

namespace starling {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int kLongWait = 60000;  // ms

class PollerTest : public ::testing::Test {
 protected:
  PollerTest() {
    for (auto& pair : pipes_) EXPECT_EQ(pipe(pair), 0);
    for (void*& socket : sockets_) {
      socket = zmq_socket(context_, ZMQ_PAIR);
    }
    EXPECT_EQ(zmq_bind(sockets_[0], "inproc://poller"), 0);
    EXPECT_EQ(zmq_connect(sockets_[1], "inproc://poller"), 0);
  }
  ~PollerTest() override {
    for (auto& pair : pipes_) {
      close(pair[0]);
      close(pair[1]);
    }
    for (void* socket : sockets_) zmq_close(socket);
    zmq_ctx_term(context_);
  }

  void WriteTo(int number) { ASSERT_EQ(write(pipes_[number][1], "x", 1), 1); }
  void SendToFirst() { ASSERT_EQ(zmq_send(sockets_[1], "x", 1, 0), 1); }
  bool ReceiveAtFirst() {
    char byte = 0;
    return zmq_recv(sockets_[0], &byte, 1, ZMQ_DONTWAIT) == 1;
  }

  int pipes_[2][2];
  void* context_ = zmq_ctx_new();
  void* sockets_[2];
  Poller poller_;
};

TEST_F(PollerTest, TellsWhatCanBeReadInTheOrderOfTheKeys) {
  poller_.Add(7, pipes_[0][0]);
  poller_.Add(3, pipes_[1][0]);
  EXPECT_THAT(poller_.Wait(0), IsEmpty());
  WriteTo(0);
  EXPECT_THAT(poller_.Wait(kLongWait), ElementsAre(7));
  WriteTo(1);
  EXPECT_THAT(poller_.Wait(kLongWait), ElementsAre(3, 7));
}

TEST_F(PollerTest, WhatIsRemovedIsNotTold) {
  poller_.Add(1, pipes_[0][0]);
  WriteTo(0);
  poller_.Remove(1);
  EXPECT_THAT(poller_.Wait(0), IsEmpty());
  poller_.Remove(1);  // gone already
}

TEST_F(PollerTest, SocketIsToldAsLongAsItHasMessages) {
  poller_.AddSocket(5, sockets_[0]);
  SendToFirst();
  SendToFirst();
  SendToFirst();
  // One message a time: the descriptor would tell of the first only.
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(poller_.Wait(kLongWait), ElementsAre(5));
    ASSERT_TRUE(ReceiveAtFirst());
  }
  EXPECT_THAT(poller_.Wait(0), IsEmpty());
  SendToFirst();
  EXPECT_THAT(poller_.Wait(kLongWait), ElementsAre(5));
}

TEST_F(PollerTest, MessageThatCameBeforeTheSocketWasAddedIsTold) {
  SendToFirst();
  ASSERT_TRUE(ReceiveAtFirst());
  SendToFirst();
  int events = 0;
  size_t size = sizeof(events);
  zmq_getsockopt(sockets_[0], ZMQ_EVENTS, &events, &size);  // takes the descriptor's signal away
  poller_.AddSocket(5, sockets_[0]);
  EXPECT_THAT(poller_.Wait(kLongWait), ElementsAre(5));
}

TEST_F(PollerTest, SocketAndDescriptorTogether) {
  poller_.AddSocket(2, sockets_[0]);
  poller_.Add(1, pipes_[0][0]);
  SendToFirst();
  ASSERT_THAT(poller_.Wait(kLongWait), ElementsAre(2));
  WriteTo(0);
  EXPECT_THAT(poller_.Wait(kLongWait), ElementsAre(1, 2));  // the message is there still
}

}  // namespace
}  // namespace starling
