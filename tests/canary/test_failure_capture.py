# SPDX-License-Identifier: GPL-2.0-only
"""A failed test's machine can be entered again and again, and a panic leaves a core."""

import json
import subprocess
import sys
from pathlib import Path

from tests.canary.inner_run import FAULTY_TESTS, ROOT, inner_environment, run_pytest


def _run_module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"fixtures.host.{name}", *arguments],
        cwd=ROOT,
        env=inner_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def _verdict(report: Path) -> str:
    (test,) = json.loads((report / "summary.json").read_text())["tests"]
    return str(test["verdict"])


def test_kept_machine_has_the_namespaces_of_the_failure_in_every_session(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "-n", "0", "--keep-vm", "-k", "router_failure", FAULTY_TESTS)
    assert done.returncode == 1, done.stdout + done.stderr
    assert _verdict(tmp_path) == "failed"
    command = "ip netns; ls /run/changed; touch /run/changed; exit 7"
    for _ in range(2):
        session = _run_module("enter", "test_router_failure_after_traffic", "--exec", command)
        assert session.returncode == 7, session.stdout + session.stderr
        for name in ("fm-client", "fm-router", "fm-server"):
            assert name in session.stdout
        assert "/run/changed: No such file" in session.stdout


def test_leak_found_after_teardown_keeps_the_machine(tmp_path: Path) -> None:
    run_pytest(tmp_path, "-n", "0", "--keep-vm", "-k", "leaks_netns", FAULTY_TESTS)
    assert _verdict(tmp_path) == "error"
    session = _run_module("enter", "test_leaks_netns", "--exec", "ip netns")
    assert "canary" in session.stdout


def test_panic_leaves_a_core_that_drgn_opens(tmp_path: Path) -> None:
    run_pytest(tmp_path, "-n", "0", "-k", "panic_by_sysrq", FAULTY_TESTS)
    assert _verdict(tmp_path) == "panic"
    code = "print(len(list(for_each_task(prog))), prog['linux_banner'].string_())"
    opened = _run_module("introspection", "test_panic_by_sysrq", "--exec", code)
    assert opened.returncode == 0, opened.stderr
    assert "Linux version" in opened.stdout


def test_traces_are_artefacts_of_a_test_that_passes(tmp_path: Path) -> None:
    options = ("--ftrace", "vfs_read", "--strace", "--kmsg")
    done = run_pytest(tmp_path, "-n", "0", *options, "-k", "test_passes", FAULTY_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "artefacts").iterdir()
    assert {path.name for path in folder.iterdir()} == {"ftrace.txt", "strace.txt", "kmsg.txt"}
    assert "vfs_read <-" in (folder / "ftrace.txt").read_text()
    assert "read(" in (folder / "strace.txt").read_text()
