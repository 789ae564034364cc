# SPDX-License-Identifier: GPL-2.0-only
"""Faults in real VMs get the expected verdicts, and the run continues after each of them.

One inner run executes all tests below ``faulty_tests/``; each test here checks one result of it.
Other inner runs check replay, shared VMs, the snapshot cache, soak runs and ``--no-snapshots``.
"""

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.canary.inner_run import FAULTY_TESTS, run_pytest

# Faulty test, its verdict, and a regular expression for its message, splat or console output.
VERDICTS = [
    ("test_kernel.py::test_panic", "panic", "lkdtm"),
    ("test_kernel.py::test_panic_by_sysrq", "panic", "sysrq"),
    ("test_kernel.py::test_bug", "splat", "kernel BUG at"),
    ("test_kernel.py::test_warning", "splat", "WARNING"),
    ("test_kernel.py::test_expected_warning", "passed", ""),
    ("test_kernel.py::test_expected_warning_missing", "failed", "did not occur"),
    ("test_kernel.py::test_hung_task", "hang", "blocked for more than"),
    ("test_kernel.py::test_bug_before_hung_task", "splat", "kernel BUG at"),
    # The CPU that takes the NMI either loops, or waits for a CPU that loops.
    (
        "test_kernel.py::test_hard_lockup_on_every_cpu",
        "hang",
        "lkdtm_HARDLOCKUP|smp_call_function_many_cond",
    ),
    ("test_kernel.py::test_guest_powers_off", "lost", "powered off"),
    ("test_kernel.py::test_warning_after_console_flood", "splat", "WARNING"),
    # These need a kernel that clang has compiled: see test_sanitizer_of_clang_gives_splat.
    ("test_clang_sanitizers.py::test_uninitialised_memory", "skipped", "no CONFIG_KMSAN"),
    ("test_clang_sanitizers.py::test_call_of_another_type", "skipped", "no CONFIG_CFI"),
    ("test_user_space.py::test_passes", "passed", ""),
    ("test_user_space.py::test_fails", "failed", "assert 1 == 2"),
    ("test_user_space.py::test_router_failure_after_traffic", "failed", "failure after traffic"),
    ("test_user_space.py::test_draws_random_number", "failed", "drew 0x"),
    ("test_user_space.py::test_skips", "skipped", "the canary's reason"),
    ("test_user_space.py::test_xfails", "xfail", "the canary's expectation"),
    ("test_user_space.py::test_setup_fails", "error", "the canary's broken fixture"),
    (
        "test_user_space.py::test_session_setup_fails",
        "error",
        "the canary's broken session fixture",
    ),
    ("test_user_space.py::test_loops_in_user_space", "failed", "test_loops_in_user_space"),
    ("test_user_space.py::test_segfaults", "failed", "signal 11"),
    ("test_user_space.py::test_kills_pytest_server", "lost", ""),
    ("test_user_space.py::test_leaks_netns", "error", "canary"),
    # kmemleak is in the profile leak only: see test_unreferenced_memory_is_named_in_verdict.
    ("test_leaks.py::test_leaks_unreferenced_memory", "skipped", "no kmemleak"),
    ("test_user_space.py::test_qemu_is_killed", "lost", "SIGKILL"),
    ("test_user_space.py::test_qemu_is_killed_once", "lost", "SIGKILL"),
    ("test_user_space.py::test_worker_exits", "infra", "crashed"),
    ("test_user_space.py::test_soak_with_half_of_seeds_bad", "passed", ""),
    ("test_user_space.py::test_guest_has_no_host_files", "passed", ""),
]

