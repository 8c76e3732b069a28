"""`onepass.jax`: every rule as an optax transformation, alone and inside what optax makes of transformations."""

import inspect
import pickle
from contextlib import nullcontext

import golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onepass
import onepass.jax
from onepass import clip_norm, decay, lookahead
from onepass.functional import init, list_rules, update

pytestmark = pytest.mark.filterwarnings("error")


def tree():
    params = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": (jnp.array([0.1, 0.2]), None)}
    return params, gradients(params)


def gradients(params):
    return jax.tree.map(lambda p: jnp.tanh(p) - 0.3, params)


def run(tx, params, grads_of=gradients, steps=7, jit=True):
    @(jax.jit if jit else lambda f: f)
    def step(params, state):
        updates, state = tx.update(grads_of(params), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def assert_close(ours, theirs, rtol=2e-6, atol=1e-7):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), ours, theirs)


def follow(case, dtype):
    known = golden.load(case)
    # In float64 where that is switched on; optax's own schedules count in float32.
    scheduled = (lambda count: golden.LR * (1 - count.astype(float) / 24)) if case.is_scheduled else golden.LR
    form = decay.independent(golden.WEIGHT_DECAY, lr_max=golden.LR) if case.is_scheduled else case.weight_decay
    tx = getattr(onepass.jax, case.rule)(scheduled, weight_decay=form, transforms=case.transforms)
    params = [jnp.asarray(p, dtype) for p in known.start]
    state, worst, jitted = tx.init(params), 0.0, jax.jit(tx.update)
    for t in range(1, golden.STEPS + 1):
        grads = [jnp.asarray(g, dtype) for g in known.gradients[t - 1]]
        updates, state = jitted(grads, state, params)
        params = optax.apply_updates(params, updates)
        if t in known.params:
            worst = max(worst, golden.error(params, known.params[t]))
    assert all(x.dtype == dtype for x in jax.tree.leaves((params, state.states)))
    return max([worst, *(golden.error(state.states[key], value) for key, value in known.states.items())])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rule", golden.RULES)
def test_golden_trajectories(rule, dtype):
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        for case in (golden.Case(rule, "independent", "plain"), golden.Case(rule, "none", "mask")):
            assert follow(case, dtype) < golden.bound(dtype), case


# Against optax, where the variant is the same

