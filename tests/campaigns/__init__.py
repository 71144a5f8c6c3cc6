"""The long run behind docs/reliability.md: `python -m tests.campaigns`."""
