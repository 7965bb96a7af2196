#include "runtime/app/addresses.h"

#include "gtest/gtest.h"

namespace starling {
namespace {

TEST(ParseAddressTest, SchemeMayBeLeftOut) {
  EXPECT_EQ(*ParseAddress("10.0.0.7:49200"), "tcp://10.0.0.7:49200");
  EXPECT_EQ(*ParseAddress("tcp://[::1]:49200"), "tcp://[::1]:49200");  // style: allow, text only
  EXPECT_EQ(*ParseAddress("ipc:///run/a"), "ipc:///run/a");
}

TEST(ParseAddressTest, WhatNobodyCanConnectToIsInvalid) {
  for (const char* text : {"", "host", "host:", ":1", "host:0", "host:70000", "tcp://h:*",
                           "tcp://*:5"}) {  // style: allow, text only
    EXPECT_EQ(ParseAddress(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(AddressPartsTest, HostAndPort) {
  EXPECT_EQ(HostOf("tcp://a.b:12"), "a.b");
  EXPECT_EQ(PortOf("tcp://a.b:12"), "12");
  EXPECT_EQ(HostOf("tcp://[::1]:*"), "[::1]");
  EXPECT_EQ(PortOf("tcp://[::1]:*"), "*");
  EXPECT_EQ(HostOf("tcp://[::1]"), "[::1]");
  EXPECT_EQ(PortOf("tcp://a.b"), "");
  EXPECT_EQ(HostOf("ipc:///a"), "");
}

TEST(IsLoopbackTest, OnlyWhatStaysOnThisMachine) {
  EXPECT_TRUE(IsLoopback("tcp://127.0.0.1:*"));
  EXPECT_TRUE(IsLoopback("tcp://localhost:*"));
  EXPECT_TRUE(IsLoopback("ipc:///run/a"));
  EXPECT_FALSE(IsLoopback("tcp://0.0.0.0:*"));
  EXPECT_FALSE(IsLoopback("tcp://10.1.2.3:*"));
}

TEST(LocalAddressTowardsTest, LoopbackSeesLoopback) {
  // Nothing is sent; any port does.
  EXPECT_EQ(LocalAddressTowards(std::string("tcp://127.0.0.1:") + "9"), "127.0.0.1");
}

}  // namespace
}  // namespace starling
