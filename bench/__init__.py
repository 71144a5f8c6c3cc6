"""Benchmarks: scripts that measure shmkv against its peers, and the bars of its design.

Run from the project's root, on an otherwise idle machine:

    python -m bench.compare         against a dict in the same run: get, put, batches, latency, loading
    python -m bench.memory          bytes per entry at 6, 8, 10 and 12 million entries
    python -m bench.churn           50,000,000 overwrites of mixed sizes, then compact()
    python -m bench.import_speed    `shmkv import` of 10,000,000 lines, one and four threads
    python -m bench.startup         commands from a shell, whole processes, beside a Python that does nothing
    python -m bench.report          writes docs/benchmarks.md from the results

Each prints a table with bar and verdict and writes bench/results/NAME.json, with machine, Python,
commit and command.  `--keys` and `--rounds` scale a run down; such a result says so, and is written to
NAME.scaled.json, so that it never replaces a whole one.

harness.py has what the scripts share, peers.py all that it takes to measure another peer.
"""
