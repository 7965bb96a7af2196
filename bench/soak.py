#!/usr/bin/env python3
"""The memory of replicas over time, against what they should need.

    bench/soak.py [--program build/starling] [--minutes 60] [--settle 10] [--replicas 2] [--json FILE]

A swarm of 2 stages with LibTorch trains for so long; every few seconds the resident memory of each replica is
read. The bound of a replica's peak: LibTorch's floor (a replica that has not been let in
anywhere), parameters, gradients and both moments in fp32, what is kept for the backward of as many
microbatches as can be under way at once (of a block per token: 16 widths, and 2.5 * heads * context of
attention, in fp32; an estimate), and 150 MB. The growth is the slope of a straight line through the samples after
`--settle` minutes, per hour; goal: at most 1 MB. With several replicas per stage chance decides how many microbatches
one has under way while a round's buffers are there, so it may be late that one has as much as it may have.
"""

import json
import os
import re
import subprocess
import tempfile
import time

import swarm as starling

LAYERS, WIDTH, HEADS, CONTEXT, MICROBATCH, WINDOW = 6, 384, 6, 128, 2, 8
SPARE = 150e6

CONFIG = """
[model]
preset = "gpt"
layers = %d
width = %d
heads = %d
context = %d
[train]
steps = 100000000
global_batch = 32
microbatch = %d
eval_every = 0
hash_every = 0
[optimizer]
lr = 1e-3
[swarm]
stages = 2
window = %d
""" % (LAYERS, WIDTH, HEADS, CONTEXT, MICROBATCH, WINDOW)


def resident(pid, key):
    """Bytes of VmRSS or VmHWM; none if the process is gone."""
    try:
        text = open("/proc/%d/status" % pid).read()
    except OSError:
        return None
    found = re.search(r"%s:\s+(\d+) kB" % key, text)
    return int(found.group(1)) * 1024 if found else None


def libtorch_floor(program):
    """Of a replica that waits for a trainer that is not there."""
    process = subprocess.Popen([program, "stage", "--join", "tcp://127.0.0.1:9", "--wait"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(5)
    floor = resident(process.pid, "VmRSS")
    process.kill()
    process.wait()
    return floor


def bound(floor, parameters, layers):
    """Its parts in bytes, by name."""
    tokens = MICROBATCH * CONTEXT
    kept = 4 * tokens * layers * (16 * WIDTH + 2.5 * HEADS * CONTEXT)
    return {"floor": floor, "parameters, gradients, moments": 16 * parameters,
            "%d microbatches under way" % WINDOW: WINDOW * kept,
            "spare": SPARE}


def parameters_of(log):
    """As the replica says when it begins: "5,414,400 parameters"."""
    return int(re.search(r"([\d,]+) parameters", log).group(1).replace(",", ""))


def slope_per_hour(samples):
    """Bytes per hour, least squares, of (seconds, bytes)."""
    n = len(samples)
    mean_t = sum(t for t, _ in samples) / n
    mean_b = sum(b for _, b in samples) / n
    spread = sum((t - mean_t) ** 2 for t, _ in samples)
    return 3600 * sum((t - mean_t) * (b - mean_b) for t, b in samples) / spread


def main():
    parser = starling.arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--settle", type=float, default=10, help="minutes before growth counts")
    parser.add_argument("--replicas", type=int, default=2, help="of each stage")
    parser.add_argument("--json", help="write every sample to this file")
    options = parser.parse_args()
    program = os.path.abspath(options.program)
    floor = libtorch_floor(program)
    with tempfile.TemporaryDirectory(prefix="starling-bench-") as folder:
        swarm = starling.Swarm(program, folder, CONFIG)
        try:
            for stage in (0, 1) * options.replicas:
                starling.Replica(swarm, stage, "cpu")
            swarm.wait(lambda: swarm.last_step() >= 1, "the first step", 900)
            began = time.time()
            samples = [[] for _ in swarm.replicas]
            while time.time() < began + 60 * options.minutes:
                time.sleep(5)
                for replica, own in zip(swarm.replicas, samples):
                    now = resident(replica.pid, "VmRSS")
                    if now is None:
                        raise SystemExit("a replica ended: see %s" % folder)
                    own.append((time.time() - began, now))
            peaks = [resident(replica.pid, "VmHWM") for replica in swarm.replicas]
            logs = [open(replica.log.name).read() for replica in swarm.replicas]
            steps = swarm.last_step()
        finally:
            swarm.end()
    settle = 60 * options.settle
    print("%.0f minutes, %d steps; LibTorch's floor %.0f MB" % (options.minutes, steps, floor / 1e6))
    rows = []
    for number, own in enumerate(samples):
        parts = bound(floor, parameters_of(logs[number]), LAYERS / 2)
        late = [sample for sample in own if sample[0] >= settle]
        growth = slope_per_hour(late) / 1e6 if len(late) > 2 else None
        rows.append({"stage": swarm.replicas[number].stage, "peak_bytes": peaks[number],
                     "bound": parts, "growth_mb_per_hour": growth, "samples": own})
        print("stage %d: peak %.0f MB of %.0f (%s); grew by %s MB per hour over the last %.0f minutes" % (
            swarm.replicas[number].stage, peaks[number] / 1e6, sum(parts.values()) / 1e6,
            ", ".join("%s %.0f" % (name, value / 1e6) for name, value in parts.items()),
            "%.2f" % growth if growth is not None else "?", max(0, options.minutes - options.settle)))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file)


if __name__ == "__main__":
    main()
