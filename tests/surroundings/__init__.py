"""Surroundings that programs live in: each scene runs a small program in one, and judges what it did to a store."""
