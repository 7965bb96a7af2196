#!/usr/bin/env python3
"""What a newcomer that catches up costs those who train.

2 stages x 2 replicas. A stage's state (parameters and both moments) has about 50 MB. When the
swarm has its pace, a third replica of stage 0 is started. From the moment it is admitted (its
process is up then) it fetches the state and the results of the decisions taken meanwhile; then it
serves. Its donors give at a rate (--join-rate, bytes/s each) that lets this take several seconds:
at loopback's own rate it is over before a step is. Stage 1 has two replicas all the time, so that
the newcomer cannot make the swarm faster; but from when it serves, one more process takes part in
every round.

    bench/joining.py [--device emulated:320ms] [--repeats 3] [--seconds 20]
    bench/joining.py --device cpu            with LibTorch, one thread each

Mean tokens/s are those of the steps decided in a window, over the time these took; `before` has two
windows, and `control` is the second one's share of the first one's: what nothing at all does to the
figure. `machine` is the share of all processors that was busy then, with whatever else ran.
"""

import os
import statistics
import tempfile
import time

import swarm as starling

CONFIG = """
[model]
layers = %(layers)d
width = %(width)d
heads = 4
context = %(context)d
[train]
steps = 1000000
global_batch = %(batch)d
microbatch = 2
eval_every = 0
hash_every = 1
[swarm]
stages = 2
rebalance = "0s"
join_rate = %(join_rate)d
"""


def tokens_per_s(swarm, begin, end):
    """Mean over the steps that were decided within."""
    steps = [s for s, at in swarm.decided.items() if begin <= at <= end]
    if len(steps) < 2:
        return float("nan"), 0
    first, last = min(steps), max(steps)
    tokens = sum(swarm.metrics[s]["tokens"] for s in steps if s != first)
    return tokens / (swarm.decided[last] - swarm.decided[first]), len(steps) - 1


def wait_for_log(swarm, replica, text):
    path = replica.log.name
    swarm.wait(lambda: text in open(path).read(), "%r in %s" % (text, path))
    return time.time()


def hashes_agree(swarm, version):
    """Every version from there on that three replicas of stage 0 reported; raises if one differs."""
    by_version = {}
    for event in swarm.events("state_hash"):
        if event["stage"] == 0 and event["version"] >= version:
            by_version.setdefault(event["version"], {})[event["peer"]] = event["hash"]
    for version, peers in by_version.items():
        if len(set(peers.values())) != 1:
            raise SystemExit("stage 0 has different states at version %d: %s" % (version, peers))
    return sum(1 for peers in by_version.values() if len(peers) >= 3)


def one_join(program, options, folder):
    numbers = {"layers": options.layers, "width": options.width, "context": options.context,
               "batch": options.batch, "join_rate": options.join_rate}
    swarm = starling.Swarm(program, folder, CONFIG % numbers)
    try:
        for stage in range(2):
            for _ in range(2):
                starling.Replica(swarm, stage, options.device)
        swarm.wait_for_replicas([2, 2])
        swarm.wait_for_step(swarm.last_step() + 3)
        busy = starling.cpu_busy()
        begin = time.time()
        time.sleep(2 * options.seconds)
        now = time.time()
        before, steps_before = tokens_per_s(swarm, begin, now)
        first, _ = tokens_per_s(swarm, begin, begin + options.seconds)
        second, _ = tokens_per_s(swarm, begin + options.seconds, now)
        busy = [b - a for a, b in zip(busy, starling.cpu_busy())]
        newcomer = starling.Replica(swarm, 0, options.device)
        admitted = wait_for_log(swarm, newcomer, "admitted")
        swarm.wait_for_replicas([3, 2])
        joined = swarm.first_decided_by([3, 2])
        swarm.wait(lambda: time.time() >= admitted + options.seconds, "the window's end")
        after, steps_after = tokens_per_s(swarm, admitted, time.time())
        version = swarm.last_step()
        swarm.wait_for_step(version + 5)
        time.sleep(0.2)
        agree = hashes_agree(swarm, version)
        if agree < 3:
            raise SystemExit("the newcomer's hash was seen at %d versions only" % agree)
        meanwhile, steps_meanwhile = tokens_per_s(swarm, admitted, joined)
        print("| %.1f (%d steps) | %.3f | %.1f | %.1f (%d steps) | %.3f | %.1f (%d steps) | %.3f | %d | "
              "%d %% |" % (
                  before, steps_before, second / first, joined - admitted, meanwhile,
                  steps_meanwhile, meanwhile / before, after, steps_after, after / before, agree,
                  round(100 * busy[0] / busy[1])), flush=True)
        return meanwhile / before, after / before, second / first
    finally:
        swarm.end()


def snapshot_megabytes(options):
    """Of the first half of the layers and the embedding."""
    width = options.width
    block = 4 * width * width + 3 * width * (-(-8 * width // 3 // 32) * 32) + 2 * width
    parameters = options.layers // 2 * block + 256 * width
    return 12e-6 * parameters, 4e-6 * parameters


def main():
    parser = starling.arguments(__doc__)
    parser.add_argument("--device", default="emulated:320ms")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=240)
    parser.add_argument("--context", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--join-rate", type=int, default=7000000)
    options = parser.parse_args()
    print("a snapshot of stage 0: %.1f MB; a decision's result: %.1f MB\n" %
          snapshot_megabytes(options))
    print("| tokens/s before | control | caught up in, s | tokens/s meanwhile | share | tokens/s over "
          "%g s from admission | share | versions with one hash | machine |" % options.seconds)
    print("|---|---|---|---|---|---|---|---|---|")
    shares = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            shares.append(one_join(os.path.abspath(options.program), options, folder))
    print("share of before, median: %.3f meanwhile, %.3f over %g s; without a newcomer %.3f" % (
        statistics.median([s[0] for s in shares]), statistics.median([s[1] for s in shares]),
        options.seconds, statistics.median([s[2] for s in shares])))


if __name__ == "__main__":
    main()
