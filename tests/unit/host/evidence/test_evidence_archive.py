# SPDX-License-Identifier: GPL-2.0-only
"""Packing evidence archives: content, reproducibility, and unusable input."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures.host.evidence.cli import collect_files, main
from fixtures.host.evidence.verify import verify
from fixtures.host.report.report_writer import write_all
from tests.unit.host.evidence import evidence_samples
from tests.unit.host.report import section_samples
from tests.unit.host.report.run_samples import result, run


def test_archive_has_report_artefacts_and_kernel_inputs(archive: Path) -> None:
    assert {
        "SHA256SUMS",
        "report/summary.json",
        "report/report.html",
        "report/ledger.json",
        "report/cover-letter.txt",
        "report/artefacts/x/dmesg.txt",
        "report/inputs/abc123/config",
        "report/inputs/abc123/series/0002-b.patch",
    } <= set(evidence_samples.files(archive))


def test_same_files_give_the_same_bytes(tmp_path: Path, report: Path, archive: Path) -> None:
    for path in report.rglob("*"):
        path.touch()
        path.chmod(0o700)
    (report / ".part").write_text("not finished")
    again = tmp_path / "again.tar.zst"
    assert main(["pack", "--from", str(report), "--to", str(again)]) == 0
    assert again.read_bytes() == archive.read_bytes()


def test_link_to_a_report_gives_the_same_archive(
    tmp_path: Path, report: Path, archive: Path
) -> None:
    (tmp_path / "link").symlink_to(report)
    again = tmp_path / "again.tar.zst"
    assert main(["pack", "--from", str(tmp_path / "link"), "--to", str(again)]) == 0
    assert again.read_bytes() == archive.read_bytes()


def test_archive_can_be_unpacked_by_zstd_tar_and_sha256sum(tmp_path: Path, archive: Path) -> None:
    if not shutil.which("zstd"):
        pytest.skip("no program zstd")
    for argv in (
        ["zstd", "-q", "-d", archive.name, "-o", "plain.tar"],
        ["tar", "-xf", "plain.tar"],
        ["sha256sum", "--quiet", "-c", "SHA256SUMS"],
    ):
        where = tmp_path / "evidence" if argv[0] == "sha256sum" else tmp_path
        subprocess.run(argv, cwd=where, check=True)


def test_links_of_a_merged_report_have_targets(tmp_path: Path) -> None:
    sources = [
        evidence_samples.report(tmp_path / "one" / "report"),
        evidence_samples.report(tmp_path / "two" / "report", profile="debug"),
    ]
    archive = tmp_path / "evidence.tar.zst"
    assert main(["pack", "--from", *map(str, sources), "--to", str(archive)]) == 0
    assert [run.info.profile for run in verify(archive).runs] == ["base", "debug"]
    files = evidence_samples.files(archive)
    values = json.loads(files["report/summary.json"])
    for one in values["runs"]:
        (path,) = one["tests"][0]["artefacts"]
        assert path.removeprefix("../") in files


def test_sections_of_a_run_are_in_the_merged_report(tmp_path: Path) -> None:
    sources = [
        section_samples.write(
            section_samples.everything(), evidence_samples.report(tmp_path / "one" / "report")
        ),
        evidence_samples.report(tmp_path / "two" / "report", profile="debug"),
    ]
    (tmp_path / "scratch").mkdir()
    files = collect_files(sources, tmp_path / "scratch")
    for section in section_samples.everything():
        assert section.content
        for name, content in section.content.files.items():
            assert files[f"runs/1/{name}"] == files[f"report/{name}"] == content
    assert b'<section id="bugs">' in files["report/report.html"]


def test_missing_inputs_are_taken_from_the_cache(tmp_path: Path) -> None:
    kernel = {"key": "k1", "source": {"kind": "debian"}, "series": None}
    write_all([run(result(), kernel=kernel)], tmp_path / "report")
    built = tmp_path / "cache/kernels/k1"
    built.mkdir(parents=True)
    for name in ("config", "build.log"):
        (built / name).write_text(name)
    (tmp_path / "scratch").mkdir()
    files = collect_files([tmp_path / "report"], tmp_path / "scratch", tmp_path / "cache")
    assert files["report/inputs/k1/config"] == b"config"


def test_unusable_input_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path / "cache"))
    runs = [run(result(), kernel=evidence_samples.KERNEL), run(result(), profile="debug")]
    write_all(runs, tmp_path / "merged")
    write_all(runs[:1], tmp_path / "bare")
    write_all(
        [run(result(), kernel={**evidence_samples.KERNEL, "key": "../x"})], tmp_path / "edited"
    )
    to = str(tmp_path / "x.tar.zst")
    for name in ("none", "merged", "bare", "edited"):
        assert main(["pack", "--from", str(tmp_path / name), "--to", to]) == 2
    lines = capsys.readouterr().err.splitlines()
    messages = ["No such file", "a report of 2 runs", "no longer in the cache", "is no kernel key"]
    assert len(lines) == len(messages)
    for line, words in zip(lines, messages, strict=True):
        assert line.startswith("error: ")
        assert words in line
    assert not (tmp_path / "x.tar.zst").exists()
