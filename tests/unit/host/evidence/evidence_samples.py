# SPDX-License-Identifier: GPL-2.0-only
"""A report with the inputs of its kernel, and helpers to read an archive."""

from pathlib import Path
from typing import Any

from fixtures.host.evidence import evidence_archive
from fixtures.host.kernel.patch_series import PatchSeries
from fixtures.host.report.report_writer import write_all
from tests.unit.host.report import run_samples

SERIES = PatchSeries(Path(), "patches/x", (("0001-a.patch", b"+a\n"), ("0002-b.patch", b"+b\n")))
KERNEL: dict[str, Any] = {
    "key": "abc123",
    "source": {"kind": "debian"},
    "series": SERIES.describe(),
}


def report(folder: Path, **more: Any) -> Path:
    """Write a report with kernel inputs, as a run does."""
    folder.mkdir(parents=True)
    test = run_samples.result(artefacts=("artefacts/x/dmesg.txt",), seed=7)
    write_all(
        [run_samples.run(test, kernel=KERNEL, **more)], folder, run_samples.contract(folder.parent)
    )
    (folder / "artefacts/x").mkdir(parents=True)
    (folder / "artefacts/x/dmesg.txt").write_text("kernel log\n")
    (folder / "inputs/abc123/series").mkdir(parents=True)
    (folder / "inputs/abc123/config").write_text("CONFIG_BPF=y\n")
    for name, content in SERIES.patches:
        (folder / "inputs/abc123/series" / name).write_bytes(content)
    return folder


def files(archive: Path) -> dict[str, bytes]:
    """Return the files of an archive by path."""
    body, _ = evidence_archive.split_trailer(archive.read_bytes())
    found, why = evidence_archive.unpack(body, 1 << 30)
    assert not why
    return found
