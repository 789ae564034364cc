# SPDX-License-Identifier: GPL-2.0-only
"""Sample benchmark results."""

from collections.abc import Sequence
from typing import Any

from fixtures.host.model.bench_results import (
    INSTRUCTIONS,
    PATCHED_PROFILE,
    BenchResults,
    FailedMeasurement,
    Measurement,
)


def make_measurement(
    name: str,
    *samples: float,
    machine: str = INSTRUCTIONS,
    profile: str = PATCHED_PROFILE,
    unit: str = "time",
    **case: Any,
) -> Measurement:
    """Return a measurement with these samples."""
    return Measurement(
        name=name, profile=profile, machine=machine, unit=unit, samples=samples, case=case
    )


def make_bench_results(
    figures: Sequence[Measurement], missing: Sequence[FailedMeasurement] = ()
) -> BenchResults:
    """Return a run with these measurements."""
    return BenchResults(
        kernels={PATCHED_PROFILE: "7.3.4 (abc)"},
        accel="tcg",
        qemu="QEMU emulator version 7.2",
        host={"cpu": "a processor"},
        started="2026-11-24T00:00:00+00:00",
        seconds=90.0,
        quick=False,
        figures=tuple(figures),
        missing=tuple(missing),
    )
