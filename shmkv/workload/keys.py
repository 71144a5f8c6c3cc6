"""Keys and the order in which a workload asks for them.

A key stream yields *indexes* 0 <= i < n, in lists, because a workload also needs the index (for
the value's equation); `key_of` and `keys_of` turn them into the keys of every benchmark of this
project: `user:00000042`, 13 characters.  New `str` objects are made each time, so that no store
and no dict profits from a cached hash or from being handed its own key object.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Final, Literal

KEY_FORMAT: Final = "user:%08d"
KEY_BYTES: Final = 13

Distribution = Literal["uniform", "zipfian"]
DISTRIBUTIONS: Final[tuple[Distribution, ...]] = ("uniform", "zipfian")

Stream = Callable[[int], list[int]]
"""`stream(count)` answers the next `count` indexes."""


def key_of(index: int) -> str:
    """The key of one index.

    >>> key_of(42)
    'user:00000042'
    """
    return KEY_FORMAT % index


def keys_of(indexes: Iterable[int]) -> list[str]:
    """New key objects for `indexes`."""
    return list(map(KEY_FORMAT.__mod__, indexes))


def uniform(n: int, seed: int) -> Stream:
    """Every index equally often.

    >>> stream = uniform(1_000, seed=1)
    >>> all(0 <= i < 1_000 for i in stream(100))
    True
    """
    rand = random.Random(seed).random
    # int(random() * n) is three times as fast as randrange(n); with 53 random bits its bias
    # for n <= 2**32 is below 1e-6.
    return lambda count: [int(rand() * n) for _ in range(count)]


def zipfian(n: int, seed: int, theta: float = 0.99) -> Stream:
    """Index popularity falls as 1 / rank**theta; the popular ones are spread over all indexes.

    Gray et al., "Quickly Generating Billion-Record Synthetic Databases" (SIGMOD 1994), with the
    theta of YCSB: at n = 1,000,000 the most popular key takes 6.5 % of all requests.

    >>> stream = zipfian(1_000, seed=1)
    >>> from collections import Counter
    >>> Counter(stream(10_000)).most_common(1)[0][1] > 1_000
    True
    """
    if not 0 < theta < 1:
        raise ValueError(f"theta must lie between 0 and 1, not {theta}")
    if n < 3:
        return uniform(n, seed)
    rand = random.Random(seed).random
    total = zeta(n, theta)
    second = 1.0 + 0.5**theta
    alpha = 1.0 / (1.0 - theta)
    eta = (1.0 - (2.0 / n) ** (1.0 - theta)) / (1.0 - (1.0 + 0.5**theta) / total)
    stride = _coprime_stride(n)

    def next_indexes(count: int) -> list[int]:
        out: list[int] = []
        append = out.append
        for _ in range(count):
            u = rand()
            uz = u * total
            if uz < 1.0:
                rank = 0
            elif uz < second:
                rank = 1
            else:
                rank = int(n * (eta * u - eta + 1.0) ** alpha)
            append(rank * stride % n)
        return out

    return next_indexes


def stream_of(distribution: Distribution, n: int, seed: int) -> Stream:
    """The stream with this name."""
    return uniform(n, seed) if distribution == "uniform" else zipfian(n, seed)


def zeta(n: int, theta: float) -> float:
    """Sum of 1 / i**theta for i in 1..n, for 0 < theta < 1.

    The head is summed, the tail is Euler-Maclaurin's: ten million terms would take a second.

    >>> abs(zeta(50_000, 0.99) - sum(i**-0.99 for i in range(1, 50_001))) < 1e-9
    True
    """
    head = min(n, 10_000)
    total = math.fsum(i**-theta for i in range(1, head + 1))
    if n > head:
        integral = (n ** (1 - theta) - head ** (1 - theta)) / (1 - theta)
        total += integral + (n**-theta - head**-theta) / 2
        total -= theta / 12 * (n ** (-theta - 1) - head ** (-theta - 1))
    return total


def _coprime_stride(n: int) -> int:
    """A step near the golden section of n, so that rank * step % n is a permutation."""
    step = max(1, int(n * 0.6180339887))
    while math.gcd(step, n) != 1:
        step += 1
    return step
