"""The same as tests/core/torture.c through `shmkv.Store`: threads, os.fork in the middle, descriptors closed, kills.

A lane is a set of keys that one thread writes, step after step. Which step removes and which writes, and how much,
follows from key and number; `begun` and `done` stand in memory that outlives the writer. So whoever reads `done`, the
store and `begun`, in this order, has to find one of the steps from the first to the last. A worker is a process with a
thread for each of its lanes; a thread forks now and then, and the child goes on with its lane.

    python -m campaigns.python_torture SEED SECONDS
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import mmap
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

from helpers import MIB, SharedInts, check, sealed, unique_name, unseal

from shmkv import Store, StoreFullError

from .campaign import Figures, join

WORKERS = 3
THREADS = 2
LANES = WORKERS * THREADS
KEYS = 16
GROUP = 10  # keys of a lane that are written together
TRACKS = KEYS + 2  # and one for the group, one for the meter
GROUP_TRACK, METER_TRACK = KEYS, KEYS + 1
CROWD = 3000
SIZES = [20, 60, 200, 1500, 9000]
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

_libc = ctypes.CDLL(None, use_errno=True)


class Complaint:
    """What a child has found, where its parent can read it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8192)

    def write(self, text: str) -> None:
        raw = text.encode()[-8000:]
        self._memory[: len(raw)] = raw

    def __str__(self) -> str:
        return self._memory[:].rstrip(b"\0").decode(errors="replace")


class Log:
    """What all lanes have begun and done, and how much they did."""

    def __init__(self) -> None:
        self.begun = SharedInts(LANES * TRACKS)
        self.done = SharedInts(LANES * TRACKS)
        self.added = SharedInts(LANES)  # acknowledged additions to the common counter
        self.adding = SharedInts(LANES)  # begun ones
        self.operations = SharedInts(LANES + 1)
        self.guests = SharedInts(LANES)
        self.guest_kills = SharedInts(LANES)
        self.complaint = Complaint()


def removes(key: str, step: int) -> bool:
    return step == 0 or zlib.crc32(f"{key}#{step}".encode()) % 5 == 0


def effect(key: str, step: int) -> int:
    """What is seen after this step: its number, or 0 = absent."""
    return 0 if removes(key, step) else step


def value_of(key: str, step: int) -> bytes:
    return sealed(key, step, SIZES[zlib.crc32(f"{step}#{key}".encode()) % len(SIZES)])


def step_in(key: str, value: bytes | None) -> int:
    if value is None:
        return 0
    step = unseal(key, value)
    assert value == value_of(key, step), f"{key}: step {step} with {len(value)} bytes"
    return step


