# SPDX-License-Identifier: GPL-2.0-only
"""Verifying evidence archives: every change is detected, and the changed file is named."""

import hashlib
import io
import json
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.host.evidence import evidence_archive
from fixtures.host.evidence.cli import main
from fixtures.host.evidence.verify import DamagedArchive, verify
from fixtures.host.report.report_writer import write_all
from fixtures.host.util.zstd_compat import zstd
from tests.unit.host.evidence import evidence_samples
from tests.unit.host.report.run_samples import result, run

Edit = Callable[[dict[str, bytes]], None]


def _edit(archive: Path, edit: Edit, seal: bool = True) -> None:
    """Change an archive's files and repack them; SHA256SUMS stays unchanged."""
    files = evidence_samples.files(archive)
    edit(files)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{evidence_archive.ROOT_FOLDER}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    body = zstd.compress(out.getvalue())
    archive.write_bytes(body + evidence_archive.make_trailer(body) if seal else body)


def _repack(archive: Path, edit: Edit) -> None:
    """Change an archive's files and SHA256SUMS."""
    files = evidence_samples.files(archive)
    del files[evidence_archive.CHECKSUMS]
    edit(files)
    archive.write_bytes(evidence_archive.pack(files))


def test_unchanged_archive_is_verified(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(archive)]) == 0
    out, err = capsys.readouterr()
    assert f"good: {archive}, " in out
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in out
    assert "PASSED: 1 test passed on 7.3.4-suite (base), none failed." in out
    assert err == ""


def test_change_of_any_byte_is_detected(tmp_path: Path) -> None:
    """Flips a bit in every byte of a small archive, including headers and checksums."""
    write_all([run(result(), kernel={})], tmp_path, tmp_path / "none.md")
    files = {"report/summary.json": (tmp_path / "summary.json").read_bytes()}
    good = evidence_archive.pack(files)
    path = tmp_path / "evidence.tar.zst"
    path.write_bytes(good)
    verify(path)
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        with pytest.raises(DamagedArchive, match=r"evidence\.tar\.zst: "):
            verify(path)


def test_file_with_a_changed_byte_is_named(tmp_path: Path, report: Path) -> None:
    (report / "artefacts/x/noise.bin").write_bytes(random.Random(1).randbytes(100_000))
    path = tmp_path / "evidence.tar.zst"
    assert main(["pack", "--from", str(report), "--to", str(path)]) == 0
    content = bytearray(path.read_bytes())
    noise = (report / "artefacts/x/noise.bin").read_bytes()
    # Random bytes cannot be compressed, so they are in the archive verbatim.
    content[content.index(noise[50_000:50_100])] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedArchive, match=r"report/artefacts/x/noise\.bin: its sha256"):
        verify(path)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 0.9999])
def test_truncated_archive_is_damaged(
    archive: Path, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * share)])
    assert main(["verify", str(archive)]) == 1
    _, err = capsys.readouterr()
    assert err.startswith(f"damaged: {archive}: ")
    assert err.count("\n") == 1


def _changed(files: dict[str, bytes]) -> None:
    text = bytearray(files["report/artefacts/x/dmesg.txt"])
    text[0] ^= 1
    files["report/artefacts/x/dmesg.txt"] = bytes(text)


def _removed(files: dict[str, bytes]) -> None:
    del files["report/results.ktap"]


def _added(files: dict[str, bytes]) -> None:
    files["report/new.txt"] = b""


@pytest.mark.parametrize("seal", [True, False], ids=["with-trailer", "without-trailer"])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_changed, "report/artefacts/x/dmesg.txt: its sha256 is not the one in SHA256SUMS"),
        (_removed, "report/results.ktap: missing"),
        (_added, "report/new.txt: not in SHA256SUMS"),
    ],
    ids=["changed", "removed", "added"],
)
def test_differing_file_is_named(
    archive: Path, edit: Edit, message: str, seal: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    _edit(archive, edit, seal)
    assert main(["verify", str(archive)]) == 1
    assert capsys.readouterr().err == f"damaged: {archive}: {message}\n"


def test_unpacked_edited_and_repacked_archive_is_detected(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "plain.tar").write_bytes(zstd.decompress(archive.read_bytes()))
    for argv in (
        ["tar", "-xf", "plain.tar"],
        ["dd", "of=evidence/report/report.html", "bs=1", "seek=500", "conv=notrunc", "status=none"],
        ["tar", "-cf", "new.tar", "evidence"],
    ):
        subprocess.run(argv, cwd=tmp_path, input=b"\0", check=True)
    (tmp_path / "new.tar.zst").write_bytes(zstd.compress((tmp_path / "new.tar").read_bytes()))
    with pytest.raises(DamagedArchive, match=r"report/report\.html: its sha256"):
        verify(tmp_path / "new.tar.zst")


def test_archive_without_trailer_is_damaged(archive: Path) -> None:
    _edit(archive, lambda _: None, seal=False)
    with pytest.raises(DamagedArchive, match="the checksum at its end is missing"):
        verify(archive)


def _other_patch(files: dict[str, bytes]) -> None:
    files["report/inputs/abc123/series/0001-a.patch"] = b"+c\n"


def _no_config(files: dict[str, bytes]) -> None:
    del files["report/inputs/abc123/config"]


def _no_report(files: dict[str, bytes]) -> None:
    del files["report/summary.json"]


def _other_counts(files: dict[str, bytes]) -> None:
    values = json.loads(files["report/summary.json"])
    values["counts"]["passed"] = 400
    files["report/summary.json"] = json.dumps(values).encode()


def _other_history(files: dict[str, bytes]) -> None:
    values = json.loads(files["report/ledger.json"])
    values["runs"] = []
    files["report/ledger.json"] = json.dumps(values).encode()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_other_patch, "report/inputs/abc123/series/0001-a.patch is not the patch that was"),
        (_no_config, "report/inputs/abc123/config is missing"),
        (_no_report, "report/summary.json: missing"),
        (_other_counts, "report/summary.json: counts does not follow from the tests"),
        (_other_history, "report/ledger.json: a run is missing"),
    ],
    ids=["patch", "config", "report", "counts", "history"],
)
def test_contradicting_files_are_detected(archive: Path, edit: Edit, message: str) -> None:
    """Even if SHA256SUMS matches the changed files."""
    _repack(archive, edit)
    with pytest.raises(DamagedArchive, match=message):
        verify(archive)


def test_path_outside_the_archive_is_refused(archive: Path) -> None:
    _edit(archive, lambda files: files.update({"../../etc/passwd": b"x"}))
    with pytest.raises(DamagedArchive, match="is no file of an evidence archive"):
        verify(archive)


@pytest.mark.parametrize(
    "content",
    [b"", b"(\xb5/", b"PK\x03\x04", zstd.compress(b"x" * 9)],
    ids=["empty", "cut-zstd", "zip", "zstd"],
)
def test_other_files_are_bad_input(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert main(["verify", str(path)]) == 2
    assert main(["verify", str(tmp_path)]) == 2
    assert main(["verify", str(tmp_path / "none")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"error: {tmp_path}") for line in lines)
