# SPDX-License-Identifier: GPL-2.0-only
"""Creation, free and use of flow maps racing the unload of their module."""

import os
import shutil
from pathlib import Path

import pytest

from fixtures.flowmap import uapi
from fixtures.guest.bpf import bpf_attr
from fixtures.guest.bpf import map_syscalls as bpf
from fixtures.guest.core.polling import wait_for
from fixtures.guest.kernel import modules
from fixtures.guest.race import python_race

pytestmark = pytest.mark.soak

ROUNDS = 20


def _unload_and_load(_: int) -> None:
    """Unload the module unless it is in use; leave it loaded."""
    refusal: OSError | None = None
    try:
        modules.unload(modules.FLOWMAP_MODULE)
    except OSError as error:
        refusal = error
    else:
        modules.load(modules.FLOWMAP_MODULE)
    if refusal is not None:
        raise refusal


def _create_and_free(_: int) -> None:
    for _attempt in range(15):
        os.close(bpf.flowmap_create())


@pytest.mark.clause("MM-7.1", "MM-7.5", "RT-1.1", "RT-3.1")
@pytest.mark.deadline(120)
def test_map_create_free_vs_unload_fails_cleanly(flowmap_loaded: str) -> None:
    """Map creation racing unload succeeds or gives EINVAL; unload succeeds or gives EAGAIN."""
    with modules.autoload_disabled():
        report = python_race.run({"maps": _create_and_free, "unload": _unload_and_load}, ROUNDS)
    report.require_outcomes({"maps": {"ok", "EINVAL"}, "unload": {"ok", "EAGAIN"}})
    assert modules.loaded(flowmap_loaded)
    wait_for("the module to be unloadable", lambda: modules.try_unload(modules.FLOWMAP_MODULE))


@pytest.mark.clause("MM-7.1", "RT-1.1")
@pytest.mark.deadline(120)
def test_map_create_with_autoload_vs_unload_fails_cleanly(flowmap_loaded: str) -> None:
    """With autoload, map creation racing unload succeeds or gives EINVAL."""

    def create(_: int) -> None:
        os.close(bpf.flowmap_create())

    def unload(_: int) -> None:
        modules.unload(flowmap_loaded)

    report = python_race.run({"maps": create, "unload": unload}, 8)
    # EINVAL: the module was unloaded between its autoload and the reference to it.
    report.require_outcomes(
        {"maps": {"ok", "EINVAL"}, "unload": {"ok", "EAGAIN", "ENOENT"}}, overlap=0
    )


@pytest.mark.clause("MM-7.3", "MM-7.4", "RT-1.1", "RT-3.1")
@pytest.mark.deadline(120)
def test_map_in_use_vs_unload_keeps_working(flowmap_loaded: str) -> None:
    """A map in use pins the module: lookups and walks work throughout the race with unload."""

    def use(_: int) -> None:
        with bpf.closing_fd(bpf.flowmap_create()) as fd:
            for _attempt in range(20):
                assert bpf.lookup_or_none(fd, uapi.Key(l3proto=2)) is None
                assert list(bpf.iterate_keys(fd)) == []

    with modules.autoload_disabled():
        report = python_race.run({"maps": use, "unload": _unload_and_load}, ROUNDS)
    report.require_outcomes({"maps": {"ok", "EINVAL"}, "unload": {"ok", "EAGAIN"}})
    wait_for("the module to be unloadable", lambda: modules.try_unload(modules.FLOWMAP_MODULE))
    assert not modules.loaded(flowmap_loaded)


@pytest.mark.clause("MM-10.1", "MM-7.1", "RT-1.1", "RT-3.1")
@pytest.mark.deadline(120)
def test_map_info_vs_unload_stays_consistent(flowmap_loaded: str) -> None:
    """Map info by id works for every map that is open while unload is attempted."""

    def query(_: int) -> None:
        map_type = bpf.flowmap_type()
        for _attempt in range(5):
            with bpf.closing_fd(bpf.flowmap_create()) as fd:
                map_id = bpf.map_info(fd).id
                assert map_id in bpf.list_ids(bpf_attr.Command.MAP_GET_NEXT_ID)
                fd_by_id = bpf.map_fd_by_id(map_id)
            # The fd opened by id is now the only reference.
            with bpf.closing_fd(fd_by_id):
                assert bpf.map_info(fd_by_id).type == map_type
                assert bpf.flowmap_entry_count(fd_by_id) == 0

    with modules.autoload_disabled():
        report = python_race.run({"query": query, "unload": _unload_and_load}, ROUNDS)
    report.require_outcomes({"query": {"ok", "EINVAL"}, "unload": {"ok", "EAGAIN"}})
    wait_for("the module to be unloadable", lambda: modules.try_unload(modules.FLOWMAP_MODULE))
    assert not modules.loaded(flowmap_loaded)


@pytest.mark.clause("RT-1.1")
@pytest.mark.deadline(120)
def test_concurrent_module_loads_have_one_winner(flowmap_loaded: str, tmp_path: Path) -> None:
    """Exactly one of two concurrent loads of the module succeeds.

    The module loader refuses the other by its name, so it never registers the type.  The refusals
    of MM-2 are tested with the suite's own module (modular_map/test_registration.py).
    """
    original = modules.module_path(flowmap_loaded)
    copy = Path(shutil.copy(original, tmp_path))
    loaders = {
        "one": lambda _: modules.load_file(original),
        "other": lambda _: modules.load_file(copy),
    }
    for _ in range(8):
        modules.unload(flowmap_loaded)
        report = python_race.run(loaders, 1)
        outcomes = sorted(str(*report.outcomes(name)) for name in ("one", "other"))
        # EEXIST: already loaded or being loaded; EBUSY: its init found the slot taken.
        assert outcomes in (["EEXIST", "ok"], ["EBUSY", "ok"]), str(report)
        assert modules.loaded(flowmap_loaded)
