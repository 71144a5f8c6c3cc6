"""Many, large, and again, in small (campaigns/scale.py)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from campaigns import __main__ as long_run
from campaigns import results, scale
from campaigns.campaign import Campaign, Figures, Unsuited
from campaigns.growth import nothing_grows
from helpers import MIB, unique_name

from shmkv import Store

pytestmark = pytest.mark.slow


def test_many_tiny_items() -> None:
    assert scale.many_keys(60_000, batch=7_000)["tiny_items"] == 60_000


def test_one_large_value() -> None:
    assert scale.one_large(20 * MIB)["largest_value_bytes"] == 20 * MIB


def test_one_large_value_on_disk() -> None:
    scale.one_large_on_disk(20 * MIB)


def test_full_and_empty_again_and_again() -> None:
    figures = scale.fill_and_empty(64 * MIB, 5)
    assert figures["mixed_bytes"] > 5 * 20 * MIB


def test_handles_that_come_and_go() -> None:
    assert scale.attach_detach(2_000)["handles"] == 2_000


@pytest.mark.parametrize(("count", "at_once"), [(24, 8), (30, 30)])
def test_processes_that_come_and_go(count: int, at_once: int) -> None:
    assert scale.processes(count, at_once)["processes"] == count


# ---- A scene can fail -----------------------------------------------------------------------------


def test_each_kind_has_its_share_of_the_bytes() -> None:
    draw = scale.mixed(random.Random(1), 2 * MIB)
    drawn = [draw() for _ in range(60_000)]
    for least, most, share in scale.MIX:
        of_kind = sum(size for size in drawn if least <= size <= most)
        assert of_kind / sum(drawn) == pytest.approx(share, rel=0.4)


def test_a_name_that_is_left_is_seen() -> None:
    name = unique_name()
    store = Store.create(name, size="1MiB")
    store.unlink()
    store.close()
    with pytest.raises(AssertionError, match="left in /dev/shm"), nothing_grows():
        left = Store.create(name, size="1MiB")
    left.unlink()
    left.close()


def test_a_descriptor_and_memory_that_are_left_are_seen(tmp_path: Path) -> None:
    kept: list[object] = []
    with pytest.raises(AssertionError, match="1 descriptors more"), nothing_grows():
        kept.append((tmp_path / "file").open("w"))
    with pytest.raises(AssertionError, match="MiB of memory more"), nothing_grows(MIB):
        kept.append(b"x" * (20 * MIB))


def test_a_value_that_is_another_one_is_seen(store: Store) -> None:
    sizes = {"0": 100, "1": 100}
    store.update({"0": scale.piece(0, 100), "1": scale.piece(0, 100)})
    with pytest.raises(AssertionError, match="'1' holds something else"):
        scale.read_all(store, sizes)


# ---- A machine that is too small ------------------------------------------------------------------


def test_a_scene_that_does_not_fit_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "free_memory", lambda: 9 * scale.GIB)
    scale.make_sure_of(7 * scale.GIB)
    with pytest.raises(Unsuited, match=r"takes 8\.0 GiB of memory in /dev/shm, and 9\.0 are free"):
        scale.make_sure_of(8 * scale.GIB)


def test_a_part_that_is_left_for_later_is_no_violation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsuited(part: int, scratch: Path) -> Figures:
        raise Unsuited("takes more memory")

    monkeypatch.setattr(results, "FOLDER", tmp_path)
    one = Campaign(name="a", claim="c", how="h", parts=1, run=unsuited)
    assert not long_run.run_all([one], restart=False, seconds=10)
    result = results.load(one)
    assert (result.parts_done, result.violations) == (0, [])


def test_a_package_that_is_missing_is_named() -> None:
    one = Campaign(
        name="a", claim="c", how="h", parts=1, run=scale.run, modules={"sys": "cli", "no_such_module": "cli"}
    )
    assert one.missing() == ["shmkv[cli]"]
