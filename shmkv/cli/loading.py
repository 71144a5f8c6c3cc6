"""`shmkv import`'s work: one reader, N threads that store, one report.

The reader (the calling thread) cuts the source into chunks of whole lines and numbers them; each
thread takes the next chunk, and for TSV into a store of this machine the engine parses and stores it
without the GIL.  Chunks are taken in the order of the file but stored at the same time, so of two lines
with one key that are far apart either may win when there are several threads; with one, the later does.

A chunk counts its lines from 0; which line of the file that is, is known at the end, as all chunks
before a malformed line are loaded even when loading stops there.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from shmkv import surroundings
from shmkv.cli import rows as rows_of
from shmkv.cli.rows import Fields, Rows
from shmkv.cli.source import Chunk, Source, read_chunks

if TYPE_CHECKING:
    from shmkv.cli.target import LoadTsv, Target

NOTED: Final = 1_000  # malformed lines that a report keeps; the others are counted
_TOO_LONG: Final = "longer than anything that this store takes"
_TICK_S: Final = 0.1


@dataclass(frozen=True)
class Options:
    """How to load."""

    format: str  # one of source.FORMATS
    threads: int = 1
    skip: bool = False  # malformed lines: go on, or stop before the first
    fields: Fields = field(default_factory=Fields)


@dataclass
class Result:
    """What became of one chunk; filled while it is loaded, so that an error in the middle loses no count."""

    stored: int = 0
    lines: int = 0
    size: int = 0  # bytes
    bad: list[tuple[int, str]] = field(default_factory=list)  # line within the chunk, reason
    bad_count: int = 0
    stopped: bool = False
    error: BaseException | None = None

    def note(self, bad: list[tuple[int, str]]) -> None:
        self.bad += bad[: NOTED - len(self.bad)]
        self.bad_count += len(bad)


@dataclass
class Report:
    """What was loaded.  `stored` is at least that many if `error` ended it."""

    stored: int = 0
    lines: int = 0
    size: int = 0  # bytes
    seconds: float = 0.0
    malformed: list[tuple[int, str]] = field(default_factory=list)  # line of the file, from 1; reason
    malformed_count: int = 0
    stopped_at: int | None = None  # line
    error: BaseException | None = None


Job = Chunk | Rows
OnProgress = Callable[[int, int], None]
"""`on_progress(bytes, pairs)`: what has been done so far; called often, by the calling thread only."""


def load(target: Target, source: Source, options: Options, on_progress: OnProgress) -> Report:
    """Load all of `source`.  Never raises but for a mistake of its own: an error is in the report."""
    return _Loader(target, source, options, on_progress).run()


class _Loader:
    def __init__(self, target: Target, source: Source, options: Options, on_progress: OnProgress) -> None:
        self.target = target
        self.source = source
        self.options = options
        self.on_progress = on_progress
        self.jobs: queue.Queue[tuple[Job, Result] | None] = queue.Queue(maxsize=options.threads)
        self.stop = threading.Event()
        self.results: list[Result] = []  # by chunk; each is written by one thread
        self.lock = threading.Lock()  # guards the next two
        self.done_bytes = 0
        self.done_pairs = 0

    def run(self) -> Report:
        threads = self._start()
        started = time.perf_counter()
        error: BaseException | None = None
        try:
            for job in self._read():
                result = Result()
                self.results.append(result)
                if not self._offer((job, result)):
                    break
        except (OSError, KeyboardInterrupt) as failure:
            error = failure
            self.stop.set()
        try:
            self._finish(threads)
        except KeyboardInterrupt as failure:
            error = failure
            self.stop.set()
            for thread in threads:
                thread.join()
        return self._report(time.perf_counter() - started, error)

    def _start(self) -> list[threading.Thread]:
        """As many as are wanted and the system gives; others would wait for the one that it refuses."""
        threads: list[threading.Thread] = []
        for number in range(self.options.threads):
            thread = threading.Thread(target=self._work, name=f"import-{number}")
            try:
                thread.start()
            except RuntimeError as error:
                if not threads:
                    raise surroundings.no_more("threads") from error
                break
            threads.append(thread)
        return threads

    def _read(self) -> Iterator[Job]:
        limit = self.target.size() // 4 + rows_of.MAX_KEY  # more than the store takes
        if self.options.format == "csv":
            fields, skip = self.options.fields, self.options.skip
            return rows_of.read_csv(self.source, fields, skip=skip, field_limit=limit)
        return read_chunks(self.source, 2 * limit)  # every byte of a pair may be an escape of two

    def _offer(self, job: tuple[Job, Result] | None) -> bool:
        """Hand a job to the threads; False once nothing more is to be loaded."""
        while not self.stop.is_set():
            self._show()
            try:
                self.jobs.put(job, timeout=_TICK_S)
            except queue.Full:
                continue
            return True
        return False

    def _finish(self, threads: list[threading.Thread]) -> None:
        for _ in threads:
            self._offer(None)
        for thread in threads:
            while thread.is_alive():
                thread.join(_TICK_S)
                self._show()

    def _show(self) -> None:
        self.on_progress(self.done_bytes, self.done_pairs)

    # ---- In the threads --------------------------------------------------------------------

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            job, result = taken
            try:
                if isinstance(job, Rows):
                    self._store_rows(job, result)
                elif job.too_long:
                    result.note([(0, _TOO_LONG)])
                    result.lines, result.stopped = 1, not self.options.skip
                elif self.options.format == "tsv" and self.target.load_tsv:
                    self._load_tsv(self.target.load_tsv, job.data, result)
                else:
                    parse = rows_of.parse_tsv if self.options.format == "tsv" else rows_of.parse_jsonl
                    self._store_rows(parse(job.data, self.options.fields, skip=self.options.skip), result)
            except BaseException as error:
                result.error = error
            with self.lock:
                self.done_bytes += result.size
                self.done_pairs += result.stored
            if result.error or result.stopped:
                self.stop.set()

    def _take(self) -> tuple[Job, Result] | None:
        """The next job; None if there is none or nothing more is to be loaded.

        Jobs are taken in order: what is still in the queue lies behind every line that stopped loading.
        """
        while not self.stop.is_set():
            try:
                return self.jobs.get(timeout=_TICK_S)
            except queue.Empty:
                continue
        return None

    def _load_tsv(self, load: LoadTsv, data: bytes, result: Result) -> None:
        ttl = self.options.fields.ttl
        ttl_ms = 0 if ttl is None else max(1, round(ttl * 1000))
        view = memoryview(data)
        at = 0
        while at < len(data):
            stored, lines, consumed, bad = load(view[at:], int(self.options.skip), result.lines, ttl_ms)
            result.stored += stored
            result.lines += lines
            result.size += consumed
            result.note(bad)
            at += consumed
            if bad and not self.options.skip:
                result.stopped = True
                return
            if consumed == 0:
                raise RuntimeError("the engine consumed nothing of a chunk of whole lines")

    def _store_rows(self, rows: Rows, result: Result) -> None:
        for stored in rows_of.store_rows(self.target, rows, skip=self.options.skip):
            result.stored += stored
        result.lines, result.size = rows.line_count, rows.size
        result.note(sorted(rows.bad))
        result.stopped = rows.stop

    # ---- The report ------------------------------------------------------------------------

    def _report(self, seconds: float, error: BaseException | None) -> Report:
        report = Report(seconds=seconds, error=error)
        first_line = 1
        for result in self.results:
            bad = [(first_line + line, reason) for line, reason in result.bad]
            report.stored += result.stored
            report.size += result.size
            report.lines += result.lines
            if report.stopped_at is None and report.error is None:
                # With --on-error stop only the first malformed line counts: what lies behind it
                # was loaded (by threads that were at it) or not, by chance.
                report.malformed += bad[: 1 if result.stopped else NOTED - len(report.malformed)]
                report.malformed_count += 1 if result.stopped else result.bad_count
                report.stopped_at = bad[0][0] if result.stopped else None
            report.error = report.error or result.error
            first_line += result.lines
        return report
