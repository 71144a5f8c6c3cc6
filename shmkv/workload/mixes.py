"""Mixes: which share of a workload's operations reads, and which writes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["get", "put", "rmw"]


@dataclass(frozen=True)
class Mix:
    """`reads` of all operations are `get`; the others are `put`, or read-modify-write."""

    name: str
    reads: float
    write: Kind = "put"

    def choose(self, count: int, rand: random.Random) -> list[bool]:
        """For each of `count` operations: is it a read?"""
        if self.reads in (0.0, 1.0):
            return [self.reads == 1.0] * count
        draw, reads = rand.random, self.reads
        return [draw() < reads for _ in range(count)]


READ_ONLY: Final = Mix("read-only", 1.0)
MOSTLY_READ: Final = Mix("95/5", 0.95)
HALF: Final = Mix("50/50", 0.5)
WRITE_ONLY: Final = Mix("write-only", 0.0)
READ_MODIFY_WRITE: Final = Mix("read-modify-write", 0.0, "rmw")

MIXES: Final = {mix.name: mix for mix in (READ_ONLY, MOSTLY_READ, HALF, WRITE_ONLY, READ_MODIFY_WRITE)}
