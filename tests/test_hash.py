"""XXH3 of the project's own writing equals the reference."""

from __future__ import annotations

import random
from typing import Any

import pytest
import xxhash

from shmkv._core import xxh3_64

SEEDS = [0, 1, 2**32, 2**63, 2**64 - 1, 0x9E3779B185EBCA87]


@pytest.mark.parametrize("seed_of_hash", SEEDS)
def test_every_length_to_1024(rng: random.Random, seed_of_hash: int) -> None:
    data = rng.randbytes(1024)
    for length in range(1025):
        part = data[:length]
        assert xxh3_64(part, seed_of_hash) == xxhash.xxh3_64_intdigest(part, seed_of_hash), length


def test_every_alignment(rng: random.Random) -> None:
    data = rng.randbytes(1200)
    for length in (0, 1, 3, 4, 8, 9, 16, 17, 128, 129, 240, 241, 256, 1024):
        for start in range(64):
            part = data[start : start + length]
            assert xxh3_64(part, 7) == xxhash.xxh3_64_intdigest(part, 7)


def test_longer_ones(rng: random.Random) -> None:
    for _ in range(150):
        data = rng.randbytes(rng.randrange(1025, 70_000))
        seed = rng.getrandbits(64)
        assert xxh3_64(data, seed) == xxhash.xxh3_64_intdigest(data, seed), len(data)
        assert xxh3_64(data) == xxhash.xxh3_64_intdigest(data)


def test_around_its_blocks_and_stripes(rng: random.Random) -> None:
    for around in (64, 128, 240, 512, 1024, 2048, 4096, 65_536, 1 << 20):
        data = rng.randbytes(around + 65)
        for length in range(around - 2, around + 66):
            seed = rng.getrandbits(64)
            assert xxh3_64(data[:length], seed) == xxhash.xxh3_64_intdigest(data[:length], seed), length


@pytest.mark.parametrize("data", [bytes(300), b"\xff" * 300, bytes(range(256))])
def test_plain_data(data: bytes) -> None:
    for length in range(len(data)):
        assert xxh3_64(data[:length]) == xxhash.xxh3_64_intdigest(data[:length])


@pytest.mark.parametrize("data", ["text", 5, None])
def test_only_bytes(data: Any) -> None:
    with pytest.raises(TypeError):
        xxh3_64(data)
