"""Is a recorded history linearizable? Could one process alone, one operation after the other, have got these answers?

What: an operation has taken effect at one instant between its beginning and its end, and every answer is what the
sequential store would have answered then (M. Herlihy, J. Wing, Linearizability, 1990). An operation without an end,
of a process that was killed, may have taken effect at any time after its beginning, or never.

How: the search of J. Wing and C. Gong (Testing and verifying concurrent objects, 1993): of the operations that may be
first (nothing ended before they began) one is chosen, tried on the sequential store, and the rest is ordered in the
same way; a dead end goes back to the last choice. After G. Lowe (Testing for linearizability, 2017) a pair of
(operations that have been placed, state) is looked at once only. And after A. Horn and D. Kroening (Faster
linearizability checking via P-compositionality, 2015) a history is linearizable if that of each part is, where keys
that no operation touches together are in different parts.

The sequential store knows versions as far as they were read: a write gives its item a version that nobody knows yet,
but that is greater than all before; the first read tells it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

# Statuses of the engine (status.h).
OK, MISSING, CONDITION, FULL = 0, 1, 2, 5

READS = frozenset({"get", "get_many", "scan"})
NEVER = 0  # the end of an operation that has none
STEPS = 300_000  # of the search, at most: then the history is undecided


class Operation(NamedTuple):
    """A call, and what was answered; in the parts of a killed process the answer means nothing."""

    client: int
    begin: int
    end: int
    kind: str
    status: int
    argument: int  # cas, delete_if: the version that is asked for; delete_many: how many were there
    keys: tuple[int, ...]
    written: tuple[int, ...] = ()  # incr: what is added
    read: tuple[int, ...] = ()  # 0 = absent
    versions: tuple[int, ...] = ()

    def __str__(self) -> str:
        answer = f"status {self.status}" + (f", read {self.read} of versions {self.versions}" if self.read else "")
        when = f"[{self.begin}, {self.end or 'killed'}]"
        return f"{when} client {self.client}: {self.kind} {self.keys} {self.written} ({self.argument}): {answer}"


class Item(NamedTuple):
    """What a key holds."""

    value: int = 0  # 0 = absent
    version: int = 0  # 0 = not read yet
    above: int = 0  # the version of anything newer is greater than this


State = tuple[Item, ...]


class UndecidedError(Exception):
    """The search took too many steps."""


# ---- The sequential store --------------------------------------------------------------------


def _write(item: Item, value: int) -> Item:
    return Item(value, 0, max(item.above, item.version))


def _read(item: Item, value: int, version: int) -> Item | None:
    """The item, its version known; None if it cannot have been read so."""
    if value != item.value:
        return None
    if value == 0 or version == item.version:
        return item
    if item.version or version <= item.above:
        return None
    return Item(value, version, item.above)


def _read_all(items: State, operation: Operation) -> State | None:
    after = []
    for item, value, version in zip(items, operation.read, operation.versions, strict=True):
        seen = _read(item, value, version)
        if seen is None:
            return None
        after.append(seen)
    return tuple(after)


def _condition(item: Item, operation: Operation) -> int:
    """The status that a conditional operation on one key gets."""
    match operation.kind:
        case "add":
            return CONDITION if item.value else OK
        case "replace":
            return OK if item.value else CONDITION
        case "cas":
            # A version that was read before is known by now; an item whose version is not known is newer.
            return OK if item.value and item.version == operation.argument else CONDITION
        case "delete":
            return OK if item.value else MISSING
        case "delete_if":
            if not item.value:
                return MISSING
            return OK if item.version == operation.argument else CONDITION
    return OK


def _on_one(item: Item, operation: Operation, answered: bool) -> Item | None:
    status = _condition(item, operation)
    if answered and operation.status != status:
        return None
    if status != OK:
        return item
    if operation.kind.startswith("delete"):
        return _write(item, 0)
    if operation.kind != "incr":
        return _write(item, operation.written[0])
    value = item.value + operation.written[0]
    return None if answered and operation.read[0] != value else _write(item, value)


def apply(items: State, operation: Operation) -> State | None:
    """What its keys hold after the operation; None if it cannot have answered so."""
    answered = operation.end != NEVER
    if answered and operation.status == FULL and operation.kind not in READS:
        return items
    match operation.kind:
        case "get" | "get_many" | "scan":
            return _read_all(items, operation)
        case "put_many":
            if answered and operation.status != OK:
                return None
            return tuple(map(_write, items, operation.written))
        case "delete_many" | "clear":
            there = sum(item.value != 0 for item in items)
            if answered and operation.kind == "delete_many" and operation.argument != there:
                return None
            return tuple(_write(item, 0) for item in items)
    after = _on_one(items[0], operation, answered)
    return None if after is None else (after,)


# ---- Parts -----------------------------------------------------------------------------------


def parts_of(operations: Iterable[Operation]) -> Iterator[list[Operation]]:
    """The operations by sets of keys that belong together, because operations touch them together."""
    kept = [operation for operation in operations if operation.end != NEVER or operation.kind not in READS]
    leader: dict[int, int] = {}

    def find(key: int) -> int:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    for operation in kept:
        for key in operation.keys[1:]:
            leader[find(key)] = find(operation.keys[0])
    parts: dict[int, list[Operation]] = {}
    for operation in kept:
        parts.setdefault(find(operation.keys[0]), []).append(operation)
    yield from parts.values()


# ---- The search ------------------------------------------------------------------------------


class _Search:
    """The list of calls and ends, by time, from which those of placed operations are taken out."""

    def __init__(self, operations: list[Operation]) -> None:
        self.operations = operations
        keys = sorted({key for operation in operations for key in operation.keys})
        place = {key: i for i, key in enumerate(keys)}
        self.places = [tuple(place[key] for key in operation.keys) for operation in operations]
        self.start: State = tuple(Item() for _ in keys)
        # Entry 0 is the head; operation i has the call 2 i + 1 and, unless it was killed, the end 2 i + 2.
        times = [(operation.begin, 2 * i + 1) for i, operation in enumerate(operations)]
        times += [(operation.end, 2 * i + 2) for i, operation in enumerate(operations) if operation.end != NEVER]
        order = [0] + [entry for _, entry in sorted(times)]
        self.next = [0] * (2 * len(operations) + 3)
        self.previous = [0] * (2 * len(operations) + 3)
        for entry, follower in zip(order, [*order[1:], 0], strict=True):
            self.next[entry], self.previous[follower] = follower, entry

    def take_out(self, entry: int) -> None:
        self.next[self.previous[entry]] = self.next[entry]
        self.previous[self.next[entry]] = self.previous[entry]

    def put_back(self, entry: int) -> None:
        self.next[self.previous[entry]] = entry
        self.previous[self.next[entry]] = entry

    def attempt(self, state: State, number: int) -> State | None:
        places = self.places[number]
        after = apply(tuple(state[place] for place in places), self.operations[number])
        if after is None:
            return None
        items = list(state)
        for place, item in zip(places, after, strict=True):
            items[place] = item
        return tuple(items)

    def run(self, steps: int) -> list[int] | None:
        """None if there is an order; otherwise the longest one that was found, which ends before all are placed."""
        answered = [operation.end != NEVER for operation in self.operations]
        left = sum(answered)
        state, placed, entry = self.start, 0, self.next[0]
        stack: list[tuple[int, State, int]] = []
        seen: set[tuple[int, State]] = set()
        longest: list[int] = []
        while left:
            steps -= 1
            if steps < 0:
                raise UndecidedError
            number = (entry - 1) // 2
            if entry % 2:  # a call: may this operation be the next one?
                after = self.attempt(state, number)
                if after is not None and (placed | 1 << number, after) not in seen:
                    seen.add((placed | 1 << number, after))
                    stack.append((number, state, placed))
                    state, placed = after, placed | 1 << number
                    self.take_out(entry)
                    if answered[number]:
                        self.take_out(entry + 1)
                        left -= 1
                    if len(stack) > len(longest):
                        longest = [choice[0] for choice in stack]
                    entry = self.next[0]
                else:
                    entry = self.next[entry]
            else:  # an end (or that of the list): its operation has to be placed before anything that follows
                if not stack:
                    return longest
                number, state, placed = stack.pop()
                if answered[number]:
                    self.put_back(2 * number + 2)
                    left += 1
                self.put_back(2 * number + 1)
                entry = self.next[2 * number + 1]
        return None


def explain(operations: Iterable[Operation], steps: int = STEPS) -> str | None:
    """None if the history is linearizable, otherwise a text that says what has no place in any order.

    Raises UndecidedError if that took more than `steps` steps.
    """
    for part in parts_of(operations):
        longest = _Search(part).run(steps)
        if longest is not None:
            placed = set(longest)
            order = [str(part[i]) for i in longest]
            rest = sorted((part[i] for i in range(len(part)) if i not in placed), key=lambda operation: operation.begin)
            return "\n".join(
                [
                    f"{len(order)} of {len(part)} operations can be placed, in this order:",
                    *order[-30:],
                    "then none of those that have to come next, which are among:",
                    *map(str, rest[:10]),
                ]
            )
    return None


# ---- Histories as tests/core/history.c writes them ---------------------------------------------


@dataclass
class History:
    seed: int
    operations: list[Operation]


def _numbers(text: str) -> tuple[int, ...]:
    return () if text == "-" else tuple(map(int, text.split(",")))


def _operation(line: str) -> Operation:
    client, begin, end, kind, status, argument, keys, written, read, versions = line.split()
    return Operation(
        int(client), int(begin), int(end), kind, int(status), int(argument), _numbers(keys), _numbers(written),
        _numbers(read), _numbers(versions),
    )  # fmt: skip


def histories_in(text: str) -> Iterator[History]:
    history = History(0, [])
    for line in text.splitlines():
        if line.startswith("history "):
            history = History(int(line.split()[1]), [])
        elif line == "end":
            yield history
        else:
            history.operations.append(_operation(line))
