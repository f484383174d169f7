"""Network, loss and optimiser once more: plain NumPy, float64, loops, nothing of `maskrl`.

Written from the paper and its equations, to check `maskrl` against where the original is missing.
Images are NHWC, kernels [k, k, in, out]; parameters are named as in `maskrl` (nested dicts).
"""

import numpy as np


def float64(tree):
    """The tree of parameters in float64."""
    if isinstance(tree, dict):
        return {name: float64(branch) for name, branch in tree.items()}
    return np.asarray(tree, np.float64)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def convolve(x, params):
    """Stride 1, zeros around: [N, H, W, I] -> [N, H, W, O]."""
    kernel, bias = params["kernel"], params["bias"]
    size, (_, height, width, _) = kernel.shape[0], x.shape
    edge = size // 2
    padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    seen = [padded[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
    return np.concatenate(seen, axis=-1) @ kernel.reshape(-1, kernel.shape[3]) + bias


def max_pool(x):
    """The maximum of every 2 x 2 square."""
    corners = [x[:, i::2, j::2] for i in range(2) for j in range(2)]
    return np.max(corners, axis=0)


def torso(x, params):
    """conv 5x5 (32), conv 3x3 (32), conv 3x3 (64), each -> max-pool -> ReLU."""
    for name in ("conv1", "conv2", "conv3"):
        x = np.maximum(max_pool(convolve(x, params[name])), 0)
    return x


def branch(hidden, params):
    """[B, 10, 10, 64] -> (output [B, n], mask [B, 10, 10] or None)."""
    features = np.maximum(convolve(hidden, params["features"]), 0)
    mask = None
    if "mask" in params:
        mask = sigmoid(convolve(hidden, params["mask"]))[..., 0]
        features = features * mask[..., None]
    return features.reshape(len(hidden), -1) @ params["kernel"] + params["bias"], mask


def network(params, observation, hidden, cell, is_first):
    """All rows, one by one: observation [T, B, 80, 80, 1], hidden and cell [B, 10, 10, 64].

    Returns a dict of lists over time, `logits`, `value`, `policy_mask`, `value_mask`, `hidden`,
    and the last `cell`.
    """
    out = {name: [] for name in ("logits", "value", "policy_mask", "value_mask", "hidden")}
    for x, first in zip(observation, is_first, strict=True):
        x = torso(x, params)
        if "gates" in params:
            hidden, cell = np.array(hidden), np.array(cell)
            hidden[first] = cell[first] = 0
            gates = convolve(np.concatenate([x, hidden], axis=-1), params["gates"])
            i, f, o, g = (gates[..., 64 * n : 64 * (n + 1)] for n in range(4))
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(cell)
        else:
            hidden = x
        logits, policy_mask = branch(hidden, params["policy"])
        value, value_mask = branch(hidden, params["value"])
        step = (logits, value[:, 0], policy_mask, value_mask, hidden)
        for name, here in zip(out, step, strict=True):
            out[name].append(here)
    return out | {"cell": cell}


def returns(rewards, discounts, is_first, values):
    """The n-step return of every transition, [T + 1, B] each -> [T, B].

    Row 0's reward belongs to the unroll before; discounts hold gamma.
    """
    out = np.array(values[:-1])
    for b in range(values.shape[1]):
        total = values[-1, b]
        for t in reversed(range(len(out))):
            if is_first[t + 1, b]:
                total = values[t, b]
            else:
                total = rewards[t + 1, b] + discounts[t + 1, b] * total
            out[t, b] = total
    return out


def advantages(rewards, discounts, is_first, values, lambda_):
    """GAE as a sum of one-step errors, weighted by the powers of gamma lambda."""
    steps, batch = len(values) - 1, values.shape[1]
    out = np.zeros((steps, batch))
    for b in range(batch):
        for t in range(steps):
            weight = 1.0
            for k in range(t, steps):
                if is_first[k + 1, b]:  # no transition: an episode ended in row k
                    break
                error = rewards[k + 1, b] + discounts[k + 1, b] * values[k + 1, b] - values[k, b]
                out[t, b] += weight * error
                weight *= lambda_ * discounts[k + 1, b]
    return out


def loss(logits, values, action, is_first, advantage, target, entropy_cost, value_cost):
    """Sum over the T transitions, mean over the B actors; advantage and target are constants."""
    total = 0.0
    steps, batch = action.shape
    for t in range(steps):
        for b in range(batch):
            if is_first[t + 1, b]:
                continue
            p = np.exp(logits[t][b] - logits[t][b].max())
            p /= p.sum()
            total -= np.log(p[action[t, b]]) * advantage[t, b]
            total += entropy_cost * np.sum(p * np.log(p))
            total += value_cost * 0.5 * (target[t, b] - values[t][b]) ** 2
    return total / batch


def amsgrad(params, gradients, learning_rate, eps, b1=0.9, b2=0.999):
    """The parameters after the steps of their AMSGrad along a list of gradients (arrays)."""
    m = v = largest = np.zeros_like(params)
    for t, gradient in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * gradient
        v = b2 * v + (1 - b2) * gradient**2
        largest = np.maximum(largest, v)  # of the uncorrected second moment
        size = learning_rate * np.sqrt(1 - b2**t) / (1 - b1**t)
        params = params - size * m / (np.sqrt(largest) + eps)
    return params
