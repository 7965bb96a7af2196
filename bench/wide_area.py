#!/usr/bin/env python3
"""What slow links cost, and what a slow peer costs, beside what others would make of the same.

    bench/wide_area.py [--program build/starling] [--rounds 3] [--json FILE] [overlap short-steps gloo slow-peer]

Devices only take time (`--device emulated:...`), so that two cores can be several machines. Each scenario
takes its contenders in turn, `--rounds` times; of a run the median of its steps counts, without the first,
of the rounds the median.

overlap     3 stages of 1 replica, 112 microbatches per step of 200 ms at each stage, boundaries of 512 KiB
            each way, little state, no delayed commit. On loopback, and with 100 Mbit/s and 50 ms one way per
            peer: the share of tokens/s that is left. Beside it SWARM's law for the same figures,
            Tc / (Tc + Tnet + RTT): it computes, sends and waits one after the other.
short-steps the same with steps of 96 microbatches of 100 ms, and once more with delayed commit.
gloo        2 stages of 1 replica, 48 microbatches of 100 ms, at the bandwidth where an fp32 boundary takes
            200 ms one way: int8 and bf16 boundaries here, bench/peers/pipeline_gloo.py (1F1B, fp32) on the
            same hosts.
slow-peer   4 peers, one of them at half speed, on loopback, 64 microbatches of 40 ms: 2 stages of 2 replicas
            here, two gloo pipelines of 2 stages with all-reduce there.

The first three need root and network namespaces (wan.py); where there are none, they say so and are left out.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile

import swarm as starling
import wan

PEER = os.path.join(starling.ROOT, "bench/peers/pipeline_gloo.py")


class Shape:
    """A model whose boundaries are what a scenario needs, and a step of it."""

    def __init__(self, layers, width, context, microbatches, microbatch_ms, steps):
        self.layers, self.width, self.context = layers, width, context
        self.microbatches, self.microbatch_ms, self.steps = microbatches, microbatch_ms, steps
        self.boundary_bytes = 4 * width * context  # one sequence to a microbatch
        self.tokens = microbatches * context

    def config(self, more=""):
        # The narrowest feed-forward layer: the state is small, as the step's end is not the subject.
        return """
