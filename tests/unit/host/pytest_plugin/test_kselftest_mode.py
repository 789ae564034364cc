# SPDX-License-Identifier: GPL-2.0-only
"""``--upstream``: what goes with it, which tests run, and that its context reaches workers."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.host.kernel.build_options import OPTIONS
from fixtures.host.pytest_plugin import kselftest_mode
from fixtures.host.pytest_plugin.run_context import Context
from fixtures.host.util.errors import UserError
from fixtures.host.util.paths import ROOT
from fixtures.host.vm.qemu_args import Machine


def config(**given: Any) -> pytest.Config:
    """pytest's configuration with some options."""
    options: dict[str, Any] = {option.dest: None for option in OPTIONS}
    options |= {"upstream": True, "vmconfig": None, **given}
    return cast(
        pytest.Config,
        SimpleNamespace(option=SimpleNamespace(**options), getoption=options.__getitem__),
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"vmconfig": "debug"}, "leave out --vmconfig"),
        ({"kernel_image": Path("bzImage")}, "use --kernel-tree PATH --apply-series"),
        ({"kernel_tree": Path("linux")}, "give a tree without it, and --apply-series"),
    ],
)
def test_what_leaves_nothing_to_compare_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        kselftest_mode.require_usable(config(**given))


@pytest.mark.parametrize("given", [{}, {"kernel_tree": Path("linux"), "kernel_apply_series": True}])
def test_two_kernels_can_be_made_of_it(given: dict[str, Any]) -> None:
    kselftest_mode.require_usable(config(**given))


@pytest.mark.parametrize(
    ("path", "without", "with_option"),
    [
        ("selftests", False, False),
        ("selftests/snoop", False, True),
        ("selftests/snoop/test_snoop_flag.py", False, True),
        ("selftests/upstream", True, False),
        ("selftests/upstream/test_netfilter.py", True, False),
        ("tests/canary/faulty_tests", False, True),
    ],
)
def test_either_kind_of_tests_runs_and_never_both(
    path: str, without: bool, with_option: bool
) -> None:
    assert kselftest_mode.ignores(ROOT / path, config(upstream=False)) is without
    assert kselftest_mode.ignores(ROOT / path, config(upstream=True)) is with_option


def context(**more: Any) -> Context:
    """A context with invented values."""
    machine = Machine(Path("bzImage"), "k", Path("root"), "r", "tcg", 1024, 2, ("quiet",))
    values: dict[str, Any] = {
        "profile": "upstream",
        "machine": machine,
        "accel_reason": "asked for",
        "scale": 3.0,
        "scratch": Path("scratch"),
        "cache": Path("cache"),
        "payload": Path("payload"),
        "start": {"args": []},
        "snapshots": True,
        "vmlinux": Path("vmlinux"),
        "modules": Path("modules"),
        "tree": None,
        "metadata": {"key": "abc"},
        "release": "7.3.4",
        "report": Path("report"),
    }
    return Context(**{**values, **more})


def test_a_worker_gets_both_kernels() -> None:
    both = replace(context(), against=context(profile="upstream-unpatched"))
    assert Context.from_json(both.to_json()) == both
    alone = context()
    assert Context.from_json(alone.to_json()) == alone


def test_the_report_names_the_other_kernel() -> None:
    other = context(profile="upstream-unpatched")
    (note,) = kselftest_mode.notes(context(against=other))
    assert "unpatched is profile upstream-unpatched (7.3.4, key abc)" in note
    assert kselftest_mode.notes(context()) == ()
