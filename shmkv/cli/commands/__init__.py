"""One module for each command: `add_arguments(parser)` and `run(args) -> exit status`.

At their top they import the standard library only; the engine comes with `run`.
"""
