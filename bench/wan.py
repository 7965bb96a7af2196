"""A wide-area network on one machine: hosts as network namespaces, with a rate and a delay each.

    with wan.Network(hosts=4, mbit=100, delay_ms=50) as network:
        subprocess.Popen(network.command(2, ["build/starling", ...]))

Each host has one interface, `wan0`, a TUN device whose other end is a router process of this module: it
hands a packet to the host that it is addressed to, `delay_ms` after the sender's link has let it go. The
rate is the kernel's token bucket (`tc qdisc ... tbf`) at the sender's interface, so that a full link
queues and drops as one does. TCP runs from end to end: its windows see the whole round trip.

Needs root, ip and tc (Debian: iproute2), network namespaces and /dev/net/tun; no netem.
"""

import fcntl
import heapq
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
NETWORK = "10.77.0."
INTERFACE = "wan0"


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit("%s: %s" % (" ".join(command), done.stderr.strip()))


def usable():
    """None, or why there can be no such network here, in words."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun"
    name = "starling-wan-%d" % os.getpid()
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["tc", "-V"], capture_output=True)
    except OSError as error:
        return "%s (Debian: iproute2)" % error
    return made.stderr.strip() if made.returncode != 0 else None


class Network:
    def __init__(self, hosts, mbit, delay_ms, mtu=1500):
        self.hosts = hosts
        self.prefix = "sw%d-" % (os.getpid() % 10000)
        names = [self.prefix + str(i) for i in range(hosts)]
        self.router = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), str(delay_ms / 1000.0), *names],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.router.stdout.readline().strip() != "ready":
            raise SystemExit("the router of the emulated network did not start")
        for host, name in enumerate(names):
            run("ip", "netns", "add", name)
            run("ip", "link", "set", name, "netns", name)
            inside = ("ip", "netns", "exec", name)
            run(*inside, "ip", "link", "set", "lo", "up")
            run(*inside, "ip", "link", "set", name, "name", INTERFACE)
            run(*inside, "ip", "addr", "add", self.address(host) + "/24", "dev", INTERFACE)
            run(*inside, "ip", "link", "set", INTERFACE, "mtu", str(mtu), "up")
            if mbit:
                run(*inside, "tc", "qdisc", "add", "dev", INTERFACE, "root", "tbf", "rate",
                    "%gkbit" % (1000 * mbit), "burst", "32kb", "latency", "300ms")

    def address(self, host):
        return NETWORK + str(host + 1)

    def command(self, host, command):
        """The command, to be run on that host. Its network is all that is another's."""
        return ["ip", "netns", "exec", self.prefix + str(host), *command]

    def close(self):
        self.router.stdin.close()
        self.router.wait()
        for host in range(self.hosts):
            subprocess.run(["ip", "netns", "del", self.prefix + str(host)], capture_output=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def open_tun(name):
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return tun


def take(tun, limit=64):
    packets = []
    try:
        while len(packets) < limit:
            packets.append(os.read(tun, 65536))
    except BlockingIOError:
        pass
    return packets


def route(delay, names):
    """Until the standard input ends."""
    tuns = [open_tun(name) for name in names]
    print("ready", flush=True)
    under_way = []  # (due, number, host, packet)
    number = 0
    files = [sys.stdin.fileno(), *tuns]
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        readable, _, _ = select.select(files, [], [], wait)
        if files[0] in readable:
            return
        now = time.monotonic()
        for tun in readable:
            for packet in take(tun):
                host = packet[19] - 1 if packet[0] >> 4 == 4 else -1
                if 0 <= host < len(tuns):
                    number += 1
                    heapq.heappush(under_way, (now + delay, number, host, packet))
        while under_way and under_way[0][0] <= now:
            _, _, host, packet = heapq.heappop(under_way)
            try:
                os.write(tuns[host], packet)
            except OSError:
                pass  # its interface is down, or full: lost, as on a real link


if __name__ == "__main__":
    route(float(sys.argv[1]), sys.argv[2:])
