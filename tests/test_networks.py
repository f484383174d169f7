"""The network's variants, interventions and initialisation."""

import functools
import math

import jax
import numpy as np
import pytest
from samples import agent_with, random_trajectory

from maskrl.networks import Interventions

VARIANTS = ("both", "policy", "value", "none")


@functools.cache
def setting(mask, core="convlstm"):
    """(agent, parameters) with a policy that has something to say."""
    agent = agent_with(mask=mask, core=core)
    params = jax.tree.map(np.array, agent.init_params(jax.random.PRNGKey(0)))
    params["policy"]["kernel"] *= 100
    return agent, params


def apply(mask, interventions=None, core="convlstm"):
    """The output on a random trajectory of 4 rows and 2 actors, and the carry."""
    agent, params = setting(mask, core)
    t = random_trajectory(np.random.default_rng(1), 3, 2, 4)
    return _apply(agent)(
        params, t.observation, t.initial_carry, t.is_first, interventions or Interventions()
    )


@functools.cache
def _apply(agent):
    return jax.jit(agent.apply)


@pytest.mark.parametrize("core", ["convlstm", "none"])
@pytest.mark.parametrize("mask", VARIANTS)
def test_outputs(mask, core):
    """Shapes [T, B, ...]; None where there is no mask; masks between 0 and 1."""
    output, carry = apply(mask, core=core)
    shapes = {
        "logits": (4, 2, 4),
        "value": (4, 2),
        "policy_features": (4, 2, 10, 10, 32),
        "value_features": (4, 2, 10, 10, 32),
        "torso": (4, 2, 10, 10, 64),
        "hidden": (4, 2, 10, 10, 64),
    }
    for name, shape in shapes.items():
        assert getattr(output, name).shape == shape, name
    assert carry.hidden.shape == carry.cell.shape == (2, 10, 10, 64)
    for branch in ("policy", "value"):
        m, logits = getattr(output, f"{branch}_mask"), getattr(output, f"{branch}_mask_logits")
        if mask in ("both", branch):
            assert m.shape == (4, 2, 10, 10)
            np.testing.assert_allclose(m, 1 / (1 + np.exp(-logits)), atol=1e-6)
            assert 0 < m.min() < m.max() < 1
        else:
            assert m is None
            assert logits is None


def test_core_none_has_no_memory():
    """Every row's output is that of the row alone, and the carry comes back as it went in."""
    agent, params = setting("both", "none")
    t = random_trajectory(np.random.default_rng(1), 3, 2, 4)
    output, carry = apply("both", core="none")
    alone, _ = agent.apply(params, t.observation[2:3], t.initial_carry, t.is_first[2:3])
    np.testing.assert_allclose(output.logits[2], alone.logits[0], atol=1e-5)
    np.testing.assert_array_equal(carry.hidden, t.initial_carry.hidden)


def test_first_rows_forget():
    """From its first row on, an episode does not depend on the carry; before it, it does."""
    agent, params = setting("both")
    t = random_trajectory(np.random.default_rng(1), 3, 2, 4)  # both actors start at row 2
    other = jax.tree.map(lambda x: x + 1, t.initial_carry)
    a, _ = apply("both")
    b, _ = _apply(agent)(params, t.observation, other, t.is_first, Interventions())
    np.testing.assert_array_equal(a.hidden[2:], b.hidden[2:])
    assert np.all(np.abs(a.hidden[:2] - b.hidden[:2]).max(axis=(2, 3, 4)) > 1e-3)


def head_by_hand(output, params, branch, mask):
    """The branch's output from its named features, with another mask."""
    features = np.float64(getattr(output, f"{branch}_features")) * mask[..., None]
    return features.reshape(4, 2, -1) @ params[branch]["kernel"] + params[branch]["bias"]


def test_interventions_on_the_policy():
    """Each is what it says; masks of the other branch and the value do not move."""
    _, params = setting("both")
    kept, _ = apply("both")
    given = np.random.default_rng(2).random((10, 10), np.float32)
    expected = {
        "keep": np.float64(kept.policy_mask),
        "invert": 1 - np.float64(kept.policy_mask),
        "ones": np.ones((4, 2, 10, 10)),
        "given": np.broadcast_to(given, (4, 2, 10, 10)),
    }
    for name, mask in expected.items():
        output, _ = apply("both", Interventions(policy=name, policy_map=given))
        np.testing.assert_allclose(output.policy_mask, mask, atol=1e-6)
        logits = head_by_hand(kept, params, "policy", mask)
        np.testing.assert_allclose(output.logits, logits, atol=1e-4, err_msg=name)
        for same in ("value", "value_mask", "policy_mask_logits", "hidden"):
            np.testing.assert_allclose(getattr(output, same), getattr(kept, same), atol=1e-6)
        if name != "keep":
            assert np.abs(output.logits - kept.logits).max() > 0.01


