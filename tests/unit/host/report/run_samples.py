# SPDX-License-Identifier: GPL-2.0-only
"""Invented runs for the tests of reports."""

import random
from pathlib import Path
from typing import Any

from fixtures.flowmap.series import AREAS
from fixtures.host.model.results import (
    Outcome,
    Repetition,
    Run,
    RunInfo,
    TestResult,
    Verdict,
    area_of,
    outcome_of,
)

CONTRACT = """# Contract

## MM: modular map types

- **MM-1** `bpf_map_register_ops(type, ops)` is <exported> to *GPL* modules.
- **MM-2** Refused: a type out of range
  and a slot that is taken.

## SN: snoop

- **SN-1** The flag is accepted.
- **SN-2** Every flow is held.

Prose that belongs to no clause.
"""

NUMBERED_CONTRACT = """
## FM: the map

- **FM-1** Creation
  - **FM-1.1** A first claim
    over two lines.
  - **FM-1.2** A second claim.
- **FM-2** Cost
  - **FM-2.1** Is low.
  - A reason.
  - **FM-2.2** Is bounded. Proved by: a document.
  - Open: not measured
    yet.
- **FM-3** One sentence.

  - **FM-3.1** A list of its own.
"""

SPLAT = """BUG: KASAN: slab-use-after-free in flowmap_lookup (net/netfilter/flowmap.c:212)
Read of size 8 at addr ffff888004a31c40 by task python3/412

Call Trace:
 <TASK>
 dump_stack_lvl (lib/dump_stack.c:123)
 print_report (mm/kasan/report.c:378 mm/kasan/report.c:482)
 </TASK>
"""


def result(
    nodeid: str = "selftests/snoop/test_snoop_flag.py::test_shown",
    verdict: Verdict = Verdict.PASSED,
    **more: Any,
) -> TestResult:
    """Return a test result; all fields have defaults."""
    values: dict[str, Any] = {
        "area": area_of(nodeid),
        "outcome": outcome_of(verdict),
        "seconds": 0.75,
    }
    return TestResult(nodeid=nodeid, verdict=verdict, **{**values, **more})


def info(**more: Any) -> RunInfo:
    """Return the environment of a run; all fields have defaults."""
    values: dict[str, Any] = {
        "profile": "base",
        "kernel": {
            "source": {"kind": "debian", "version": "7.3.4-1", "patched_by": "Debian"},
            "series": {
                "name": "v7.3",
                "sha256": "ab" * 32,
                "patches": [{"name": "0001-a.patch", "sha256": "ef" * 32}],
            },
            "fragments": {"base.config": "cd" * 32},
            "tools": {"compiler": "gcc 12.2.0"},
        },
        "kernel_release": "7.3.4-suite",
        "accel": "tcg",
        "accel_reason": "no guest reached user space under KVM within 20 s",
        "deadline_scale": 4.0,
        "host": {"cpu": "An x86 CPU", "cores": "2", "memory": "24 GiB", "distro": "Debian 12"},
        "qemu_version": "7.2.22",
        "python": "3.11.7",
        "started": "2026-01-01T10:00:00Z",
        "finished": "2026-01-01T10:01:32Z",
        "seconds": 92.0,
        "argv": ("-n", "2"),
    }
    return RunInfo(**{**values, **more})


def soaked(*times: tuple[float, int, int]) -> TestResult:
    """Return the result of a race in a soak run.

    Args:
        times: start time, rounds and overlaps of each repetition.
    """
    history = tuple(
        Repetition(began, seed, rounds, overlaps)
        for seed, (began, rounds, overlaps) in enumerate(times)
    )
    return result(
        f"selftests/races/test_a.py::test_{len(times)}",
        stdout="seed 1: 20 rounds, 19 overlapped\n",
        repetitions=len(times),
        history=history,
    )


def run(*tests: TestResult, **more: Any) -> Run:
    """Return a run with these results."""
    return Run(info(**more), tests)


def contract(folder: Path) -> Path:
    """Write a small contract and return its path."""
    path = folder / "contract.md"
    path.write_text(CONTRACT, encoding="utf-8")
    return path


def large(seed: int, number: int = 120) -> Run:
    """Return a run with many results of all verdicts; the same seed gives the same run."""
    rng = random.Random(seed)
    tests = []
    for at in range(number):
        area = rng.choice(AREAS)
        verdict = rng.choice(list(Verdict))
        outcome: Outcome = outcome_of(verdict)
        message = "" if verdict is Verdict.PASSED else f"E   assert {at} == {at + 1}\n# SKIP no"
        tests.append(
            result(
                f"selftests/{area}/test_{rng.randrange(4)}.py::test_{at}[{rng.random():.3f}]",
                verdict,
                outcome=outcome,
                clauses=tuple(rng.sample(["MM-1", "MM-2", "SN-1", "XX-9"], rng.randrange(3))),
                message=message,
                splat=SPLAT if verdict is Verdict.SPLAT else "",
                seconds=rng.random() * 20,
            )
        )
    return run(*tests)
