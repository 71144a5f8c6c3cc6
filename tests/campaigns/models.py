"""Protocol models: SPIN walks through every interleaving of a protocol, Relacy through what C11's memory model allows.

A model lies in tests/models and names the code that it models. Each has mutants: the same protocol with two steps
swapped or one left out, chosen by a macro of its own (M_...). A checker that finds nothing wrong with a model says
something about shmkv only if it finds every mutant of it too, so both are run, and both are in the table below.

A SPIN model is searched completely: every interleaving, and a kill between any two steps where the model has kills.
A Relacy model is run many times, at random or through all executions within a bound; every load may see any store that
C11 allows.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .campaign import Campaign, Figures, join

TESTS = Path(__file__).resolve().parent.parent
MODELS = TESTS / "models"
ENGINE = TESTS.parent / "shmkv" / "_core"

LIMIT_SECONDS = 420
MEMORY_MIB = 1000
DEPTH = 1_000_000  # steps of an execution; beyond it SPIN says so, and that is an error here

# What finds a mutant.
ASSERTION = "assertion violated"
STUCK = "invalid end state"  # somebody waits for ever


class ModelError(AssertionError):
    """A model or a mutant is not what the table says."""


@dataclass(frozen=True)
class Model:
    """A file of tests/models with its bounds, and its mutants with what finds them."""

    file: str
    mutants: Mapping[str, str]
    flags: tuple[str, ...] = ()  # which variant of the model this is
    small: tuple[str, ...] = ()  # bounds in the suite; Relacy: executions, or switches of threads
    large: tuple[str, ...] = ()  # bounds in the campaign

    def __str__(self) -> str:
        return "".join([self.file, *self.flags]).replace("-D", "-")

    @property
    def path(self) -> Path:
        return MODELS / self.file

    @property
    def uses_spin(self) -> bool:
        return self.path.suffix == ".pml"


@dataclass(frozen=True)
class Outcome:
    """What a checker said."""

    finding: str  # "" = nothing
    explored: int  # SPIN: states; Relacy: executions
    unreached: tuple[str, ...]  # statements that no execution came to
    output: str


TABLE = [
    Model(
        "takeover.pml",
        {
            "M_NO_BYTE": ASSERTION,
            "M_BYTE_BACK_EARLY": ASSERTION,
            "M_NO_COMPARE": ASSERTION,
            "M_FREE_ROW_EARLY": ASSERTION,
        },
    ),
    Model(
        "waiters.pml",
        {"M_FORGET_WAITERS": STUCK, "M_NO_COMPARE": STUCK, "M_NO_BIT": STUCK, "M_WAKE_FIRST": STUCK},
        large=("-DROUNDS=2",),
    ),
    Model("waiters.pml", {"M_TAKEOVER_DROPS_BIT": STUCK}, flags=("-DHOLDER_DIES",)),
    Model("waiters.pml", {"M_NO_SLICES": STUCK}, flags=("-DANY_DIES",)),
    Model(
        "batch.pml",
        {
            "M_COMMIT_BEFORE_ANNOUNCE": ASSERTION,
            "M_APPLY_BEFORE_COMMIT": ASSERTION,
            "M_UNLOCK_BEFORE_SETTLE": ASSERTION,
            "M_NO_OVERLAY": ASSERTION,
            "M_FREE_BEFORE_BUMP": ASSERTION,
            "M_BUMP_BEFORE_COMMIT": ASSERTION,
            "M_REPAIR_DROPS": ASSERTION,
        },
        flags=("-DGETS",),
        large=("-DBATCHES=2",),
    ),
    Model(
        "batch.pml",
        {"M_BUMP_BEFORE_TXN": ASSERTION, "M_NO_STATUS_CHECK": ASSERTION, "M_SEQ_ONLY": ASSERTION},
        flags=("-DSNAPSHOT",),
        small=("-DMOVES=0",),
        large=("-DMOVES=1",),
    ),
    Model(
        "batches.pml",
        {
            "M_DESCENDING": STUCK,
            "M_OWN_STATUS": ASSERTION,
            "M_IDLE_EARLY": ASSERTION,
            "M_ROB_LIVE": ASSERTION,
            "M_UNLOCK_EARLY": ASSERTION,
        },
        large=("-DREADERS",),
    ),
    Model("batches.pml", {}, flags=("-DSHIFTED",), large=("-DREADERS",)),
    Model(
        "repair.pml",
        {
            "M_CLEAR_FIRST": ASSERTION,
            "M_FOLLOW_LOCK": ASSERTION,
            "M_IGNORE_TXN": ASSERTION,
            "M_UNLOCK_ONLY": ASSERTION,
        },
        large=("-DREADERS",),
    ),
    Model(
        "grace.pml",
        {
            "M_ONE_PARITY": ASSERTION,
            "M_NOT_CLOSED": ASSERTION,
            "M_NO_FIRST_GRACE": ASSERTION,
            "M_NO_SECOND_GRACE": ASSERTION,
            "M_NO_BUMP": ASSERTION,
            "M_NOT_REPAIRED": ASSERTION,
            "M_NO_LAST_LOOK": ASSERTION,
        },
        large=("-DPUTS=2",),
    ),
    Model(
        "growth.pml",
        {"M_PUBLISH_BEFORE_FILL": ASSERTION, "M_FILL_UNLOCKED": ASSERTION, "M_NO_RECOUNT": ASSERTION},
    ),
    Model(
        "growth.pml",
        {"M_FREE_BEFORE_BUMP": ASSERTION, "M_MISS_UNCHECKED": ASSERTION},
        flags=("-DREADERS",),
    ),
    Model(
        "spare.pml",
        {
            "M_NO_EXCHANGE": ASSERTION,
            "M_FREE_FIRST": ASSERTION,
            "M_KEEP_IN_AUDIT": ASSERTION,
            "M_REUSE_IN_AUDIT": ASSERTION,
            "M_FLAG_LATE": ASSERTION,
            "M_THIEF_UNANNOUNCED": ASSERTION,
        },
        large=("-DPUTS=4",),
    ),
    Model("snapshot.pml", {"M_SEQ_ONLY": ASSERTION}, large=("-DCHANGES=5",)),
    Model("snapshot.pml", {"M_NO_EXPIRY_CHECK": ASSERTION}, flags=("-DTOUCH",), large=("-DCHANGES=5",)),
    Model(
        "lease.pml",
        {
            "M_GIVE_UP_FIRST": ASSERTION,
            "M_NO_LEASE_LOCK": ASSERTION,
            "M_CLOSE_OWNED": ASSERTION,
            "M_FREE_UNLOCKED": ASSERTION,
            "M_FREE_OWNED": ASSERTION,
        },
        large=("-DROUNDS=3",),
    ),
    Model(
        "reader.cpp",
        {
            "M_NO_RELEASE_FENCE": ASSERTION,
            "M_NO_ACQUIRE_FENCE": ASSERTION,
            "M_FREE_BEFORE_BUMP": ASSERTION,
            "M_BUMP_BEFORE_COMMIT": ASSERTION,
            "M_RELAXED_A": ASSERTION,
            "M_RELAXED_ALLOC": ASSERTION,
            "M_RELAXED_FREE": ASSERTION,
            "M_RELAXED_PROBE": ASSERTION,
        },
        small=("30000",),
        large=("3000000",),
    ),
    Model(
        "announce.cpp",
        {
            "M_RELAXED_STATUS": ASSERTION,
            "M_RELAXED_TXN_LOAD": ASSERTION,
            "M_NO_STATUS_CHECK": ASSERTION,
            "M_APPLY_FIRST": ASSERTION,
        },
        small=("2",),
        large=("3",),
    ),
    Model(
        "announced.cpp",
        {
            "M_NO_SECOND_LOOK": ASSERTION,
            "M_WEAK_ENTER": ASSERTION,
            "M_WEAK_DRAIN": ASSERTION,
            "M_RELAXED_EXIT": ASSERTION,
        },
        small=("3",),
        large=("5",),
    ),
]

# ---- Running the checkers ------------------------------------------------------------------------


def _execute(command: list[str], where: Path) -> subprocess.CompletedProcess[str]:
    """The finished command, with what it said."""
    return subprocess.run(
        command, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_SECONDS
    )


def _build(command: list[str], where: Path) -> None:
    done = _execute(command, where)
    if done.returncode:
        raise ModelError(f"{' '.join(command)}\n{done.stdout}")


def _spin(model: Model, flags: tuple[str, ...], optimise: str, where: Path) -> Outcome:
    """A complete search: SPIN writes the checker as a C program, pan.c."""
    _build(["spin", *flags, "-a", str(model.path)], where)
    _build(["cc", optimise, "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MIB}", "-o", "pan", "pan.c"], where)
    done = _execute(["./pan", f"-m{DEPTH}", "-w20"], where)
    finding = re.search(r"^pan:\d+: (assertion violated|invalid end state)", done.stdout, re.MULTILINE)
    states = re.search(r"^\s*([\d.e+]+) states, stored", done.stdout, re.MULTILINE)
    if not states or "errors:" not in done.stdout:
        raise ModelError(f"{model}: the search ended without a result\n{done.stdout}")
    if not finding and ("errors: 0" not in done.stdout or "too small" in done.stdout or "not completed" in done.stdout):
        raise ModelError(f"{model}: the search is not complete\n{done.stdout}")
    unreached = re.findall(r"^\t(\S+:\d+, state \d+, .*)$", done.stdout, re.MULTILINE)
    return Outcome(finding[1] if finding else "", int(float(states[1])), tuple(unreached), done.stdout)


def _relacy(model: Model, bound: str, mutant: str, where: Path) -> Outcome:
    """Executions at random from a fixed seed, or all within a bound; one program serves a model and all its mutants."""
    program = where / model.path.stem
    if not program.exists():
        _build(["g++", "-std=c++98", "-O0", "-w", f"-I{MODELS}", str(model.path), "-o", str(program)], where)
    done = _execute([str(program), bound, *filter(None, [mutant])], where)
    end = re.search(r"^(clean|found) (\d+)$", done.stdout, re.MULTILINE)
    if not end:
        raise ModelError(f"{model}: the run ended without a result\n{done.stdout}")
    finding = ASSERTION if "USER ASSERT FAILED" in done.stdout else STUCK if "DEADLOCK" in done.stdout else "other"
    return Outcome("" if end[1] == "clean" else finding, int(end[2]), (), done.stdout)


def explore(model: Model, bounds: tuple[str, ...], mutant: str, where: Path) -> Outcome:
    """Runs a model, or one of its mutants, in a folder of its own or of its model."""
    if not model.uses_spin:
        return _relacy(model, bounds[0], mutant, where)
    chosen = (*model.flags, *bounds, *([f"-D{mutant}"] if mutant else []))
    return _spin(model, chosen, "-O0" if bounds == model.small else "-O2", where)


def check_clean(model: Model, bounds: tuple[str, ...], where: Path) -> Outcome:
    """The protocol as it is: nothing is found, and every statement of the model was executed."""
    outcome = explore(model, bounds, "", where)
    if outcome.finding:
        raise ModelError(f"{model} {' '.join(bounds)}: {outcome.finding}\n{outcome.output}")
    if outcome.unreached:
        raise ModelError(f"{model}: never executed:\n" + "\n".join(outcome.unreached))
    return outcome


def check_caught(model: Model, mutant: str, where: Path) -> Outcome:
    """A protocol with a fault: it is found, and by what the table says; Relacy stops at the first finding anyway."""
    outcome = explore(model, model.small if model.uses_spin else model.large, mutant, where)
    if outcome.finding != model.mutants[mutant]:
        raise ModelError(
            f"{model}: {mutant} should give {model.mutants[mutant]!r}, not {outcome.finding!r}\n{outcome.output}"
        )
    return outcome


# ---- What the models say about the code --------------------------------------------------------------

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_MENTION = re.compile(r"(?<![\w/])([a-z]\w*\.[ch]):([a-z]\w*)|`([^`]+)`")


@dataclass(frozen=True)
class Mention:
    """A function that a model names, and a statement of it that stands in backquotes after the name, or ""."""

    file: str
    function: str
    statement: str


def mentions(path: Path) -> Iterator[Mention]:
    """Every function and statement that a model names in its comments."""
    file = function = ""
    for comment in _COMMENT.findall(path.read_text()):
        for named_file, named_function, statement in _MENTION.findall(comment):
            if named_file:
                file, function = named_file, named_function
            yield Mention(file, function, " ".join(statement.split()))


@cache
def body(file: str, function: str) -> str:
    """The text of a function of the engine without comments, all white space single; "" if there is none."""
    path = ENGINE / file
    text = _COMMENT.sub(" ", path.read_text()) if path.exists() else ""
    found = re.search(rf"^[^\n#;{{}}]*\b{function}\([^;{{}}]*\)\n\{{\n.*?^\}}", text, re.MULTILINE | re.DOTALL)
    return " ".join(found[0].split()) if found else ""


def stale(path: Path) -> list[str]:
    """What a model names and the engine no longer has."""
    return [
        f"{mention.file}:{mention.function} {mention.statement}".strip()
        for mention in mentions(path)
        if not body(mention.file, mention.function) or mention.statement not in body(mention.file, mention.function)
    ]


# ---- The campaign ---------------------------------------------------------------------------------------


def run(part: int, scratch: Path) -> Figures:
    """One model at its larger bounds, and all its mutants."""
    model = TABLE[part]
    outcome = check_clean(model, model.large, _folder(scratch, model, "clean"))
    kind = "states_explored" if model.uses_spin else "executions_explored"
    figures: Figures = {"models_clean": 1, kind: outcome.explored}
    for mutant in model.mutants:
        found = check_caught(model, mutant, _folder(scratch, model, mutant))
        figures = join(figures, {"mutants_caught": 1, kind: found.explored})
    return figures


def _folder(scratch: Path, model: Model, name: str) -> Path:
    """One for each search; one for each program of Relacy."""
    where = scratch / (name if model.uses_spin else "program")
    where.mkdir(exist_ok=True)
    return where


MUTANTS = sum(len(model.mutants) for model in TABLE)

CAMPAIGN = Campaign(
    name="models",
    claim="No order of the steps of readers, writers, kills and repairs breaks the protocol.",
    how="Every interleaving of a model (SPIN), random executions under the C11 memory model (Relacy), and mutants.",
    parts=len(TABLE),
    run=run,
    at_least={"models_clean": len(TABLE), "mutants_caught": MUTANTS},
    commands={"spin": "spin", "cc": "gcc", "g++": "g++"},
    headers={"relacy/relacy_std.hpp": "relacy-dev"},
)
