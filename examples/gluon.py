"""A Gluon block trained with a onepass rule. MXNet 1.9.1, in an environment of its own:

pip install "mxnet==1.9.1" "numpy<1.24" && pip install --no-deps onepass
python examples/gluon.py
"""

import mxnet as mx
from mxnet import autograd, gluon, np, npx

from onepass.functional import init, update

npx.set_np()


class Trainer:
    """As `gluon.Trainer`: steps a block's parameters by the gradients that autograd left in them."""

    def __init__(self, block, rule, **hyperparameters):
        self.params = {name: p for name, p in block.collect_params().items() if p.grad_req != "null"}
        self.state = init({name: p.data() for name, p in self.params.items()}, rule, **hyperparameters)

    def step(self, batch_size, **changes):
        """One step; the gradients are of a sum of losses over the batch, as Gluon's losses have it."""
        values = {name: p.data() for name, p in self.params.items()}
        grads = {name: p.grad() / batch_size for name, p in self.params.items()}
        new, self.state = update(values, grads, self.state, **changes)
        for name, p in self.params.items():
            p.set_data(new[name])


def main():
    mx.random.seed(0)
    x = np.random.normal(size=(256, 4))
    y = np.sin(x @ np.array([0.5, -0.8, 0.3, 0.2])).reshape(-1, 1)

    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Dense(32, activation="tanh", in_units=4), gluon.nn.Dense(1, in_units=32))
    net.initialize(mx.init.Xavier())
    net.hybridize()

    loss_of = gluon.loss.L2Loss()
    trainer = Trainer(net, "adamw", lr=0.05, weight_decay=1e-4)
    for epoch in range(100):
        with autograd.record():
            loss = loss_of(net(x), y)
        loss.backward()
        trainer.step(len(x), lr=0.05 * (1 - epoch / 100))
        if epoch % 20 == 0 or epoch == 99:
            print(f"epoch {epoch:2}  loss {float(loss.mean()):.4f}")


if __name__ == "__main__":
    main()
