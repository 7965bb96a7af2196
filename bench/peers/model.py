"""The model that the bench trains with Starling's "gpt" preset, as a PyTorch user would write it.

Pre-norm decoder blocks, learned positions, GELU in its tanh form, biases, an untied head. `Slice` is some
of its layers: all of them in one process, or one stage of a pipeline. Needs torch 1.13 or newer.
"""

import argparse
import math
import time

import torch
import torch.nn.functional as F
from torch import nn


def attention(q, k, v):
    """Causal; q, k, v and the result [sequences, heads, tokens, features]."""
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F._scaled_dot_product_attention(q, k, v, is_causal=True)[0]


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x):
        sequences, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(sequences, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = attention(q, k, v).transpose(1, 2).reshape(sequences, tokens, width)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Slice(nn.Module):
    """Layers [begin, end) of the model, with the embedding before the first and the loss after the last."""

    def __init__(self, shape, begin, end):
        super().__init__()
        width = shape.width
        self.first = begin == 0
        self.last = end == shape.layers
        if self.first:
            self.embed = nn.Embedding(shape.vocabulary, width)
            self.position = nn.Embedding(shape.context, width)
        self.blocks = nn.ModuleList(Block(width, shape.heads) for _ in range(begin, end))
        if self.last:
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, shape.vocabulary, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                deviation = 0.02 / math.sqrt(2 * shape.layers) if residual else 0.02
                nn.init.normal_(parameter, std=deviation)

    def forward(self, x, targets=None):
        """Hidden features or tokens to hidden features; of the last slice, to the sum of the losses."""
        if self.first:
            x = self.embed(x) + self.position.weight[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        if not self.last:
            return x
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def parser(description):
    """The arguments that all peers share; their defaults are train_bench.py's."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--layers", type=int, default=6)
    made.add_argument("--width", type=int, default=384)
    made.add_argument("--heads", type=int, default=6)
    made.add_argument("--context", type=int, default=128)
    made.add_argument("--vocabulary", type=int, default=256)
    made.add_argument("--microbatch", type=int, default=2, help="sequences")
    made.add_argument("--microbatches", type=int, default=16, help="per step")
    made.add_argument("--steps", type=int, default=6)
    made.add_argument("--threads", type=int, default=1, help="of each process")
    return made


def microbatch(shape, step, index):
    """Inputs and targets, the same in every process; what they are does not matter to the speed."""
    generator = torch.Generator().manual_seed(step * shape.microbatches + index)
    size = (shape.microbatch, shape.context + 1)
    tokens = torch.randint(0, shape.vocabulary, size, generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def step_tokens(shape):
    return shape.microbatches * shape.microbatch * shape.context


def optimizer(model):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), foreach=True)


def scale_gradients(gradients, tokens, square_sum):
    """From the gradient of the sum over tokens to that of the mean, clipped to norm 1."""
    norm = math.sqrt(square_sum) / tokens
    torch._foreach_mul_(gradients, min(1.0, 1.0 / (norm + 1e-6)) / tokens)


def square_sum(gradients):
    return sum(float(n) ** 2 for n in torch._foreach_norm(gradients))


class Stopwatch:
    """Prints one line of JSON per step: its number, seconds and loss per token."""

    def __init__(self):
        self.since = time.monotonic()

    def step(self, number, loss):
        now = time.monotonic()
        print(f'{{"step": {number}, "step_s": {now - self.since:.6f}, "loss": {loss:.6f}}}', flush=True)
        self.since = time.monotonic()
