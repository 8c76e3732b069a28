"""Arrays that are spread over a mesh of devices: the states lie as the parameters do, and the numbers are the same."""

import os
import subprocess
import sys

import pytest

CODE = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import NamedSharding, PartitionSpec
import onepass.jax
from onepass import average, centralize, clip_norm

assert jax.device_count() == 4
mesh = jax.make_mesh((2, 2), ("data", "model"))
how = {"w": NamedSharding(mesh, PartitionSpec("data", "model")), "b": NamedSharding(mesh, PartitionSpec("model"))}
start = {"w": jnp.arange(32.0).reshape(8, 4) / 32 - 0.4, "b": jnp.linspace(-1, 1, 4)}
tx = getattr(onepass.jax, sys.argv[1])(0.1, transforms=[centralize(), clip_norm(1.0), average(0.9)])

def run(params, jit):
    def step(params, state):
        updates, state = tx.update(jax.tree.map(lambda p: jnp.tanh(p) - 0.3, params), state, params)
        return optax.apply_updates(params, updates), state

    state = (jax.jit(tx.init) if jit else tx.init)(params)
    for _ in range(7):
        params, state = jax.jit(step)(params, state)
    return params, state

whole, states = run(start, False)
for jit in (False, True):
    spread, kept = run(jax.device_put(start, how), jit)
    for key, tree in [("params", spread), *kept.states.items()]:
        for name, x in tree.items():
            expected = whole[name] if key == "params" else states.states[key][name]
            np.testing.assert_allclose(x, expected, rtol=2e-6, atol=1e-7)
            if x.ndim:
                assert x.sharding.is_equivalent_to(how[name], x.ndim), (key, name, x.sharding)
"""


@pytest.mark.parametrize("name", ["adamw", "nadam", "radam"])
def test_a_mesh_of_four_devices(name):
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run([sys.executable, "-c", CODE, name], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