def test_interventions_on_the_value():
    _, params = setting("both")
    kept, _ = apply("both")
    output, _ = apply("both", Interventions(value="invert"))
    value = head_by_hand(kept, params, "value", 1 - np.float64(kept.value_mask))[..., 0]
    np.testing.assert_allclose(output.value, value, atol=1e-4)
    np.testing.assert_allclose(output.logits, kept.logits, atol=1e-6)
    np.testing.assert_allclose(output.policy_mask, kept.policy_mask, atol=1e-6)


def test_inverting_twice_is_keeping():
    """The inverted mask, given and inverted by hand, is the mask; so are the logits."""
    kept, _ = apply("both")
    inverted, _ = apply("both", Interventions(policy="invert"))
    twice, _ = apply(
        "both", Interventions(policy="given", policy_map=1 - np.asarray(inverted.policy_mask))
    )
    np.testing.assert_allclose(twice.policy_mask, kept.policy_mask, atol=1e-6)
    np.testing.assert_allclose(twice.logits, kept.logits, atol=1e-4)


def test_ones_is_the_network_without_mask():
    """The same parameters less the mask's, in the variant without it."""
    agent, _ = setting("none")
    _, params = setting("both")
    params = {k: {n: v for n, v in p.items() if n != "mask"} for k, p in params.items()}
    t = random_trajectory(np.random.default_rng(1), 3, 2, 4)
    plain, _ = _apply(agent)(params, t.observation, t.initial_carry, t.is_first, Interventions())
    ones, _ = apply("both", Interventions(policy="ones", value="ones"))
    np.testing.assert_allclose(ones.logits, plain.logits, atol=1e-5)
    np.testing.assert_allclose(ones.value, plain.value, atol=1e-5)


@pytest.mark.parametrize(
    ("mask", "interventions"),
    [
        ("value", Interventions(policy="invert")),
        ("policy", Interventions(value="ones")),
        ("none", Interventions(policy="given", policy_map=np.ones((10, 10)))),
        ("both", Interventions(policy="blur")),
    ],
)
def test_impossible_interventions(mask, interventions):
    with pytest.raises(ValueError, match=r"mask|intervention"):
        apply(mask, interventions)


FAN_IN = {"conv1": 25, "conv2": 9 * 32, "conv3": 9 * 32, "gates": 9 * 128}
FAN_OUT = {"conv1": 25 * 32, "conv2": 9 * 32, "conv3": 9 * 64, "gates": 9 * 256}


def test_initialisation_of_convolutions():
    """Uniform Glorot, times sqrt(2) but for the gates; biases within 1 / sqrt(fan-in).

    Uniform: all within the bound, the greatest close to it, the variance a third of its square.
    """
    _, params = setting("both")
    layers = {name: (params[name], FAN_IN[name], FAN_OUT[name]) for name in FAN_IN}
    for branch in ("policy", "value"):
        layers[f"{branch} features"] = (params[branch]["features"], 64, 32)
        layers[f"{branch} mask"] = (params[branch]["mask"], 64, 1)
    for name, (layer, fan_in, fan_out) in layers.items():
        gain = 1 if name == "gates" else math.sqrt(2)
        for numbers, bound in (
            (layer["kernel"], gain * math.sqrt(6 / (fan_in + fan_out))),
            (layer["bias"], 1 / math.sqrt(fan_in)),
        ):
            assert np.abs(numbers).max() <= bound * 1.0001, name
            if numbers.size >= 32:
                assert np.abs(numbers).max() > 0.85 * bound, name
                assert numbers.min() < -0.5 * bound, name
            if numbers.size > 500:
                np.testing.assert_allclose(numbers.var(), bound**2 / 3, rtol=0.1, err_msg=name)


def test_initialisation_of_dense_layers():
    """Rows of length 0.01 (policy) and 1 (value), in all directions; no bias."""
    params = agent_with().init_params(jax.random.PRNGKey(0))
    for branch, length, rows in (("policy", 0.01, 4), ("value", 1.0, 1)):
        kernel = np.asarray(params[branch]["kernel"])
        assert kernel.shape == (3200, rows)
        np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), length, rtol=1e-5)
        assert np.abs(kernel.mean()) < 0.1 * kernel.std()
        assert not np.any(params[branch]["bias"])


def test_another_key_gives_other_parameters():
    agent, params = setting("both")
    other = agent.init_params(jax.random.PRNGKey(1))
    same = jax.tree.map(lambda a, b: bool(np.any(a == b) and np.any(a)), params, other)
    assert not any(jax.tree.leaves(same))
