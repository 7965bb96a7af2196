#!/usr/bin/env python3
"""What the codecs of boundaries cost a pipeline whose links are fast.

3 stages of one replica whose devices only take time, 32 microbatches a step, boundaries of 4 MiB in fp32, over
loopback; each codec for both directions, in turn. Prints the median step of each run without the first
two, and for what shares of it the devices compute, wait for codecs, and for the next pass to be handed over.

    bench/codec_cost.py [--program build/starling] [--time 10ms] [--steps 10] [--repeats 1]
"""

import os
import statistics
import tempfile

import swarm as starling

CONFIG = """
[model]
layers = 3
width = 256
heads = 4
context = 1024
[train]
steps = 1000000
global_batch = 128
microbatch = 4
eval_every = 0
hash_every = 0
[codec]
forward = "%s"
backward = "%s"
rounding = "%s"
[swarm]
stages = 3
"""
CODECS = (("raw", "nearest"), ("bf16", "nearest"), ("int8", "nearest"), ("int8", "stochastic"),
          ("int4", "nearest"), ("int4", "stochastic"))
PARTS = {"compute": ("forward", "backward"), "wait for codecs": ("decoding", "encoding"),
         "are handed a pass": ("handover",)}


def one_run(options, folder, codec, rounding):
    swarm = starling.Swarm(os.path.abspath(options.program), folder,
                           CONFIG % (codec, codec, rounding))
    try:
        for stage in range(3):
            starling.Replica(swarm, stage, "emulated:" + options.time)
        swarm.wait_for_step(options.steps)
        lines = [line for step, line in swarm.metrics.items() if 2 < step <= options.steps]
        step = statistics.median(line["step_s"] for line in lines)
        return [step] + [
            statistics.mean(sum(replica.get(part, 0) for part in parts)
                            for line in lines for replica in line["time"]) / step
            for parts in PARTS.values()]
    finally:
        swarm.end()


def main():
    parser = starling.arguments(__doc__)
    parser.add_argument("--time", default="10ms", help="of a microbatch on a device")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    runs = {codec: [] for codec in CODECS}
    for _ in range(options.repeats):
        for codec in CODECS:
            with tempfile.TemporaryDirectory(prefix="starling-bench-") as folder:
                runs[codec].append(one_run(options, folder, *codec))
    print("| codec | step, s (lowest, highest) | %s |" % " | ".join(PARTS))
    print("|---" * (2 + len(PARTS)) + "|")
    for codec, figures in runs.items():
        steps, *shares = zip(*figures)
        print("| %s, %s | %.3f (%.3f, %.3f) | %s |" % (
            *codec, statistics.median(steps), min(steps), max(steps),
            " | ".join("%.1f %%" % (100 * statistics.median(share)) for share in shares)))


if __name__ == "__main__":
    main()
