#!/usr/bin/env python3
"""What delayed commit gains where rounds are slow.

2 stages x 2 replicas whose devices only take time, 16 microbatches a step, gradients of 6.3 MB a stage.
All processes share one link, of each of the rates in turn (a network namespace whose loopback a
token bucket limits: as root), without and with train.delayed_commit, in turn. Prints the median tokens/s
of the steps after the fourth, and what a step takes.

    bench/delayed.py [--program build/starling] [--rates 0,400,200] [--time 50ms] [--steps 14] [--repeats 1]
"""

import os
import statistics
import subprocess
import sys
import tempfile

import swarm as starling

CONFIG = """
[model]
layers = 4
width = 256
heads = 4
context = 64
[train]
steps = 1000000
global_batch = 16
microbatch = 1
eval_every = 0
hash_every = 0
delayed_commit = %s
[swarm]
stages = 2
"""
NAMESPACE = "starling-delayed"


def limit(rate):
    command = ["tc", "qdisc", "replace", "dev", "lo", "root"]
    if rate:
        command += ["tbf", "rate", "%dmbit" % rate, "burst", "256kb", "latency", "2s"]
    else:
        command += ["pfifo"]
    subprocess.run(command, check=True)


def one_run(options, folder, delayed):
    swarm = starling.Swarm(os.path.abspath(options.program), folder,
                           CONFIG % ("true" if delayed else "false"))
    try:
        for stage in (0, 1):
            for _ in range(2):
                starling.Replica(swarm, stage, "emulated:" + options.time)
        swarm.wait_for_step(options.steps)
        lines = [line for step, line in swarm.metrics.items() if 4 < step <= options.steps]
        return (statistics.median(line["tokens_per_s"] for line in lines),
                statistics.median(line["step_s"] for line in lines))
    finally:
        swarm.end()


def main():
    parser = starling.arguments(__doc__)
    parser.add_argument("--rates", default="0,400,200", help="Mbit/s; 0: no limit")
    parser.add_argument("--time", default="50ms", help="of a microbatch on a device")
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    if os.environ.get("STARLING_NAMESPACE") != NAMESPACE:
        subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
        try:
            inside = ["ip", "netns", "exec", NAMESPACE]
            subprocess.run(inside + ["ip", "link", "set", "lo", "up"], check=True)
            ended = subprocess.run(inside + [sys.executable] + sys.argv,
                                   env=dict(os.environ, STARLING_NAMESPACE=NAMESPACE))
        finally:
            subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)
        sys.exit(ended.returncode)
    print("| link, Mbit/s | tokens/s without | with | ratio | step, s, without | with |")
    print("|---|---|---|---|---|---|")
    for rate in [int(rate) for rate in options.rates.split(",")]:
        limit(rate)
        for _ in range(options.repeats):
            figures = []
            for delayed in (False, True):
                with tempfile.TemporaryDirectory() as folder:
                    figures.append(one_run(options, folder, delayed))
            (without, step), (with_it, delayed_step) = figures
            print("| %s | %.0f | %.0f | %.2f | %.3f | %.3f |" % (
                rate or "no limit", without, with_it, with_it / without, step, delayed_step), flush=True)


if __name__ == "__main__":
    main()
