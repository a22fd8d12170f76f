"""Named streams of randomness: one integer seed, many independent generators, nothing global."""

import hashlib

import numpy as np


def stream(seed: int, name: str, *index: int) -> np.random.Generator:
    """Return the generator of stream `name` under `seed`; `index` picks a member (for instance an epoch).

    The same arguments give the same numbers on every machine; any other argument gives independent ones.

    Returns
    -------
    numpy.random.Generator
        At the beginning of its stream.

    Examples
    --------
    >>> int(stream(0, "order", 3).integers(1000)) == int(stream(0, "order", 3).integers(1000))
    True
    """
    return np.random.default_rng(np.random.SeedSequence([_word(name), _non_negative(seed), *index]))


def torch_seed(seed: int, name: str, *index: int) -> int:
    """Return a 63-bit seed for a `torch.Generator`, drawn from the named stream."""
    return int(stream(seed, name, *index).integers(2**63))


def _word(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _non_negative(seed: int) -> int:
    return seed if seed >= 0 else 2**64 + seed
