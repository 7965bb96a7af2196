"""One process that trains the whole model with plain PyTorch: prints a line of JSON per step.

/usr/bin/python3 bench/peers/one_process.py --threads 2
"""

import torch

import model as peer


def main():
    shape = peer.parser(__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(shape.threads)
    torch.manual_seed(1)
    model = peer.Slice(shape, 0, shape.layers)
    optimizer = peer.optimizer(model)
    tokens = peer.step_tokens(shape)
    watch = peer.Stopwatch()
    for step in range(1, shape.steps + 1):
        loss = 0.0
        for index in range(shape.microbatches):
            inputs, targets = peer.microbatch(shape, step, index)
            loss_sum = model(inputs, targets)
            loss_sum.backward()
            loss += loss_sum.item()
        gradients = [p.grad for p in model.parameters()]
        peer.scale_gradients(gradients, tokens, peer.square_sum(gradients))
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        watch.step(step, loss / tokens)


if __name__ == "__main__":
    main()
