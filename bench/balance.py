#!/usr/bin/env python3
"""How soon replicas that were started at the wrong stages are where they are needed.

3 stages of the same cost, 3, 1 and 2 replicas of the same emulated speed. Every `swarm.rebalance`
the trainer considers moves. Prints when each move was made, in periods since the first step, and how
many were made in the ten periods after the stages had two replicas each.

    bench/balance.py [--program build/starling] [--period 5] [--repeats 3]
"""

import os
import statistics
import tempfile
import time

import swarm as starling

CONFIG = """
[model]
layers = 6
width = 32
heads = 2
context = 32
[train]
steps = 1000000
global_batch = 32
microbatch = 2
eval_every = 0
hash_every = 1
[swarm]
stages = 3
rebalance = "%gs"
"""
STARTED = [3, 1, 2]
BALANCED = [2, 2, 2]


def one_run(program, folder, period):
    swarm = starling.Swarm(program, folder, CONFIG % period)
    try:
        for stage, count in enumerate(STARTED):
            for _ in range(count):
                # As the trainer's own children: one that was started with --stage stays there.
                starling.Replica(swarm, stage, "emulated:40ms", extra=["--child"])
        swarm.wait_for_step(1)
        began = swarm.decided[1] - swarm.metrics[1]["step_s"]
        swarm.wait_for_replicas(BALANCED)
        balanced = swarm.first_decided_by(BALANCED)
        until = time.time() + 10 * period
        swarm.wait(lambda: time.time() >= until, "ten periods", 10 * period + 60)
        moves = swarm.events("moved")
        counts = []
        for _, line in sorted(swarm.metrics.items()):
            if not counts or counts[-1] != line["replicas"]:
                counts.append(line["replicas"])
        before = statistics.median([m["tokens_per_s"] for m in swarm.metrics.values()
                                  if m["replicas"] == STARTED])
        after = statistics.median([m["tokens_per_s"] for m in swarm.metrics.values()
                                 if m["replicas"] == BALANCED])
        print("| %.2f | %d | %s | %.0f | %.0f |" % (
            (balanced - began) / period, len(moves),
            " ".join("/".join(map(str, c)) for c in counts), before, after), flush=True)
    finally:
        swarm.end()


def main():
    parser = starling.arguments(__doc__)
    parser.add_argument("--period", type=float, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("| balanced after, periods | moves in all, ten periods later | replicas of each stage, in turn"
          " | tokens/s before | after |")
    print("|---|---|---|---|---|")
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            one_run(os.path.abspath(options.program), folder, options.period)


if __name__ == "__main__":
    main()
