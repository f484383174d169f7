"""Values and gradients against plain `jax.lax`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrl import kernels

TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2}
DTYPES = sorted(TOLERANCE)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def assert_close(actual, expected, tolerance):
    """Largest error relative to the largest value, leaf by leaf."""
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == e.shape
        assert a.dtype == e.dtype
        assert np.abs(a - e).max() <= tolerance * np.abs(e).max()


def value_and_grads(f, args, argnums):
    def scalar(*args):
        out = f(*args)
        leaves = jax.tree.leaves(out)
        return sum((normal(*a.shape, seed=k) * a).sum() for k, a in enumerate(leaves)), out

    (_, out), grads = jax.jit(jax.value_and_grad(scalar, argnums, has_aux=True))(*args)
    return out, grads


def compare(plain, quick, args, argnums, tolerance):
    out, grads = value_and_grads(quick, args, argnums)
    expected, expected_grads = value_and_grads(plain, args, argnums)
    assert_close(out, expected, tolerance)
    assert_close(grads, expected_grads, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "h", "w", "ci", "co", "k"),
    [(1, 10, 10, 8, 12, 3), (37, 10, 10, 4, 6, 3), (29, 9, 7, 3, 5, 3), (2, 8, 8, 4, 4, 5)],
)
def test_conv_same(dtype, n, h, w, ci, co, k):
    args = normal(n, h, w, ci), normal(k, k, ci, co, seed=1)
    compare(
        kernels.plain_conv_same,
        lambda *a: kernels.conv_same(*a, jnp.dtype(dtype).type),
        args,
        (0, 1),
        TOLERANCE[dtype],
    )


@pytest.mark.parametrize(
    ("n", "h", "w", "ci", "co", "k"),
    [(1, 8, 8, 4, 6, 3), (37, 20, 20, 4, 6, 3), (5, 80, 80, 1, 8, 5), (3, 6, 10, 3, 5, 3)],
)
def test_conv_pool(n, h, w, ci, co, k):
    args = normal(n, h, w, ci), normal(k, k, ci, co, seed=1), normal(co, seed=2)
    compare(
        lambda *a: kernels.plain_conv_pool(*a)[0],
        lambda *a: kernels.conv_pool(*a)[0],
        args,
        (0, 1, 2),
        TOLERANCE["float32"],
    )


@pytest.mark.parametrize(("ci", "k"), [(1, 5), (4, 3)])
def test_conv_pool_bfloat16_on_exact_numbers(ci, k):
    # Small integers are exact in bfloat16, so that rounding moves no maximum.
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-2, 3, (9, 12, 12, ci)), jnp.float32)
    kernel = jnp.asarray(rng.integers(-2, 3, (k, k, ci, 6)), jnp.float32)
    bias = normal(6)

    def scalar(f):
        def g(*args):
            return f(*args)[0].sum()

        return g

    quick = scalar(lambda *a: kernels.conv_pool(*a, None, jnp.bfloat16))
    exact = scalar(kernels.conv_pool)
    got = jax.value_and_grad(quick, (0, 1, 2))(x, kernel, bias)
    assert_close(got, jax.value_and_grad(exact, (0, 1, 2))(x, kernel, bias), 1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_first_of_equal_maxima_receives_the_gradient(dtype):
    # A kernel that copies: the output is the pooled input.
    kernel = jnp.zeros((3, 3, 2, 2)).at[1, 1].set(jnp.eye(2))
    window = jnp.asarray([[[1.0, 3.0], [2.0, 3.0]], [[2.0, 1.0], [2.0, 3.0]]])[None]
    d_x = jax.grad(lambda x: kernels.conv_pool(x, kernel, jnp.zeros(2), None, dtype)[0].sum())(
        window
    )
    expected = [[[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
    np.testing.assert_array_equal(d_x[0], np.asarray(expected))


def test_no_gradient_below_zero():
    x, kernel = normal(2, 4, 4, 2), normal(3, 3, 2, 3)
    out, vjp = jax.vjp(lambda *a: kernels.conv_pool(*a)[0], x, kernel, jnp.full(3, -1e3))
    assert not out.any()
    assert all(not g.any() for g in vjp(jnp.ones_like(out)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("t", "b", "first"), [(1, 1, 0.0), (5, 3, 0.3), (4, 7, 1.0)])
def test_convlstm_unroll(dtype, t, b, first):
    c = 6
    args = (normal(t, b, 10, 10, 4 * c), 0.2 * normal(3, 3, c, 4 * c, seed=1))
    args += normal(b, 10, 10, c, seed=2), normal(b, 10, 10, c, seed=3)
    is_first = jnp.asarray(np.random.default_rng(4).random((t, b)) < first)
    compare(
        lambda *a: kernels.plain_convlstm_unroll(*a, is_first)[:2],
        lambda *a: kernels.convlstm_unroll(*a, is_first, None, jnp.dtype(dtype).type)[:2],
        args,
        (0, 1, 2, 3),
        TOLERANCE[dtype],
    )


def test_unroll_equals_steps():
    c, t, b = 4, 6, 2
    gates, kernel = normal(t, b, 10, 10, 4 * c), 0.2 * normal(3, 3, c, 4 * c, seed=1)
    h = cell = normal(b, 10, 10, c, seed=2)
    is_first = jnp.asarray(np.random.default_rng(4).random((t, b)) < 0.3)
    rows, carry, _ = kernels.convlstm_unroll(gates, kernel, h, cell, is_first)
    for k in range(t):
        row, (h, cell), _ = kernels.convlstm_unroll(
            gates[k : k + 1], kernel, h, cell, is_first[k : k + 1]
        )
        np.testing.assert_allclose(row[0], rows[k], atol=1e-5)
    assert_close((h, cell), carry, 1e-5)


@pytest.mark.parametrize("k", [3, 5])
def test_windows_and_shifts_are_the_convolution_before_pooling(k):
    x, kernel = normal(2, 8, 6, 3), normal(k, k, 3, 5, seed=1)
    shifts = kernels._four_shifts(kernel)
    y = kernels._windows(x, k + 1) @ shifts.reshape(-1, 20)
    np.testing.assert_allclose(
        kernels._unblocks(y.reshape(2, 4, 3, 20), 0),
        kernels.plain_conv_same(x, kernel),
        rtol=1e-4,
        atol=1e-4,
    )
    np.testing.assert_array_equal(
        kernels._unblocks(y.reshape(2, 4, 3, 20), 1),
        kernels._unblocks(y.reshape(2, 4, 3, 20), 0)[:, 1:-1, 1:-1],
    )
