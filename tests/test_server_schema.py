"""/openapi.json tells the truth: schemathesis finds no answer that it does not say, for requests right and wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import PATIENCE, temporary_store
from serving import Serving, serving

pytestmark = pytest.mark.slow

EXAMPLES = 200 if os.environ.get("SHMKV_LONG") else 8  # of each operation

CONFIG = """
# What is there decides: a value without JSON, a condition that does not hold.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 404, 406, 409, 412]

[checks.negative_data_rejection]
expected-statuses = [400, 403, 404, 405, 406, 409, 412, 413, 415, 422]

# It ends as the path of a key does, which has the methods of a key.
[[operations]]
include-path = "/kv/{key}/incr"
[operations.checks.unsupported_method]
enabled = false
[operations.checks.allow_header_conformance]
enabled = false
"""

HOOKS = """
import schemathesis

@schemathesis.hook
def filter_case(context, case):
    \"\"\"A cursor is what the page before gave, and "safe" is what the store gave: nobody makes them up.\"\"\"
    query, body = case.query, case.body
    return not (query and "cursor" in query) and "'safe'" not in repr(body)
"""


@pytest.fixture(scope="module", params=["store", "datastore"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    if request.param == "datastore":
        with serving("--datastore", str(tmp_path_factory.mktemp("data"))) as server:
            yield server
    else:
        with temporary_store() as store, serving("--store", store.name, "--workers", "2") as server:
            yield server


def test_nothing_is_answered_that_is_not_said(server: Serving, tmp_path: Path, seed: int) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    (tmp_path / "hooks.py").write_text(HOOKS)
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color", "run", f"{server.url}/openapi.json"]
    options = ["-n", str(EXAMPLES), "--seed", str(seed), "--mode", "all", "--suppress-health-check", "all"]
    done = subprocess.run(
        [*command, *options, "--phases", "examples,coverage,fuzzing", "--generation-database", "none"],
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=280 * PATIENCE,
    )
    print(done.stdout[-1_000:])
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert server.http.get("/healthz").status_code == 200


def test_every_route_is_told(server: Serving) -> None:
    """And each answer that is not a problem has its media type."""
    told = server.http.get("/openapi.json").json()
    assert told["openapi"] == "3.1.0"
    for path, operations in told["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (path, method)
            assert {"400", "401", "422", "503"} <= set(operation["responses"])
