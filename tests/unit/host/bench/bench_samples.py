# SPDX-License-Identifier: GPL-2.0-only
"""Sample benchmark results."""

from collections.abc import Sequence
from typing import Any

from fixtures.host.model.bench_results import INSTRUCTIONS, OWN, Bench, Figure, Missing


def figure(
    name: str,
    *samples: float,
    machine: str = INSTRUCTIONS,
    profile: str = OWN,
    unit: str = "time",
    **case: Any,
) -> Figure:
    """Return a measurement with these samples."""
    return Figure(
        name=name, profile=profile, machine=machine, unit=unit, samples=samples, case=case
    )


def bench(figures: Sequence[Figure], missing: Sequence[Missing] = ()) -> Bench:
    """Return a run with these measurements."""
    return Bench(
        kernels={OWN: "7.3.4 (abc)"},
        accel="tcg",
        qemu="QEMU emulator version 7.2",
        host={"cpu": "a processor"},
        started="2026-11-24T00:00:00+00:00",
        seconds=90.0,
        quick=False,
        figures=tuple(figures),
        missing=tuple(missing),
    )