# Faulty test, and a regular expression for each line of what it leaked.
LEAKS = {
    "test_leaks.py::test_leaks_module_reference": [r"module fm_dummy_map: 1 reference\(s\)"],
    "test_leaks.py::test_leaks_map": [r"BPF map \d+"],
    "test_leaks.py::test_leaks_slab_object": [r"slab nf_flow_snoop: 1 object\(s\)"],
    "test_leaks.py::test_leaks_device": ["network device canary0"],
    "test_leaks.py::test_leaks_cgroup": [r"1 cgroup\(s\)"],
    "test_leaks.py::test_puts_module_reference_twice": [
        r"module fm_dummy_map: 1 reference\(s\) fewer than before"
    ],
    "test_user_space.py::test_leaks_netns": [
        "network namespace canary",
        r"slab net_namespace: 1 object\(s\)",
    ],
}


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The results of one run of all faulty tests, by test.

    ``--dist load`` does not give another worker the test whose worker exited.
    """
    report = tmp_path_factory.mktemp("report")
    options = ("-n", "2", "--dist", "load", "-k", "not test_shared_vm_keeps_files")
    done = run_pytest(report, *options, FAULTY_TESTS)
    assert (report / "summary.json").exists(), done.stdout + done.stderr
    summary = json.loads((report / "summary.json").read_text())
    assert done.returncode == 1, done.stdout + done.stderr
    return {test["nodeid"].removeprefix(f"{FAULTY_TESTS}/"): test for test in summary["tests"]}


@pytest.mark.parametrize(("test", "verdict", "pattern"), VERDICTS, ids=[v[0] for v in VERDICTS])
def test_faulty_test_gets_expected_verdict(
    results: dict[str, dict[str, Any]], test: str, verdict: str, pattern: str
) -> None:
    result = results[test]
    output = result["message"] + result["splat"] + result["console"]
    assert result["verdict"] == verdict, output
    assert re.search(pattern, output)


@pytest.mark.parametrize(("test", "patterns"), LEAKS.items(), ids=LEAKS)
def test_leak_is_all_that_verdict_names(
    results: dict[str, dict[str, Any]], test: str, patterns: list[str]
) -> None:
    """RT-3: what one test left or put too often is named, and nothing else is."""
    result = results[test]
    assert result["verdict"] == "error", result["message"]
    title, *lines = result["message"].splitlines()
    assert title == "leaked, still there after teardown:"
    assert len(lines) == len(patterns), lines
    for pattern, line in zip(patterns, lines, strict=True):
        assert re.fullmatch(pattern, line)


@pytest.mark.skipif(
    not os.environ.get("FLOWMAP_CANARY_LEAK"),
    reason="builds the kernel of the profile leak: set FLOWMAP_CANARY_LEAK=1",
)
def test_unreferenced_memory_is_named_in_verdict(tmp_path: Path) -> None:
    """RT-3: memory to which the kernel has lost every reference is named in the profile leak."""
    selection = ("-k", "leaks_unreferenced_memory", FAULTY_TESTS)
    done = run_pytest(tmp_path, "--vmconfig", "leak", *selection)
    assert done.returncode == 1, done.stdout + done.stderr
    (test,) = json.loads((tmp_path / "summary.json").read_text())["tests"]
    assert test["verdict"] == "error", test["message"]
    assert "kmemleak: unreferenced object" in test["message"]
    assert "array_map_alloc" in test["message"]


@pytest.mark.skipif(
    not os.environ.get("FLOWMAP_CANARY_CLANG"),
    reason="builds the kernels of the profiles kmsan and cfi: set FLOWMAP_CANARY_CLANG=1",
)
@pytest.mark.parametrize(
    ("profile", "test", "title"),
    [
        ("kmsan", "test_uninitialised_memory", "BUG: KMSAN: uninit-value in "),
        ("cfi", "test_call_of_another_type", "CFI failure at "),
    ],
)
def test_sanitizer_of_clang_gives_splat(
    tmp_path: Path, profile: str, test: str, title: str
) -> None:
    done = run_pytest(tmp_path, "--vmconfig", profile, "-k", test, FAULTY_TESTS)
    assert done.returncode == 1, done.stdout + done.stderr
    (result,) = json.loads((tmp_path / "summary.json").read_text())["tests"]
    assert result["verdict"] == "splat", result["message"]
    assert title in result["splat"]
    assert "lkdtm" in result["splat"]


def test_failure_with_router_leaves_packet_captures(results: dict[str, dict[str, Any]]) -> None:
    artefacts = results["test_user_space.py::test_router_failure_after_traffic"]["artefacts"]
    captures = [Path(name).name for name in artefacts if ".pcap" in name]
    assert sorted(captures) == ["fm-client-c0.pcap", "fm-server-s0.pcap"]


def test_every_faulty_test_has_a_result(results: dict[str, dict[str, Any]]) -> None:
    assert sorted(results) == sorted({test for test, _, _ in VERDICTS} | LEAKS.keys())


def test_replay_command_repeats_random_choices(
    results: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """RT-4: the command that the report prints repeats a test with the same random choices."""
    first = results["test_user_space.py::test_draws_random_number"]
    _, _, options = first["replay"].partition(" -- ")
    run_pytest(tmp_path, *shlex.split(options))
    (replayed,) = json.loads((tmp_path / "summary.json").read_text())["tests"]
    assert replayed["seed"] == first["seed"]
    assert replayed["message"] == first["message"]


def test_retry_that_passes_makes_a_failure_flaky_and_the_run_fails(tmp_path: Path) -> None:
    selection = "test_passes or test_fails or test_qemu_is_killed_once"
    done = run_pytest(tmp_path, "--retry", "1", "-k", selection, FAULTY_TESTS)
    assert done.returncode == 1, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    verdicts = {test["nodeid"].rpartition("::")[2]: test["verdict"] for test in summary["tests"]}
    assert verdicts == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_qemu_is_killed_once": "flaky",
    }
    (flaky,) = (test for test in summary["tests"] if test["verdict"] == "flaky")
    assert "SIGKILL" in flaky["message"]
    assert flaky["artefacts"]


def test_shared_vm_tests_run_in_one_vm(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "-k", "test_shared_vm_keeps_files", FAULTY_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [test["layer"] for test in summary["tests"]] == ["S2", "S2 (shared)"]


def test_unchanged_tests_restore_cached_snapshot(tmp_path: Path) -> None:
    """The second run restores S1, the snapshot with the collected tests, from the cache."""
    for _ in range(2):
        done = run_pytest(tmp_path, "-k", "test_passes", FAULTY_TESTS)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "delivering the tests" not in done.stderr


def test_soak_ends_at_first_failure_and_its_command_repeats_it(tmp_path: Path) -> None:
    """The replay command has the seed and the iterations scale of the repetition that failed."""
    selection = ("-k", "test_soak_with_half_of_seeds_bad", FAULTY_TESTS)
    done = run_pytest(tmp_path, "--soak", "5", *selection)
    assert done.returncode == 1, done.stdout + done.stderr
    (test,) = json.loads((tmp_path / "summary.json").read_text())["tests"]
    assert test["verdict"] == "failed"
    assert f"--seed {test['seed']} --soak 1" in test["replay"]

    *options, _ = shlex.split(test["replay"].partition(" -- ")[2])
    replayed = run_pytest(tmp_path, *options, *selection)
    assert replayed.returncode == 1, replayed.stdout + replayed.stderr
    (first,) = json.loads((tmp_path / "summary.json").read_text())["tests"]
    assert (first["seed"], first["repetitions"]) == (test["seed"], 1)


def test_no_snapshots_boots_and_gives_same_verdicts(tmp_path: Path) -> None:
    """``--no-snapshots`` boots a VM for each test."""
    done = run_pytest(tmp_path, "--no-snapshots", "-k", "test_passes or test_fails", FAULTY_TESTS)
    assert done.returncode == 1, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    verdicts = {test["nodeid"].rpartition("::")[2]: test["verdict"] for test in summary["tests"]}
    assert verdicts == {"test_passes": "passed", "test_fails": "failed"}
    assert {test["layer"] for test in summary["tests"]} == {"boot"}
