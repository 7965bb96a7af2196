#!/usr/bin/env python3
"""`starling bench training` with bench/peers among the contenders.

    bench/train_bench.py build/starling [--peers torch,gloo-2] [any option of `starling bench training`]

    torch       bench/peers/one_process.py, 2 threads
    gloo-2      bench/peers/pipeline_gloo.py, 1F1B over 2 stages, one thread each
    gloo-2x2    two such pipelines with gradient all-reduce (only if asked for)

They train the same model with the same 16 microbatches per step, and the command takes them in turn with its
own contenders: this script only knows how they are called. They need Debian's python3-torch (or --python of
one that has torch 1.13 or newer) and are left out without it.
"""

import argparse
import os
import pathlib
import shlex
import subprocess
import sys

BENCH = pathlib.Path(__file__).resolve().parent


def peer_command(python, name, short):
    if name == "torch":
        command = [python, BENCH / "peers" / "one_process.py", "--threads", "2"]
    else:
        stages, _, pipelines = name.removeprefix("gloo-").partition("x")
        command = [python, BENCH / "peers" / "pipeline_gloo.py", "--threads", "1",
                   "--stages", stages, "--pipelines", pipelines or "1"]
    return shlex.join(str(word) for word in [*command, "--steps", "4" if short else "9"])


def has_torch(python):
    try:
        return subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 0
    except OSError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("starling", help="the command, such as build/starling")
    parser.add_argument("--peers", default="torch,gloo-2", help="separated by commas")
    parser.add_argument("--python", default="/usr/bin/python3", help="for the peers")
    options, rest = parser.parse_known_args()
    names = [name for name in options.peers.split(",") if name]
    unknown = set(names) - {"torch", "gloo-2", "gloo-2x2"}
    if unknown:
        parser.error(f"no peer is called {' or '.join(sorted(unknown))}")
    if names and not has_torch(options.python):
        print(f"{options.python} has no torch (Debian: python3-torch): the peers are left out")
        names = []
    for name in names:
        rest += ["--peer", f"{name}={peer_command(options.python, name, '--short' in rest)}"]
    sys.stdout.flush()
    os.execv(options.starling, [options.starling, "bench", "training", *rest])


if __name__ == "__main__":
    main()
