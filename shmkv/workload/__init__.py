"""Workloads: which keys, which operations, how long, and what was measured.

Used by `shmkv bench` and by the scripts in bench/.  Imports nothing but the standard library
until a run starts (runner.py then imports `shmkv.Store`).
"""
