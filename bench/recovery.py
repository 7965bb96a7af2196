#!/usr/bin/env python3
"""How long a step takes in which one of the two replicas of a stage is killed.

3 stages x 2 replicas whose devices only take time (--device emulated:40ms), on loopback. In a step
of M microbatches of t seconds one of two replicas is killed at some share of it. The other one then
has to do what is left of the step at its stage: all M microbatches less those it has done itself,
so that from the step's beginning on it is at work all the time. The remaining work at the remaining
speed therefore ends M * t after the step began, and what the step took beyond that is the cost of
finding out and of mending. A step without a death takes M * t / 2 and its own overhead.

    bench/recovery.py [--program build/starling] [--repeats 3]
"""

import os
import statistics
import tempfile
import time

import swarm as starling

MICROBATCHES = 32
MICROBATCH_S = 0.040
STAGES = 3
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)

CONFIG = """
[model]
layers = 6
width = 32
heads = 2
context = 32
[train]
steps = 1000000
global_batch = %d
microbatch = 2
eval_every = 0
hash_every = 0
[swarm]
stages = %d
rebalance = "0s"
""" % (2 * MICROBATCHES, STAGES)


def one_death(swarm, stage, share):
    """Gives (kill to decision, bound, beyond it) in seconds, and the step's line."""
    begin = swarm.last_step()
    swarm.wait_for_step(begin + 3)
    begin = swarm.last_step()
    began = swarm.decided[begin]
    usual = MICROBATCHES * MICROBATCH_S / 2
    time.sleep(max(0.0, began + share * usual - time.time()))
    victims = [r for r in swarm.replicas if r.stage == stage and r.process.poll() is None]
    killed = victims[0].kill()
    swarm.wait_for_step(begin + 1)
    took = swarm.decided[begin + 1] - killed
    bound = began + MICROBATCHES * MICROBATCH_S - killed
    return took, bound, took - bound, swarm.metrics[begin + 1]


def main():
    parser = starling.arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    device = "emulated:%dms" % round(1000 * MICROBATCH_S)
    with tempfile.TemporaryDirectory() as folder:
        swarm = starling.Swarm(os.path.abspath(options.program), folder, CONFIG)
        try:
            for stage in range(STAGES):
                for _ in range(2):
                    starling.Replica(swarm, stage, device)
            swarm.wait_for_replicas([2] * STAGES)
            swarm.wait_for_step(swarm.last_step() + 10)
            last = swarm.last_step()
            usual = statistics.median([swarm.metrics[s]["step_s"] for s in range(last - 8, last + 1)])
            print("a step without a death: %.3f s (work at full speed: %.3f s)" %
                  (usual, MICROBATCHES * MICROBATCH_S / 2))
            print("| stage | killed at | kill to decision, s | remaining work at the remaining "
                  "speed, s | beyond it, median (most), s | replayed |")
            print("|---|---|---|---|---|---|")
            beyond_all = []
            for stage in range(STAGES):
                for share in SHARES:
                    results = []
                    for _ in range(options.repeats):
                        swarm.wait_for_replicas([2] * STAGES)
                        results.append(one_death(swarm, stage, share))
                        starling.Replica(swarm, stage, device)
                    beyond = [r[2] for r in results]
                    beyond_all += beyond
                    print("| %d | %d %% | %.3f | %.3f | %.3f (%.3f) | %s |" % (
                        stage, round(100 * share), statistics.median([r[0] for r in results]),
                        statistics.median([r[1] for r in results]), statistics.median(beyond),
                        max(beyond), ", ".join(str(r[3]["replayed"]) for r in results)),
                        flush=True)
            print("beyond the bound, all %d: median %.3f s, most %.3f s" %
                  (len(beyond_all), statistics.median(beyond_all), max(beyond_all)))
        finally:
            swarm.end()


if __name__ == "__main__":
    main()
