"""Swarms of real processes for the scenarios beside this file: started, watched, ended."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time

# So that a script that is asked to end takes its processes along.
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Of every scenario's run file, behind what is its own.
SHARED = """
[data]
text = ["runtime/**/*.cc"]
[local]
replicas = 0
[checkpoint]
every = 0
"""


class Replica:
    """A `starling stage` process; on an emulated network on a host of its own."""

    def __init__(self, swarm, stage, device, extra=()):
        self.stage = stage
        command = [swarm.program, "stage", "--join", swarm.address, "--stage", str(stage),
                   "--device", device, "--threads", "1", *extra]
        if swarm.network:
            host = len(swarm.replicas) + 1
            command += ["--listen", "tcp://%s:*" % swarm.network.address(host)]
            command = swarm.network.command(host, command)
        self.log = open(os.path.join(swarm.folder, "replica-%d.log" % len(swarm.replicas)), "w")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        swarm.replicas.append(self)

    @property
    def pid(self):
        return self.process.pid

    def kill(self):
        """Gives the time of it."""
        now = time.time()
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()
        return now


class Swarm:
    """A run whose trainer starts no replicas. On an emulated network (wan.py) it is on host 0.

    Lines of metrics.jsonl are given the wall time at which they were there, within a millisecond
    or two: `decided[step]`.
    """

    def __init__(self, program, folder, config, network=None):
        self.program = program
        self.network = network
        self.folder = folder
        self.directory = os.path.join(folder, "run")
        self.replicas = []
        self.metrics = {}
        self.decided = {}
        os.makedirs(folder, exist_ok=True)
        run_file = os.path.join(folder, "run.toml")
        with open(run_file, "w") as file:
            file.write(config + SHARED)
        self.log = open(os.path.join(folder, "trainer.log"), "w")
        command = [program, "train", run_file, "--run-dir", self.directory]
        if network:
            command.append("--swarm.listen=tcp://%s:*" % network.address(0))
            command = network.command(0, command)
        self.trainer = subprocess.Popen(command, cwd=ROOT, stdout=self.log,
                                        stderr=subprocess.STDOUT)
        self.address = self._wait_for_address()
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _wait_for_address(self):
        path = os.path.join(self.directory, "address")
        while not (os.path.exists(path) and os.path.getsize(path) > 0):
            if self.trainer.poll() is not None:
                raise SystemExit(open(os.path.join(self.folder, "trainer.log")).read())
            time.sleep(0.01)
        return open(path).read().strip()

    def _watch(self):
        path = os.path.join(self.directory, "metrics.jsonl")
        rest = ""
        file = None
        while not self._stop.is_set():
            if file is None and os.path.exists(path):
                file = open(path)
            text = file.read() if file else ""
            now = time.time()
            rest += text
            while "\n" in rest:
                line, rest = rest.split("\n", 1)
                entry = json.loads(line)
                self.metrics[entry["step"]] = entry
                self.decided[entry["step"]] = now
            time.sleep(0.001)

    def last_step(self):
        return max(self.decided, default=0)

    def wait(self, condition, what, limit=120):
        until = time.time() + limit
        while not condition():
            if self.trainer.poll() is not None:
                raise SystemExit("the trainer ended while waiting for %s: see %s" %
                                 (what, self.folder))
            for replica in self.replicas:
                if replica.process.poll() not in (None, 0, -signal.SIGKILL):
                    raise SystemExit("a replica failed while waiting for %s:\n%s" %
                                     (what, open(replica.log.name).read()))
            if time.time() > until:
                raise SystemExit("waited %d s for %s: see %s" % (limit, what, self.folder))
            time.sleep(0.001)

    def wait_for_step(self, step):
        self.wait(lambda: self.last_step() >= step, "step %d" % step)

    def wait_for_replicas(self, counts):
        """Until the newest step was taken by so many of each stage."""
        self.wait(lambda: self.metrics and self.metrics[self.last_step()]["replicas"] == counts,
                  "replicas %s" % counts)

    def first_decided_by(self, counts):
        """When the first step that was taken by so many of each stage was decided."""
        return self.decided[min(s for s, line in self.metrics.items()
                                if line["replicas"] == counts)]

    def events(self, name=None):
        path = os.path.join(self.directory, "events.jsonl")
        found = []
        for line in open(path) if os.path.exists(path) else ():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if name is None or event["event"] == name:
                found.append(event)
        return found

    def end(self):
        """Kills what is left."""
        self._stop.set()
        self._watcher.join()
        for process in [self.trainer] + [replica.process for replica in self.replicas]:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        self.log.close()


def arguments(description):
    """A parser with what all scenarios take."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=os.path.join(ROOT, "build/starling"))
    return parser


def cpu_busy():
    """(busy, all) ticks of the machine, to say how much else ran."""
    numbers = [int(n) for n in open("/proc/stat").readline().split()[1:]]
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)