SAME = {
    "adam": (lambda: onepass.jax.adam(0.1), lambda: optax.adam(0.1)),
    "adamw": (lambda: onepass.jax.adamw(0.1, weight_decay=0.1), lambda: optax.adamw(0.1, weight_decay=0.1)),
    "sgd": (lambda: onepass.jax.sgd(0.1), lambda: optax.sgd(0.1)),
    "momentum": (lambda: onepass.jax.momentum(0.1, momentum=0.8), lambda: optax.sgd(0.1, momentum=0.8)),
    "nesterov": (
        lambda: onepass.jax.nesterov(0.1, momentum=0.8),
        lambda: optax.sgd(0.1, momentum=0.8, nesterov=True),
    ),
    "rmsprop": (
        lambda: onepass.jax.rmsprop(0.1, alpha=0.9, eps=1e-6),
        lambda: optax.rmsprop(0.1, decay=0.9, eps=1e-6, eps_in_sqrt=False),
    ),
    "adadelta": (
        lambda: onepass.jax.adadelta(1.0, rho=0.9, eps=1e-6),
        lambda: optax.adadelta(1.0, rho=0.9, eps=1e-6),
    ),
    "schedule": (
        lambda: onepass.jax.adamw(optax.cosine_decay_schedule(0.1, 20)),
        lambda: optax.adamw(optax.cosine_decay_schedule(0.1, 20), weight_decay=1e-2),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_it_steps_as_optax_does(name):
    """In float64: in float32, optax's own correction of Adam's bias is off by 6e-5 at first."""
    with jax.enable_x64(True):
        start = jax.tree.map(lambda p: p.astype("float64"), tree()[0])
        ours, theirs = (run(make(), start, steps=12)[0] for make in SAME[name])
        assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


# What is known only while it runs


def test_without_jit_and_with():
    for name in ("radam", "nadam"):
        tx = getattr(onepass.jax, name)(0.1, transforms=[clip_norm(1.0)])
        (ours, mine), (theirs, others) = run(tx, tree()[0], jit=False), run(tx, tree()[0])
        assert_close(ours, theirs)
        assert_close(mine, others)
        jax.tree.map(lambda a, b: (a.dtype, a.shape) == (b.dtype, b.shape) or pytest.fail(f"{a} {b}"), mine, others)


def test_the_state_keeps_its_types_in_a_scan():
    params, grads = tree()
    for name in ("momentum", "nadam", "ranger"):
        tx = getattr(onepass.jax, name)(0.1, transforms=[clip_norm(1.0)])

        def body(carry, _, tx=tx):
            updates, state = tx.update(grads, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        (scanned, state), _ = jax.lax.scan(body, (params, tx.init(params)), length=5)
        looped, last = run(tx, params, lambda _: grads, steps=5)
        assert_close((scanned, state), (looped, last))


def test_hyperparameters_are_injected():
    tx = optax.inject_hyperparams(onepass.jax.adamw)(learning_rate=0.1, weight_decay=0.05)
    params, state = tree()[0], None
    state = tx.init(params)
    assert set(state.hyperparams) >= {"learning_rate", "weight_decay", "eps"}
    step = jax.jit(tx.update)
    plain = onepass.jax.adamw(0.1, weight_decay=0.05)
    expected = run(plain, params)[0]
    for _ in range(7):
        updates, state = step(gradients(params), state, params)
        params = optax.apply_updates(params, updates)
    assert_close(params, expected, rtol=1e-5)
    state.hyperparams["learning_rate"] = jnp.asarray(0.0)
    updates, _ = step(params, state, params)
    assert all((u == 0).all() for u in jax.tree.leaves(updates))


def test_a_schedule_may_be_given_for_any_hyperparameter():
    falling = onepass.jax.adamw(0.1, weight_decay=optax.linear_schedule(0.5, 0.0, 7), betas=(0.9, jnp.asarray(0.99)))
    params, state = tree()[0], None
    state = init(params, "adamw", lr=0.1, weight_decay=0.5, betas=(0.9, 0.99))
    p = params
    for t in range(7):
        p, state = update(p, gradients(p), state, weight_decay=0.5 * (1 - t / 7))
    assert_close(run(falling, params)[0], p)


def test_vmap_over_learning_rates_and_seeds():
    def train(lr, key):
        params = {"w": jax.random.normal(key, (3,))}
        tx = onepass.jax.radam(lr, weight_decay=0.1)
        state = tx.init(params)
        for _ in range(7):
            updates, state = tx.update(params, state, params)
            params = optax.apply_updates(params, updates)
        return params["w"]

    rates, keys = jnp.array([0.1, 0.01]), jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(jax.vmap(train, (None, 0)), (0, None)))(rates, keys)
    for i, rate in enumerate(rates):
        for j, key in enumerate(keys):
            np.testing.assert_allclose(together[i, j], train(rate, key), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", ["adamw", "radam"])
def test_a_hypergradient_equals_finite_differences(name, jit):
    """RAdam's adaptive branch is NaN before it may be taken: nothing of that reaches the gradient."""
    with jax.enable_x64(True):

        def loss(lr):
            w = jnp.array([1.0, -2.0, 0.5])
            tx = getattr(onepass.jax, name)(lr)
            state = tx.init(w)

            def body(carry, _):
                w, state = carry
                updates, state = tx.update(jax.grad(lambda w: (w**4).sum())(w), state, w)
                return (optax.apply_updates(w, updates), state), None

            (w, _), _ = jax.lax.scan(body, (w, state), length=7) if jit else (loop(body, (w, state)), None)
            return (w**4).sum()

        def loop(body, carry):
            for _ in range(5):
                carry, _ = body(carry, None)
            return carry

        slope = jax.grad(loss)(0.05)
        h = 1e-6
        assert float(slope) == pytest.approx(float(loss(0.05 + h) - loss(0.05 - h)) / (2 * h), rel=1e-6)


# Inside optax's own


def test_chain_and_accumulation():
    params = tree()[0]
    tx = optax.MultiSteps(optax.chain(optax.clip_by_global_norm(1.0), onepass.jax.adamw(0.1)), every_k_schedule=2)
    other = optax.MultiSteps(
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1, weight_decay=1e-2)), every_k_schedule=2
    )
    assert_close(run(tx, params)[0], run(other, params)[0], rtol=1e-5)


def test_masks_and_partitions():
    params = tree()[0]
    masked = optax.masked(onepass.jax.adam(0.1), {"w": True, "b": (False, None)})
    ours, state = run(masked, params, lambda _: tree()[1])
    assert_close(ours["w"], run(onepass.jax.adam(0.1), {"w": params["w"]}, lambda _: {"w": tree()[1]["w"]})[0]["w"])
    assert isinstance(state.inner_state.states["exp_avg"]["b"][0], optax.MaskedNode)
    nothing = optax.masked(onepass.jax.adam(0.1, transforms=[clip_norm(1.0)]), False)
    run(nothing, params)
    parts = optax.partition(
        {"matrix": onepass.jax.nadam(0.1), "rest": onepass.jax.sgd(0.5)}, {"w": "matrix", "b": ("rest", None)}
    )
    ours, _ = run(parts, params)
    assert_close(ours["w"], run(onepass.jax.nadam(0.1), {"w": params["w"]})[0]["w"])
    assert_close(ours["b"], run(optax.sgd(0.5), params)[0]["b"])


def test_apply_if_finite_leaves_everything():
    params = tree()[0]
    tx = optax.apply_if_finite(onepass.jax.adamw(0.1), max_consecutive_errors=3)
    state = tx.init(params)
    updates, after = tx.update(jax.tree.map(lambda x: x * jnp.nan, params), state, params)
    assert all((u == 0).all() for u in jax.tree.leaves(updates))
    assert_close(after.inner_state, state.inner_state)


def test_any_pytree():
    @jax.tree_util.register_pytree_node_class
    class Layer:
        def __init__(self, w):
            self.w = w

        def tree_flatten(self):
            return (self.w,), None

        @classmethod
        def tree_unflatten(cls, _, children):
            return cls(*children)

    params = [Layer(jnp.ones(2)), (None, np.ones(3, "float32"))]
    new, state = run(onepass.jax.adamw(0.1), params)
    assert isinstance(new[0], Layer)
    assert isinstance(state.states["exp_avg"][0], Layer)
    assert_close(new[0].w, run(onepass.jax.adamw(0.1), jnp.ones(2))[0])


def test_donated_buffers_are_used_again():
    params = {"w": jnp.ones((64, 64))}
    for name in ("adamw", "momentum", "ranger"):
        more = [] if name == "ranger" else [lookahead(k=2)]
        tx = getattr(onepass.jax, name)(0.1, transforms=[*more, onepass.average(0.9)])

        def step(params, state, grads, tx=tx):
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        expected, _ = run(tx, params, lambda p: jax.tree.map(jnp.ones_like, p), steps=6)
        now, state = jax.tree.map(jnp.copy, params), tx.init(params)
        jitted = jax.jit(step, donate_argnums=(0, 1))
        aliased = jitted.lower(now, state, params).compile().memory_analysis().alias_size_in_bytes
        assert aliased >= 64 * 64 * 4 * (1 + len(state.states))
        for _ in range(6):
            before = now["w"]
            now, state = jitted(now, state, {"w": jnp.ones((64, 64))})
            assert before.is_deleted()
        assert_close(now, expected)


def test_a_state_can_be_saved_as_arrays(tmp_path):
    params = tree()[0]
    tx = onepass.jax.nadam(0.1, transforms=[clip_norm(1.0)])
    half, state = run(tx, params, steps=3)
    leaves, form = jax.tree.flatten(state)
    np.savez(tmp_path / "state.npz", *leaves)
    with np.load(tmp_path / "state.npz") as file:
        loaded = jax.tree.unflatten(form, [file[f"arr_{i}"] for i in range(len(leaves))])
    for again in (loaded, pickle.loads(pickle.dumps(state))):
        updates, _ = jax.jit(tx.update)(params, again, half)
        assert_close(updates, jax.jit(tx.update)(params, state, half)[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", list_rules())
def test_bfloat16_parameters_stay_and_lose_no_more_than_their_storage_does(name):
    start = jnp.linspace(-2, 2, 64, dtype="bfloat16")
    tx = getattr(onepass.jax, name)(0.1)
    params, mine = start, tx.init(start)
    known, state = start, init(start, name, lr=0.1)
    for _ in range(3):
        updates, mine = tx.update(known, mine, known)
        assert updates.dtype == jnp.bfloat16
        params = optax.apply_updates(known, updates)
        new, state = update(known, known, state)
        wide, after = params.astype("float32"), new.astype("float32")
        # The update is rounded, and the sum again: half a unit of the update's last place, and of the parameter's.
        np.testing.assert_allclose(wide, after, rtol=2**-8, atol=2**-8 * float(jnp.abs(updates).max()))
        known = new
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(mine.states) if x.ndim)
    wide, _ = tx.update(known.astype("float32"), mine, known)
    assert wide.dtype == jnp.float32


# What help() shows, and errors


@pytest.mark.parametrize("name", list_rules())
def test_the_signature_says_what_there_is(name):
    factory = getattr(onepass.jax, name)
    parameters = inspect.signature(factory).parameters
    items = dict(init(jnp.zeros(1), name).recipe.items)
    assert {"learning_rate", "weight_decay", "transforms", "maximize"} <= set(parameters)
    assert {key: x.default for key, x in parameters.items() if key in items} == {
        key: x for key, x in items.items() if key != "lr"
    }
    assert factory.__name__ == name
    assert "θₜ" in factory.__doc__
    assert name in onepass.jax.__all__


def test_a_rule_of_ones_own():
    @onepass.rule(lr=0.5)
    def halved(g, *, share=0.5):
        return share * g

    factory = onepass.jax.optimizer(halved)
    assert list(inspect.signature(factory).parameters)[:2] == ["learning_rate", "share"]
    params, _ = run(factory(share=1.0, weight_decay=0.5), jnp.ones(2), lambda p: jnp.ones(2), steps=1)
    np.testing.assert_allclose(params, [0.25, 0.25])


ONE = {"a": jnp.ones(2)}


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"learning_rate": -1.0}, ValueError, r"adam: lr must lie in \[0, inf\)"),
        ({"learning_rate": "0.1"}, TypeError, "without the quotes"),
        ({"lr": 0.1}, TypeError, "adam: got an unexpected keyword argument 'lr'; it takes learning_rate, betas"),
        ({"b1": 0.9}, TypeError, "unexpected keyword argument 'b1'"),
        ({"eps": -1.0}, ValueError, "eps must lie in"),
        ({"learning_rate": onepass.schedules.linear(1.0, 0.0, steps=5)}, TypeError, "give a schedule of optax's"),
        (
            {"learning_rate": optax.linear_schedule(1.0, 0.0, 5), "weight_decay": decay.independent(0.1)},
            ValueError,
            r"weight_decay=decay.independent\(0.1, lr_max=...\)",
        ),
    ],
)
def test_factories_refuse_what_they_do_not_know(arguments, kind, message):
    with pytest.raises(kind, match=message):
        onepass.jax.adam(**arguments)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((ONE,), ValueError, r"adam steps from the parameters: call update\(grads, state, params\)"),
        (({"a": None}, ONE), ValueError, r"updates\['a'\] is missing \(None\)"),
        (({"b": jnp.ones(2)}, ONE), ValueError, "updates is not of the parameters' form"),
        (({"a": jnp.ones(3)}, ONE), ValueError, r"updates\['a'\] has the shape \(3,\), and params\['a'\] \(2,\)"),
        (({"a": jnp.ones(2, int)}, ONE), TypeError, r"updates\['a'\] is of type int32"),
    ],
)
def test_updates_refuse_what_does_not_fit(arguments, kind, message):
    tx = onepass.jax.adam()
    grads, *params = arguments
    with pytest.raises(kind, match=message):
        tx.update(grads, tx.init(ONE), *params)


def test_other_refusals():
    with pytest.raises(ValueError, match="it was made by another transformation"):
        onepass.jax.adam().update(ONE, onepass.jax.sgd().init(ONE), ONE)
    with pytest.raises(TypeError, match=r"params\['a'\] is of type int32"):
        onepass.jax.adam().init({"a": jnp.ones(2, int)})
    with pytest.raises(ValueError, match="lr must lie in"):
        onepass.jax.adam(jnp.asarray(-1.0)).init(ONE)
    with pytest.raises(ValueError, match="unknown rule 'adma'"):
        onepass.jax.optimizer("adma")
