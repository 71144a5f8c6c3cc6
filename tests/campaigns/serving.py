"""A server under load, with a Python process beside it: exact numbers, and workers that are killed at random.

Every request that was answered is counted; what had no answer is counted apart, and bounds the difference.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from helpers import MIB, Forked, check, temporary_store, wait_until
from serving import Serving, counts, serving

from shmkv import Store

from .campaign import Campaign, Figures

CLIENTS = 4
KEYS = 60  # of each client
BATCH = 5  # keys
ABSENT = None

Value = bytes | None


@dataclass
class Tally:
    """What a client saw, and the most that its requests without an answer may have added to it."""

    requests: int = 0
    unanswered: int = 0
    hits: int = 0
    misses: int = 0
    sets: int = 0
    deletes: int = 0
    gets_more: int = 0
    sets_more: int = 0
    deletes_more: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Tally)))


@dataclass
class Client:
    """Keys of its own over HTTP: it knows what each holds, or what it may hold after requests without an answer."""

    me: int
    server: Serving
    rng: random.Random
    tally: Tally = field(default_factory=Tally)
    known: dict[str, set[Value]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    number: int = 0

    def __post_init__(self) -> None:
        self.http = self.server.client(timeout=20)

    def keys(self, count: int) -> list[str]:
        return [f"{self.me}/{at}" for at in self.rng.sample(range(KEYS), count)]

    def holds(self, key: str) -> set[Value]:
        return self.known.get(key, {ABSENT})

    def learn(self, key: str, value: Value) -> None:
        assert value in self.holds(key), f"{key!r} holds {value!r}, one of {self.holds(key)!r} was written last"
        self.known[key] = {value}

    def ask(self, method: str, path: str, keys: dict[str, Value], more: str, **options: Any) -> httpx.Response | None:
        """None: no answer, and each of `keys` holds what it held or what was wanted."""
        self.tally.requests += 1
        try:
            return self.http.request(method, path, **options)
        except httpx.TransportError:
            self.tally.unanswered += 1
            setattr(self.tally, more, getattr(self.tally, more) + max(1, len(keys)))
            for key, value in keys.items():
                self.known[key] = self.holds(key) | {value}
                self.tags.pop(key, None)
            self.http.close()
            self.http = self.server.client(timeout=20)
            return None

    def value(self) -> bytes:
        self.number += 1
        return b"%d:%d " % (self.me, self.number) + b"x" * self.rng.choice((0, 10, 100, 3_000))

    # ---- Requests ---------------------------------------------------------------------------

    def get(self) -> None:
        [key] = self.keys(1)
        answer = self.ask("GET", f"/kv/{quote(key)}", {}, "gets_more")
        if answer is not None:
            assert answer.status_code in (200, 404), answer.text
            found = answer.status_code == 200
            self.learn(key, answer.content if found else ABSENT)
            self.tally.hits += found
            self.tally.misses += not found

    def put(self) -> None:
        [key], value = self.keys(1), self.value()
        answer = self.ask("PUT", f"/kv/{quote(key)}", {key: value}, "sets_more", content=value)
        if answer is not None:
            assert answer.status_code in (201, 204), answer.text
            assert (answer.status_code == 201) in {held is ABSENT for held in self.holds(key)}
            self.tally.sets += 1
            self.known[key], self.tags[key] = {value}, answer.headers["etag"]

    def replace(self) -> None:
        """By the ETag that a put before was answered with, which is still the item's."""
        tagged = [key for key in self.tags if key in self.known]
        if not tagged:
            return self.put()
        key, value = self.rng.choice(tagged), self.value()
        headers = {"if-match": self.tags[key]}
        answer = self.ask("PUT", f"/kv/{quote(key)}", {key: value}, "sets_more", content=value, headers=headers)
        if answer is not None:
            assert answer.status_code == 204, f"an acknowledged version of {key!r} is lost: {answer.text}"
            self.tally.sets += 1
            self.known[key], self.tags[key] = {value}, answer.headers["etag"]
        return None

    def delete(self) -> None:
        [key] = self.keys(1)
        answer = self.ask("DELETE", f"/kv/{quote(key)}", {key: ABSENT}, "deletes_more")
        if answer is not None:
            assert answer.status_code in (204, 404), answer.text
            found = answer.status_code == 204
            assert found in {held is not ABSENT for held in self.holds(key)}
            self.tally.deletes += found
            self.known[key] = {ABSENT}
            self.tags.pop(key, None)

    def put_many(self) -> None:
        given = {key: self.value() for key in self.keys(BATCH)}
        batch = {"items": [{"key": key, "value": value.decode()} for key, value in given.items()]}
        answer = self.ask("POST", "/batch_put/", dict(given), "sets_more", json=batch)
        if answer is not None:
            assert answer.json() == {"stored": BATCH}, answer.text
            self.tally.sets += BATCH
            for key, value in given.items():
                self.known[key] = {value}
                self.tags.pop(key, None)

    def get_many(self) -> None:
        keys = self.keys(BATCH)
        answer = self.ask("POST", "/kv", {}, "gets_more", json={"get": keys})
        if answer is None:
            self.tally.gets_more += BATCH - 1
            return
        found = {form["key"]: form for form in answer.json()["items"]}
        self.tally.hits += len(found)
        self.tally.misses += BATCH - len(found)
        for key in keys:
            assert (key in found) in {held is not ABSENT for held in self.holds(key)}, key

    def step(self) -> None:
        kinds = (self.get, self.put, self.replace, self.delete, self.put_many, self.get_many)
        self.rng.choices(kinds, (8, 6, 3, 2, 1, 1))[0]()

    def read_back(self) -> None:
        for at in range(KEYS):
            key = f"{self.me}/{at}"
            answer = self.http.get(f"/kv/{quote(key)}")
            self.learn(key, answer.content if answer.status_code == 200 else ABSENT)
            if key in self.tags:
                assert answer.headers["etag"] == self.tags[key], key
            self.tally.hits += answer.status_code == 200
            self.tally.misses += answer.status_code == 404


