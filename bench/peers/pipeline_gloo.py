"""Pipelines over torch.distributed with gloo, scheduled 1F1B: prints a line of JSON per step.

/usr/bin/python3 bench/peers/pipeline_gloo.py --stages 2 [--pipelines 2] [--threads 1]

One process per stage and pipeline, all started here; or one of them with --rank, when each runs on another
host (they meet at --meeting tcp://HOST:PORT of rank 0). Each pipeline takes its share of the step's
microbatches; with several the stages' gradients are summed by all-reduce before the update. Sends are
under way while the next microbatch computes, and the next receive is posted before it is needed.

With --emulated SECONDS nothing is computed: a microbatch takes that long at each stage, a third of it
forward, as Starling's `--device emulated:` does, and twice as long at the process named by --slow. Tensors
and gradients have their sizes.
"""

import collections
import os
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing

import model as peer

FORWARD, BACKWARD = 1, 2  # tags


class Link:
    """Tensors of one shape from or to a neighbour, one receive ahead."""

    def __init__(self, rank, tag, size, count):
        self.rank, self.tag, self.size = rank, tag, size
        self.left = count
        self.posted = None
        self.sent = collections.deque()

    def _post(self):
        if self.left == 0:
            return None
        self.left -= 1
        tensor = torch.empty(self.size)
        return tensor, dist.irecv(tensor, self.rank, tag=self.tag)

    def receive(self):
        tensor, work = self.posted or self._post()
        work.wait()
        self.posted = self._post()
        return tensor

    def send(self, tensor):
        tensor = tensor.contiguous()
        self.sent.append((tensor, dist.isend(tensor, self.rank, tag=self.tag)))
        while len(self.sent) > 1 and self.sent[0][1].is_completed():
            self.sent.popleft()

    def flush(self):
        while self.sent:
            self.sent.popleft()[1].wait()


class Stage:
    def __init__(self, shape, rank):
        self.shape = shape
        self.stage = rank % shape.stages
        self.pipeline = rank // shape.stages
        self.rank = rank
        first = self.stage * shape.layers // shape.stages
        end = (self.stage + 1) * shape.layers // shape.stages
        torch.manual_seed(1 + self.stage)  # the same in every pipeline
        self.model = peer.Slice(shape, first, end)
        self.optimizer = peer.optimizer(self.model)
        self.seconds = shape.emulated * (2 if rank == shape.slow else 1)
        # Every process makes every group, in the same order.
        groups = [
            dist.new_group([p * shape.stages + s for p in range(shape.pipelines)])
            for s in range(shape.stages)
        ]
        self.siblings = groups[self.stage]

    def run(self, step):
        """One step. The loss per token where the last stage is, else none."""
        shape = self.shape
        mine = range(self.pipeline, shape.microbatches, shape.pipelines)
        size = (shape.microbatch, shape.context, shape.width)
        links = {
            "in": Link(self.rank - 1, FORWARD, size, len(mine)),
            "out": Link(self.rank + 1, FORWARD, size, len(mine)),
            "gradient in": Link(self.rank + 1, BACKWARD, size, len(mine)),
            "gradient out": Link(self.rank - 1, BACKWARD, size, len(mine)),
        }
        under_way = collections.deque()
        loss = 0.0
        ahead = min(len(mine), shape.stages - self.stage - 1)
        for count, index in enumerate(mine):
            under_way.append(self.forward(step, index, links))
            if count >= ahead:
                loss += self.backward(under_way.popleft(), links)
        while under_way:
            loss += self.backward(under_way.popleft(), links)
        for link in links.values():
            link.flush()
        return self.update(loss)

    def forward(self, step, index, links):
        inputs, targets = peer.microbatch(self.shape, step, index)
        if not self.model.first:
            inputs = links["in"].receive().requires_grad_()
        if self.seconds > 0:
            time.sleep(self.seconds / 3)
            output = torch.zeros(() if self.model.last else links["out"].size)
        else:
            output = self.model(inputs, targets)
        if not self.model.last:
            links["out"].send(output.detach())
        return inputs, output

    def backward(self, entry, links):
        inputs, output = entry
        if self.seconds > 0:
            if not self.model.last:
                links["gradient in"].receive()
            time.sleep(self.seconds * 2 / 3)
            if not self.model.first:
                links["gradient out"].send(torch.zeros(links["gradient out"].size))
            return 0.0
        if self.model.last:
            output.backward()
        else:
            output.backward(links["gradient in"].receive())
        if not self.model.first:
            links["gradient out"].send(inputs.grad)
        return output.item() if self.model.last else 0.0

    def update(self, loss):
        if self.seconds > 0:
            for parameter in self.model.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        gradients = [p.grad for p in self.model.parameters()]
        if self.shape.pipelines > 1:
            flat = torch.cat([g.flatten() for g in gradients])
            dist.all_reduce(flat, group=self.siblings)
            for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients])):
                gradient.copy_(summed.view_as(gradient))
        share = peer.square_sum(gradients) / self.shape.pipelines
        sums = torch.tensor([share, loss], dtype=torch.float64)
        dist.all_reduce(sums)
        tokens = peer.step_tokens(self.shape)
        peer.scale_gradients(gradients, tokens, float(sums[0]))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        return float(sums[1]) / tokens


def work(rank, shape, meeting):
    torch.set_num_threads(shape.threads)
    world = shape.stages * shape.pipelines
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    stage = Stage(shape, rank)
    dist.barrier()
    watch = peer.Stopwatch()
    for step in range(1, shape.steps + 1):
        loss = stage.run(step)
        if rank == 0:
            watch.step(step, loss)
    dist.barrier()
    dist.destroy_process_group()


def main():
    parser = peer.parser(__doc__.splitlines()[0])
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--pipelines", type=int, default=1)
    parser.add_argument("--emulated", type=float, default=0, help="seconds of a microbatch; 0: compute it")
    parser.add_argument("--slow", type=int, default=-1, help="this process takes twice as long (emulated)")
    parser.add_argument("--rank", type=int, help="be this process only")
    parser.add_argument("--meeting", help="tcp://HOST:PORT, with --rank")
    shape = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(shape.threads)
    if shape.rank is not None:
        return work(shape.rank, shape, shape.meeting)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            work, args=(shape, "file://" + folder + "/meeting"), nprocs=shape.stages * shape.pipelines
        )


if __name__ == "__main__":
    main()