[model]
layers = %d
width = %d
heads = 4
context = %d
mlp_width = 32
[train]
steps = %d
global_batch = %d
microbatch = 1
eval_every = 0
hash_every = 0
%s
""" % (self.layers, self.width, self.context, self.steps, self.microbatches, more)

    def peer(self, options):
        return [options.python, PEER, "--layers", str(self.layers), "--width", str(self.width),
                "--heads", "4", "--context", str(self.context), "--microbatch", "1",
                "--microbatches", str(self.microbatches), "--steps", str(self.steps),
                "--emulated", str(self.microbatch_ms / 1000.0)]


def tokens_per_s(shape, seconds):
    """Of the median step; the first, in which all meet, does not count."""
    return shape.tokens / statistics.median(seconds[1:])


def our_run(options, shape, replicas, network=None, more="", devices=None):
    """`devices`: milliseconds of a microbatch of each replica, in order of the stages."""
    with tempfile.TemporaryDirectory(prefix="starling-bench-") as folder:
        swarm = starling.Swarm(options.program, folder, shape.config(more), network)
        try:
            for stage, count in enumerate(replicas):
                for _ in range(count):
                    place = len(swarm.replicas)
                    ms = devices[place] if devices else shape.microbatch_ms
                    starling.Replica(swarm, stage, "emulated:%gms" % ms)
            limit = 60 + 5 * shape.steps * shape.microbatches * shape.microbatch_ms / 1000.0
            swarm.wait(lambda: swarm.last_step() >= shape.steps - 1, "the run's end", limit)
            swarm.trainer.wait(limit)
            lines = [json.loads(line) for line in open(os.path.join(swarm.directory, "metrics.jsonl"))]
            whole = [line["step_s"] for line in lines if line["replicas"] == list(replicas)]
            return tokens_per_s(shape, whole)
        finally:
            swarm.end()


def gloo_run(options, shape, stages, pipelines=1, network=None, slow=-1):
    command = shape.peer(options) + ["--stages", str(stages), "--pipelines", str(pipelines),
                                     "--slow", str(slow)]
    if network is None:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    else:
        environment = dict(os.environ, GLOO_SOCKET_IFNAME=wan.INTERFACE, TP_SOCKET_IFNAME=wan.INTERFACE)
        processes = []
        for rank in range(stages * pipelines):
            one = command + ["--rank", str(rank), "--meeting", "tcp://%s:29500" % network.address(0)]
            processes.append(subprocess.Popen(network.command(rank, one), env=environment,
                                              stdout=subprocess.PIPE, text=True))
        output = processes[0].communicate()[0]
        for process in processes:
            if process.wait() != 0:
                raise SystemExit("a process of the gloo pipeline failed")
    return tokens_per_s(shape, [json.loads(line)["step_s"] for line in output.splitlines()])


def over_links(options, microbatches, microbatch_ms, delayed):
    """On loopback, over slow links, and if `delayed` over these with delayed commit."""
    mbit, delay_ms, stages = 100, 50, 3
    shape = Shape(layers=3, width=512, context=256, microbatches=microbatches,
                  microbatch_ms=microbatch_ms, steps=3 if options.short else 4)
    later = "delayed_commit = true\n"
    window = "[swarm]\nstages = %d\nwindow = 24\nrebalance = \"0s\"\n" % stages
    rates = {"loopback": [], "wide area": []}
    if delayed:
        rates["delayed"] = []
    for _ in range(options.rounds):
        rates["loopback"].append(our_run(options, shape, [1] * stages, more=window))
        for contender in list(rates)[1:]:
            more = (later if contender == "delayed" else "") + window
            with wan.Network(stages + 1, mbit, delay_ms) as network:
                rates[contender].append(our_run(options, shape, [1] * stages, network, more))
    net_s = 2 * shape.boundary_bytes * 8 / (mbit * 1e6)  # there and back
    compute_s = shape.microbatch_ms / 1000.0
    law = compute_s / (compute_s + net_s + 2 * delay_ms / 1000.0)
    goals = {contender: 0.95 for contender in list(rates)[1:]}
    return {"tokens_per_s": rates, "of": "loopback", "goals": goals,
            "notes": ["boundaries of %d KiB take %.0f ms each way, a microbatch %d ms, a step %.1f s" %
                      (shape.boundary_bytes // 1024, 500 * net_s, shape.microbatch_ms,
                       shape.microbatches * compute_s),
                      "SWARM's law, Tc / (Tc + Tnet + RTT): %.3f" % law],
            "swarm_law": law}


def overlap(options):
    return over_links(options, microbatches=112, microbatch_ms=200, delayed=False)


def short_steps(options):
    return over_links(options, microbatches=96, microbatch_ms=100, delayed=True)


def gloo(options):
    shape = Shape(layers=2, width=512, context=256, microbatches=48, microbatch_ms=100,
                  steps=3 if options.short else 4)
    mbit = shape.boundary_bytes * 8 / (2 * shape.microbatch_ms / 1000.0) / 1e6
    config = "[swarm]\nstages = 2\nwindow = 16\nrebalance = \"0s\"\n[codec]\nforward = \"%s\"\nbackward = \"%s\"\n"
    rates = {"gloo": [], "int8": [], "bf16": []}
    for _ in range(options.rounds):
        with wan.Network(3, mbit, 0) as network:
            rates["gloo"].append(gloo_run(options, shape, 2, network=network))
            for codec in ("int8", "bf16"):
                rates[codec].append(our_run(options, shape, [1, 1], network, config % (codec, codec)))
    return {"tokens_per_s": rates, "of": "gloo", "goals": {"int8": 1.8},
            "notes": ["%.1f Mbit/s per host, so that an fp32 boundary of %d KiB takes %d ms, a microbatch "
                      "%d ms" % (mbit, shape.boundary_bytes // 1024, 2 * shape.microbatch_ms,
                                 shape.microbatch_ms)]}


def slow_peer(options):
    shape = Shape(layers=2, width=64, context=64, microbatches=64, microbatch_ms=40,
                  steps=4 if options.short else 8)
    config = "[swarm]\nstages = 2\nrebalance = \"0s\"\n"
    ms = shape.microbatch_ms
    rates = {"gloo 2x2": [], "2x2": []}
    for _ in range(options.rounds):
        rates["gloo 2x2"].append(gloo_run(options, shape, 2, pipelines=2, slow=3))
        rates["2x2"].append(our_run(options, shape, [2, 2], more=config, devices=[ms, ms, ms, 2 * ms]))
    return {"tokens_per_s": rates, "of": "gloo 2x2", "goals": {"2x2": 1.3},
            "notes": ["the second replica of the last stage takes %d ms, the others %d" % (2 * ms, ms)]}


SCENARIOS = {"overlap": overlap, "short-steps": short_steps, "gloo": gloo, "slow-peer": slow_peer}


def show(name, result):
    print("\n%s" % name)
    rates = result["tokens_per_s"]
    base = statistics.median(rates[result["of"]])
    for contender, rounds in rates.items():
        median = statistics.median(rounds)
        goal = result["goals"].get(contender)
        print("  %-10s %9.1f tokens/s  %.3f of %s%s   rounds %s" % (
            contender, median, median / base, result["of"],
            " (goal %.2f)" % goal if goal else "", " ".join("%.1f" % r for r in rounds)))
    for note in result["notes"]:
        print("  " + note)
    sys.stdout.flush()


def main():
    parser = starling.arguments(__doc__)
    parser.add_argument("what", nargs="*", help="scenarios; default: all")
    parser.add_argument("--python", default="/usr/bin/python3", help="for gloo: one with torch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="fewer steps, one round")
    parser.add_argument("--json", help="write everything measured to this file")
    options = parser.parse_args()
    if options.short:
        options.rounds = 1
    options.program = os.path.abspath(options.program)
    names = options.what or list(SCENARIOS)
    if set(names) - set(SCENARIOS):
        parser.error("scenarios are %s" % ", ".join(SCENARIOS))
    no_network = wan.usable()
    results = {}
    for name in names:
        if name != "slow-peer" and no_network:
            print("%s is left out: %s" % (name, no_network))
            continue
        results[name] = SCENARIOS[name](options)
        show(name, results[name])
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