def beside(name: str, number: int, seed: int) -> Tally:
    """A Python process that uses the store meanwhile; what it did."""
    rng, tally = random.Random(seed), Tally()
    with Store.attach(name) as store:
        for at in range(number):
            key = f"python:{rng.randrange(50)}"
            kind = rng.randrange(3)
            tally.requests += 1
            if kind == 0:
                found = store.get(key)
                tally.hits += found is not None
                tally.misses += found is None
            elif kind == 1:
                store[key] = at
                tally.sets += 1
            else:
                tally.deletes += store.delete(key)
    return tally


# ---- A run -----------------------------------------------------------------------------------------


def run_clients(clients: list[Client], each: int, ended: threading.Event) -> None:
    """In threads; the first fault of any is raised here."""
    faults: list[BaseException] = []

    def work(client: Client) -> None:
        try:
            done = 0
            while done < each or not ended.is_set():
                client.step()
                done += 1
        except BaseException as fault:
            faults.append(fault)
            ended.set()

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def kill_workers(server: Serving, kills: int, rng: random.Random, ended: threading.Event) -> int:
    """SIGKILL of a random worker again and again, while one at least is there; how many were killed."""
    killed = 0
    while killed < kills and not ended.is_set():
        time.sleep(rng.random() * 0.3)
        workers = server.workers()
        if workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
            killed += 1
            wait_until(lambda: len(server.workers()) == server.count, 60, "a new worker")
    ended.set()
    return killed


def judge(server: Serving, store: Store, total: Tally) -> None:
    """/metrics is what was counted: exactly, but for what had no answer."""
    told = counts(server)
    assert told["items"] == len(store)
    assert told["value_bytes"] == store.stats().value_bytes
    assert total.hits + total.misses <= told["hits"] + told["misses"] <= total.hits + total.misses + total.gets_more
    more = {"hits": total.gets_more, "misses": total.gets_more, "sets": total.sets_more, "deletes": total.deletes_more}
    for name, most in more.items():
        counted = getattr(total, name)
        assert counted <= told[name] <= counted + most, f"{name}: {told[name]}, not {counted} to {counted + most}"


def exact(requests: int, kills: int, seed: int) -> Figures:
    """About so many requests over two workers and a process beside them, with so many kills."""
    rng = random.Random(seed)
    with temporary_store(size=64 * MIB) as store, serving("--store", store.name, "--workers", "2") as server:
        server.wait_for_workers()
        other = Forked(beside, store.name, requests // 5, rng.getrandbits(32))
        clients = [Client(me, server, random.Random(rng.getrandbits(32))) for me in range(CLIENTS)]
        ended = threading.Event()
        killer = threading.Thread(target=kill_workers, args=(server, kills, random.Random(rng.getrandbits(32)), ended))
        killer.start()
        try:
            run_clients(clients, requests // 5 // CLIENTS * 4, ended)
        finally:
            ended.set()
            killer.join()
        total = sum((client.tally for client in clients), other.result(600))
        answered = Tally(**vars(total))
        for client in clients:
            before = Tally(**vars(client.tally))
            client.read_back()
            answered.hits += client.tally.hits - before.hits
            answered.misses += client.tally.misses - before.misses
            client.http.close()
        if not kills:
            assert total.unanswered == 0
        judge(server, store, answered)
        check(store)
    return {
        "requests": total.requests,
        "worker_kills": kills,
        "requests_without_an_answer": total.unanswered,
        "keys_read_back": CLIENTS * KEYS,
        "rounds": 1,
    }


def run(part: int, scratch: Path) -> Figures:
    seed = 100 + part
    try:
        return exact(100_000 if part % 2 == 0 else 5_000, 0 if part % 2 == 0 else 100, seed)
    except AssertionError as error:
        raise AssertionError(f"serving with seed {seed}: {error}") from error


CAMPAIGN = Campaign(
    name="serving",
    claim="N workers serve one truth: metrics are exact, and a worker that is killed loses nothing but its own "
    "requests in flight",
    how="Clients send reads, writes, compare-and-sets by ETag, deletes and batches to a server with two workers, while "
    "a Python process uses the store beside them; in every second part random workers are killed again and again. Each "
    "client knows what its keys hold, also after a request that had no answer: the one value or the other. At the end "
    "`/metrics` is compared with what was counted (a request without an answer may be counted or not), every key and "
    "ETag is read back, and the store is checked",
    parts=2,
    run=run,
    at_least={"requests": 100_000, "worker_kills": 100},
)
