# SPDX-License-Identifier: GPL-2.0-only
"""``--upstream``: its options, the tests it selects, and the context for workers."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.host.kernel.kernel_cli_options import OPTIONS
from fixtures.host.pytest_plugin import kselftest_mode
from fixtures.host.pytest_plugin.run_context import RunContext
from fixtures.host.util.errors import UserError
from fixtures.host.util.paths import ROOT
from fixtures.host.vm.qemu_args import MachineConfig


def config(**given: Any) -> pytest.Config:
    """Return a configuration of pytest with some options."""
    options: dict[str, Any] = {option.dest: None for option in OPTIONS}
    options |= {"upstream": True, "vmconfig": None, "arch": None, **given}
    return cast(
        pytest.Config,
        SimpleNamespace(option=SimpleNamespace(**options), getoption=options.__getitem__),
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vmconfig": "debug"}, "leave out --vmconfig"),
        ({"arch": "s390x"}, "leave out --arch"),
        ({"kernel_image": Path("bzImage")}, "use --kernel-tree PATH --apply-series"),
        ({"kernel_tree": Path("linux")}, "use a tree without the series, and --apply-series"),
    ],
    ids=["vmconfig", "arch", "kernel-image", "kernel-tree-without-series"],
)
def test_options_without_two_kernels_are_rejected(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        kselftest_mode.check_options(config(**given))


@pytest.mark.parametrize(
    "given",
    [{}, {"kernel_tree": Path("linux"), "kernel_apply_series": True}],
    ids=["no-options", "tree-with-series"],
)
def test_options_with_two_kernels_are_accepted(given: dict[str, Any]) -> None:
    kselftest_mode.check_options(config(**given))


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
def test_kselftests_and_suite_tests_exclude_each_other(
    path: str, without: bool, with_option: bool
) -> None:
    assert kselftest_mode.ignores(ROOT / path, config(upstream=False)) is without
    assert kselftest_mode.ignores(ROOT / path, config(upstream=True)) is with_option


def context(**overrides: Any) -> RunContext:
    """Return a context with sample values."""
    machine = MachineConfig(Path("bzImage"), "k", Path("root"), "r", "tcg", 1024, 2, ("quiet",))
    values: dict[str, Any] = {
        "profile": "upstream",
        "machine": machine,
        "accel_reason": "asked for",
        "deadline_scale": 3.0,
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
    return RunContext(**{**values, **overrides})


def test_context_json_has_both_kernels() -> None:
    both = replace(context(), baseline=context(profile="upstream-unpatched"))
    assert RunContext.from_json(both.to_json()) == both
    alone = context()
    assert RunContext.from_json(alone.to_json()) == alone


def test_report_notes_name_baseline_kernel() -> None:
    other = context(profile="upstream-unpatched")
    (note,) = kselftest_mode.report_notes(context(baseline=other))
    assert "unpatched is profile upstream-unpatched (7.3.4, key abc)" in note
    assert kselftest_mode.report_notes(context()) == ()
