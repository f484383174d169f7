"""Mask-Attention A3C in JAX: actor-critic agents on Atari that show why they act."""

__version__ = "0.1.0"
