# SPDX-License-Identifier: GPL-2.0-only
"""Creating, freeing and using maps against the unloading of their module."""

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

pytestmark = pytest.mark.campaign

ROUNDS = 20


def _unload_and_load(_: int) -> None:
    """Unload where it can be; leave the module loaded."""
    refusal: OSError | None = None
    try:
        modules.unload(modules.FLOWMAP)
    except OSError as error:
        refusal = error
    else:
        modules.load(modules.FLOWMAP)
    if refusal is not None:
        raise refusal


def _create_and_free(_: int) -> None:
    for _attempt in range(15):
        os.close(bpf.flowmap_create())


def _unload() -> bool:
    try:
        modules.unload(modules.FLOWMAP)
    except BlockingIOError:
        return False
    return True


@pytest.mark.clause("MM-7", "MM-4", "RT-1", "RT-3")
@pytest.mark.deadline(120)
def test_create_and_free_against_unload(flowmap_module: str) -> None:
    with modules.autoload_disabled():
        report = python_race.run({"maps": _create_and_free, "unload": _unload_and_load}, ROUNDS)
    report.require({"maps": {"ok", "EINVAL"}, "unload": {"ok", "EAGAIN"}})
    assert modules.loaded(flowmap_module)
    wait_for("the module to be unloadable", _unload)


@pytest.mark.clause("MM-7", "RT-1")
@pytest.mark.deadline(120)
def test_create_with_autoload_against_unload(flowmap_module: str) -> None:
    def create(_: int) -> None:
        os.close(bpf.flowmap_create())

    def unload(_: int) -> None:
        modules.unload(flowmap_module)

    report = python_race.run({"maps": create, "unload": unload}, 8)
    # A module that goes between its loading and its use is as good as absent.
    report.require({"maps": {"ok", "EINVAL"}, "unload": {"ok", "EAGAIN", "ENOENT"}}, overlap=0)


@pytest.mark.clause("MM-7", "RT-1", "RT-3")
@pytest.mark.deadline(120)
def test_use_against_unload(flowmap_module: str) -> None:
    """What is in use cannot be unloaded: whoever holds a map sees it work throughout."""

    def use(_: int) -> None:
        with bpf.closing(bpf.flowmap_create()) as fd:
            for _attempt in range(20):
                assert bpf.found(fd, uapi.Key(l3proto=2)) is None
                assert list(bpf.keys(fd)) == []

    with modules.autoload_disabled():
        report = python_race.run({"maps": use, "unload": _unload_and_load}, ROUNDS)
    report.require({"maps": {"ok", "EINVAL"}, "unload": {"ok", "EAGAIN"}})
    wait_for("the module to be unloadable", _unload)
    assert not modules.loaded(flowmap_module)


@pytest.mark.clause("MM-10", "MM-7", "RT-1", "RT-3")
@pytest.mark.deadline(120)
def test_introspection_against_unload(flowmap_module: str) -> None:
    def look(_: int) -> None:
        kind = bpf.flowmap_type()
        for _attempt in range(5):
            with bpf.closing(bpf.flowmap_create()) as fd:
                number = bpf.map_info(fd).id
                assert number in bpf.identities(bpf_attr.Command.MAP_GET_NEXT_ID)
                again = bpf.map_by_id(number)
            # Only who looks holds it now.
            with bpf.closing(again):
                assert bpf.map_info(again).type == kind
                assert bpf.entries(again) == 0

    with modules.autoload_disabled():
        report = python_race.run({"look": look, "unload": _unload_and_load}, ROUNDS)
    report.require({"look": {"ok", "EINVAL"}, "unload": {"ok", "EAGAIN"}})
    wait_for("the module to be unloadable", _unload)
    assert not modules.loaded(flowmap_module)


@pytest.mark.clause("MM-7", "RT-1")
@pytest.mark.deadline(120)
def test_two_loaders_and_one_module(flowmap_module: str, tmp_path: Path) -> None:
    """Of two that load it at one moment exactly one wins.

    The module loader refuses the other by its name, so that it never comes to register the
    type; the refusals of MM-2 need a test module of the suite's own.
    """
    original = modules.file_of(flowmap_module)
    copy = Path(shutil.copy(original, tmp_path))
    loaders = {
        "one": lambda _: modules.load_file(original),
        "other": lambda _: modules.load_file(copy),
    }
    for _ in range(8):
        modules.unload(flowmap_module)
        report = python_race.run(loaders, 1)
        answers = sorted(str(*report.outcomes(name)) for name in ("one", "other"))
        # EEXIST: loaded or being loaded already; EBUSY: its init found the type taken.
        assert answers in (["EEXIST", "ok"], ["EBUSY", "ok"]), str(report)
        assert modules.loaded(flowmap_module)
