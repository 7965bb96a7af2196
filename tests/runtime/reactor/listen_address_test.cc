#include "runtime/reactor/listen_address.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace starling {
namespace {

void ExpectEndpoint(const absl::StatusOr<Endpoint>& got, const std::string& control,
                    const std::string& bulk) {
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->control, control);
  EXPECT_EQ(got->bulk, bulk);
}

TEST(ListenEndpoint, BulkIsTheNextPortOrAnotherFreeOneOrAPathBeside) {
  ExpectEndpoint(ListenEndpoint("tcp://127.0.0.1:*"), "tcp://127.0.0.1:*", "tcp://127.0.0.1:*");
  ExpectEndpoint(ListenEndpoint("tcp://0.0.0.0:49200"), "tcp://0.0.0.0:49200",
                 "tcp://0.0.0.0:49201");
  ExpectEndpoint(ListenEndpoint("tcp://[::1]:49200"), "tcp://[::1]:49200", "tcp://[::1]:49201");
  ExpectEndpoint(ListenEndpoint("ipc:///run/a"), "ipc:///run/a", "ipc:///run/a-bulk");
}

TEST(ListenEndpoint, WhatIsNoAddressIsInvalidAndQuoted) {
  for (const std::string listen :
       {"", "127.0.0.1:5", "tcp://127.0.0.1", "tcp://127.0.0.1:", "tcp://:5", "tcp://h:0",
        "tcp://h:65536", "tcp://h:65535", "tcp://h:12x", "tcp://a;b:5", "tcp://u@h:5", "ipc://",
        "ipc://*", "inproc://x", "pgm://h:5"}) {
    const absl::Status status = ListenEndpoint(listen).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << listen;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(listen));
  }
  EXPECT_FALSE(ListenEndpoint("ipc://" + std::string(101, 'p')).ok());
}

TEST(AdvertisedEndpoint, NothingWishedGivesWhatWasBound) {
  const Endpoint bound{"tcp://127.0.0.1:40000", "tcp://127.0.0.1:40007"};
  ExpectEndpoint(AdvertisedEndpoint(bound, ""), bound.control, bound.bulk);
}

TEST(AdvertisedEndpoint, HostIsTakenWithTheBoundPorts) {
  ExpectEndpoint(
      AdvertisedEndpoint({"tcp://0.0.0.0:40000", "tcp://0.0.0.0:40007"}, "tcp://example.org"),
      "tcp://example.org:40000", "tcp://example.org:40007");
}

TEST(AdvertisedEndpoint, PortIsTakenWithTheNextOneForBulk) {
  ExpectEndpoint(
      AdvertisedEndpoint({"tcp://0.0.0.0:40000", "tcp://0.0.0.0:40007"}, "tcp://example.org:5"),
      "tcp://example.org:5", "tcp://example.org:6");
}

TEST(AdvertisedEndpoint, EveryInterfaceWithoutANameIsInvalid) {
  for (const std::string host : {"0.0.0.0", "*", "[::]"}) {
    const Endpoint bound{"tcp://" + host + ":1000", "tcp://" + host + ":1001"};
    EXPECT_EQ(AdvertisedEndpoint(bound, "").status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(AdvertisedEndpoint(bound, "tcp://" + host).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(AdvertisedEndpoint, WhatIsNoAddressIsInvalid) {
  const Endpoint bound{"tcp://127.0.0.1:1000", "tcp://127.0.0.1:1001"};
  for (const std::string advertise : {"example.org", "tcp://", "tcp://h:65535", "tcp://h:x"}) {
    EXPECT_EQ(AdvertisedEndpoint(bound, advertise).status().code(),
              absl::StatusCode::kInvalidArgument)
        << advertise;
  }
}

TEST(IsConnectable, OnlyAHostWithAPortOrAPath) {
  for (const std::string good :
       {"tcp://127.0.0.1:5", "tcp://example.org:49200", "tcp://[::1]:5", "ipc:///run/a"}) {
    EXPECT_TRUE(IsConnectable(good)) << good;
  }
  for (const std::string bad : {"", "tcp://127.0.0.1:*", "tcp://*:5", "tcp://h", "inproc://x",
                                "ipc://", "tcp://eth0;1.2.3.4:5"}) {
    EXPECT_FALSE(IsConnectable(bad)) << bad;
  }
}

}  // namespace
}  // namespace starling
