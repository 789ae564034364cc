# SPDX-License-Identifier: GPL-2.0-only
"""Options of debugging: what they need, and what they change."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fixtures.host.config.vm_profile import load_profile
from fixtures.host.model.debug_options import DebugOptions
from fixtures.host.pytest_plugin import debugging
from fixtures.host.pytest_plugin.run_context import RunContext
from fixtures.host.pytest_plugin.select_tests import limit_workers
from fixtures.host.util.errors import UserError
from tests.unit.host.pytest_plugin.harness_fakes import make_context

pytest_plugins = ["pytester"]

PLUGIN = "fixtures.host.pytest_plugin.options"


def _options(pytester: pytest.Pytester, *args: str) -> DebugOptions:
    return debugging.debug_options(pytester.parseconfig("-p", PLUGIN, *args))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this process has a terminal."""
    monkeypatch.setattr(debugging, "has_terminal", lambda: True)


def test_ordinary_run_saves_cores_only(pytester: pytest.Pytester) -> None:
    options = _options(pytester)
    assert options == DebugOptions(terminal=options.terminal)
    assert options.core_dumps


def test_mutants_leave_no_cores(pytester: pytest.Pytester) -> None:
    assert not _options(pytester, "--mutant", "a.patch").core_dumps


@pytest.mark.parametrize("flag", ["--pdb", "--shell-on-failure"])
def test_session_without_terminal_is_refused(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setattr(debugging, "has_terminal", lambda: False)
    with pytest.raises(UserError, match="need a terminal"):
        _options(pytester, flag)


@pytest.mark.usefixtures("terminal")
def test_breakpoint_gets_terminal_in_one_process_only(pytester: pytest.Pytester) -> None:
    assert _options(pytester, "-n", "0").terminal
    assert not _options(pytester, "-n", "2").terminal


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("args", [("--gdb",), ("--break", "f"), ("--shell-on-failure",)])
def test_interactive_run_has_one_process(pytester: pytest.Pytester, args: tuple[str, ...]) -> None:
    config = pytester.parseconfig("-p", PLUGIN, "-n", "4", "--dist", "worksteal", *args)
    debugging.use_one_process(config)
    assert (config.option.numprocesses, config.option.dist) == (0, "no")
    assert debugging.debug_options(config).interactive


def test_break_implies_gdb_and_turns_kaslr_off(pytester: pytest.Pytester) -> None:
    options = _options(pytester, "--break", "flow_offload_add")
    assert (options.gdb, options.breakpoints) == (True, ("flow_offload_add",))
    profile = load_profile("base").vm
    assert "nokaslr" in debugging.vm_profile(profile, options).cmdline
    assert debugging.vm_profile(profile, DebugOptions()) == profile


def test_dyndbg_builds_another_kernel_and_records_the_log(pytester: pytest.Pytester) -> None:
    options = _options(pytester, "--dyndbg", "file net/netfilter/*")
    assert options.run_message()["kmsg"] is True
    profile = load_profile("base")
    built = debugging.profile_to_build(profile, options)
    assert built.name == "base-dyndbg"
    assert built.kernel.fragments == (*profile.kernel.fragments, "dyndbg.config")
    assert replace(built, name="base", kernel=profile.kernel) == profile
    assert debugging.profile_to_build(profile, DebugOptions()) == profile


def test_workers_get_the_options(tmp_path: Path) -> None:
    options = DebugOptions(keep_vm=True, ftrace=("nf_*",), breakpoints=("f",))
    context = replace(make_context(tmp_path), debug=options)
    assert RunContext.from_json(context.to_json()).debug == options
    assert DebugOptions.from_values(json.loads(json.dumps(asdict(options)))) == options


@pytest.mark.usefixtures("terminal")
def test_breakpoint_gets_terminal_if_no_worker_is_needed(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig("-p", PLUGIN, "-n", "auto")
    options = debugging.debug_options(config)
    assert not options.terminal
    assert not debugging.give_terminal_if_alone(config, options).terminal
    limit_workers(config, 1)
    assert debugging.give_terminal_if_alone(config, options).terminal