class Round:
    """One store, and who works in it."""

    def __init__(self, store: Store, lossy: bool, scarce: bool) -> None:
        self.store = store
        self.lossy = lossy
        self.scarce = scarce
        self.log = Log()

    # ---- Judging ------------------------------------------------------------------------

    def judge(self, key: str, floor: int, seen: int, ceiling: int) -> None:
        if seen:
            fine = floor <= seen <= ceiling and not removes(key, seen)
        else:
            fine = self.lossy or any(removes(key, step) for step in range(floor, ceiling + 1))
        assert fine, f"{key}: read step {seen} while {floor} was done before and {ceiling} begun"

    def group_step(self, lane: int) -> int:
        """The step that all keys of the group show at one instant; 0 = none is there."""
        keys = group_keys(lane)
        found = self.store.get_many(keys)
        steps = {step_in(key, value) for key, value in found.items()}
        assert len(steps) <= 1, f"group {lane} has parts of {sorted(steps)}"
        assert self.lossy or len(found) in (0, len(keys)), f"group {lane} has {len(found)} of {len(keys)} keys"
        return steps.pop() if steps else 0

    def settle_track(self, lane: int, track: int, name: str, seen: int, when: str) -> None:
        log, at = self.log, lane * TRACKS + track
        done, begun = log.done[at], log.begun[at]
        plain = track == METER_TRACK  # no step of a meter removes it
        before, after = (done, begun) if plain else (effect(name, done), effect(name, begun))
        assert seen in (before, after) or (self.lossy and seen == 0), (
            f"{name} {when}: holds step {seen}, {done} was acknowledged, {begun} begun"
        )
        if seen == after or (self.lossy and seen == 0):
            log.done[at] = begun
        if plain:
            log.begun[at] = log.done[at]

    def settle(self, lane: int, when: str) -> None:
        """After a death, when nobody else writes the lane: each step in flight has happened or it has not."""
        for i in range(KEYS):
            key = own_key(lane, i)
            self.settle_track(lane, i, key, step_in(key, self.store.get(key)), when)
        self.settle_track(lane, GROUP_TRACK, group_keys(lane)[0], self.group_step(lane), when)
        self.settle_track(lane, METER_TRACK, f"meter:{lane}", self.store.get(f"meter:{lane}", 0), when)

    # ---- What a lane does ---------------------------------------------------------------

    def step(self, lane: int, track: int, call: Callable[[int], None]) -> None:
        log, at = self.log, lane * TRACKS + track
        number = log.begun[at] + 1
        log.begun[at] = number
        if self.succeeds(lambda: call(number)):
            log.done[at] = number
        elif track == METER_TRACK:
            log.begun[at] = number - 1

    def succeeds(self, call: Callable[[], object]) -> bool:
        try:
            call()
        except StoreFullError:
            assert self.scarce
            self.store.delete_many([f"crowd:{random.randrange(CROWD)}" for _ in range(60)])
            return False
        return True

    def write_own(self, lane: int, rng: random.Random) -> None:
        i = rng.randrange(KEYS)
        key = own_key(lane, i)

        def call(number: int) -> None:
            if removes(key, number):
                self.store.delete(key)
            else:
                self.store[key] = value_of(key, number)

        self.step(lane, i, call)
        seen, done = step_in(key, self.store.get(key)), self.log.done[lane * TRACKS + i]
        assert seen == effect(key, done) or (self.lossy and seen == 0), f"{key}: reads {seen} after writing {done}"

    def write_group(self, lane: int) -> None:
        keys = group_keys(lane)

        def call(number: int) -> None:
            if removes(keys[0], number):
                self.store.delete_many(keys)
            else:
                self.store.put_many({key: value_of(key, number) for key in keys})

        self.step(lane, GROUP_TRACK, call)

    def count(self, lane: int) -> None:
        def call(number: int) -> None:
            result = self.store.incr(f"meter:{lane}", 1, initial=number - 1)
            assert result == number, f"meter {lane} counts {result} at step {number}"

        self.step(lane, METER_TRACK, call)
        if not self.lossy:
            self.log.adding[lane] += 1
            if self.succeeds(lambda: self.store.incr("counter")):
                self.log.added[lane] += 1

    def crowd(self, rng: random.Random) -> None:
        key = f"crowd:{rng.randrange(CROWD)}"
        kind = rng.random()
        if kind < 0.3:
            self.store.delete(key)
        else:
            size = rng.choice(SIZES) if kind < 0.98 else 40_000
            ttl = 0.03 if kind > 0.95 else None
            self.succeeds(lambda: self.store.put(key, sealed(key, 1, size), ttl=ttl))
        other = f"crowd:{rng.randrange(CROWD)}"
        value = self.store.get(other)
        if value is not None:
            unseal(other, value)

    def operate(self, lane: int, rng: random.Random) -> None:
        kind = rng.random()
        if kind < 0.45:
            self.write_own(lane, rng)
        elif kind < 0.6:
            self.write_group(lane)
        elif kind < 0.7:
            self.count(lane)
        elif kind < 0.999:
            self.crowd(rng)
        else:
            self.store.compact()
        self.log.operations[lane] += 2  # each of them writes and reads

    # ---- Processes ----------------------------------------------------------------------

    def guest(self, lane: int, rng: random.Random) -> None:
        """A fork in the middle: the child goes on with the lane, while other threads of the parent work on theirs."""
        seed, kill = rng.random(), rng.random() < 0.5
        pid = os.fork()
        if pid == 0:
            own = random.Random(seed)
            self.end_with(lambda: self.visit(lane, own))
        self.log.guests[lane] += 1
        if kill:
            time.sleep(rng.random() * 0.01)
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, -signal.SIGKILL), f"a guest ended with {code}"
        self.log.guest_kills[lane] += code != 0
        self.settle(lane, "after a guest")

    def visit(self, lane: int, rng: random.Random) -> None:
        signal.alarm(60)
        if rng.random() < 0.4:
            os.closerange(3, 65536)
        for _ in range(rng.randrange(10, 300)):
            self.operate(lane, rng)

    def work_on(self, lane: int, rng: random.Random) -> None:
        next_guest = time.monotonic() + rng.random()
        while True:
            self.operate(lane, rng)
            if time.monotonic() > next_guest:
                self.guest(lane, rng)
                next_guest = time.monotonic() + 0.1 + rng.random()

    def work(self, worker: int, seed: float) -> None:
        rng = random.Random(seed)
        self.begin_life(rng)
        lanes = range(worker * THREADS, (worker + 1) * THREADS)
        for lane in lanes:
            self.settle(lane, "after a kill")
        for lane in lanes[1:]:
            own = random.Random(rng.random())
            threading.Thread(
                target=lambda lane=lane, own=own: self.end_with(lambda: self.work_on(lane, own)), daemon=True
            ).start()
        self.work_on(lanes[0], rng)

    def read(self, seed: float) -> None:
        rng = random.Random(seed)
        log = self.log
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        reading = Store.attach(self.store.name, readonly=True)
        self.store = reading
        while True:
            lane = rng.randrange(LANES)
            track = rng.randrange(TRACKS)
            at = lane * TRACKS + track
            floor = log.done[at]
            if track == METER_TRACK:
                seen = reading.get(f"meter:{lane}", 0)
                assert floor <= seen <= log.begun[at] or (self.lossy and seen == 0), (
                    f"meter {lane}: {seen}, not {floor} to {log.begun[at]}"
                )
            elif track == GROUP_TRACK:
                self.judge(group_keys(lane)[0], floor, self.group_step(lane), log.begun[at])
            else:
                key = own_key(lane, track)
                self.judge(key, floor, step_in(key, reading.get(key)), log.begun[at])
            log.operations[LANES] += 1

    def begin_life(self, rng: random.Random) -> None:
        os.setpgid(0, 0)
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if rng.random() < 0.5:
            self.store = Store.attach(self.store.name)
        if rng.random() < 0.4:
            os.closerange(3, 65536)

    def end_with(self, call: Callable[[], None]) -> None:
        """The process ends with this call; what it raises stays for the parent."""
        try:
            call()
        except BaseException:
            self.log.complaint.write(traceback.format_exc())
            os._exit(1)
        os._exit(0)

    def start(self, call: Callable[[], None]) -> int:
        pid = os.fork()
        if pid == 0:
            self.end_with(call)
        return pid

    def bury(self, pid: int) -> None:
        """Kills a worker and its guests, and waits until all of them are gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it may not have become a group yet
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
        with contextlib.suppress(ChildProcessError):
            while True:
                codes.append(os.waitstatus_to_exitcode(os.waitpid(-pid, 0)[1]))
        assert set(codes) <= {0, -signal.SIGKILL}, f"ended with {codes}:\n{self.log.complaint}"

    # ---- The storm ----------------------------------------------------------------------

    def blow(self, workers: list[int], rng: random.Random) -> int:
        """Kills or stops one worker; how many were killed."""
        me = rng.randrange(WORKERS)
        if rng.random() < 0.15:
            os.kill(workers[me], signal.SIGSTOP)
            time.sleep(rng.random() * 0.1)
            os.kill(workers[me], signal.SIGCONT)
            return 0
        self.bury(workers[me])
        seed = rng.random()
        workers[me] = self.start(lambda: self.work(me, seed))
        return 1

    def storm(self, rng: random.Random, seconds: float) -> int:
        """How many workers were killed."""
        seeds = [rng.random() for _ in range(WORKERS + 1)]
        workers = [self.start(lambda me=me: self.work(me, seeds[me])) for me in range(WORKERS)]
        reader = self.start(lambda: self.read(seeds[WORKERS]))
        until, kills = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            time.sleep(rng.random() * 0.08)
            kills += self.blow(workers, rng)
            assert os.waitpid(reader, os.WNOHANG)[0] == 0, f"the reader ended:\n{self.log.complaint}"
        for pid in workers:
            self.bury(pid)
        self.bury(reader)
        assert not str(self.log.complaint), str(self.log.complaint)
        return kills + len(workers)

    def finish(self) -> None:
        """Everything is where it was promised; the store is clean, and nothing leaks."""
        for lane in range(LANES):
            self.settle(lane, "at the end")
        least, most = sum(self.log.added), sum(self.log.adding)
        if not self.lossy and not self.scarce:
            assert least <= self.store.get("counter", 0) <= most
        check(self.store)
        self.store.compact()
        report = self.store.check()
        assert report.ok, report.problems
        assert (report.dead_slots, report.blocks_leaked) == (0, 0)
        for lane in range(LANES):
            self.settle(lane, "after compact()")


def own_key(lane: int, i: int) -> str:
    return f"{lane}:{i}"


def group_keys(lane: int) -> list[str]:
    return [f"group:{lane}:{i}" for i in range(GROUP)]


def one_round(kind: int, rng: random.Random, seconds: float) -> Figures:
    lossy, scarce = kind == 2, kind > 0
    store = Store.create(
        unique_name(), size=3 * MIB if scarce else 64 * MIB, on_full="evict" if lossy else "error", lock_timeout=30
    )
    try:
        there = Round(store, lossy, scarce)
        kills = there.storm(rng, seconds)
        there.finish()
        assert there.log.operations[LANES] > 50, "the reader makes no progress"
    finally:
        store.unlink()
        store.close()
    return {
        "python_kills": kills + sum(there.log.guest_kills),
        "python_operations": sum(there.log.operations),
        "python_forks_in_the_middle": sum(there.log.guests),
        "python_rounds": 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("seed", type=int)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of forks beside threads, which are the point
    assert _libc.prctl(PR_SET_CHILD_SUBREAPER, 1) == 0, "no subreaper"
    assert Path("/dev/shm").is_dir()
    rng = random.Random(options.seed)
    rounds = max(round(options.seconds / 3), 1)
    total: Figures = {}
    for number in range(rounds):
        total = join(total, one_round(number % 3, rng, options.seconds / rounds))
    for name, value in total.items():
        print(f"figure {name} {value}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
