# SPDX-License-Identifier: GPL-2.0-only
"""The reproducibility check: compared files, printed result, location of the second build."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fixtures.host.config import vm_profile
from fixtures.host.kernel import cli, rebuild_and_compare
from fixtures.host.kernel.kernel_cli_options import KernelOptions
from fixtures.host.util.progress import SilentProgress

Build = Callable[[Path], object]

ARGUMENTS = (vm_profile.load_profile("base"), KernelOptions(), SilentProgress())


def fill(folder: Path) -> None:
    """Create a few files of a build."""
    (folder / "modules/lib").mkdir(parents=True)
    (folder / "bzImage").write_bytes(b"image")
    (folder / "modules/lib/nf_flow_table.ko").write_bytes(b"module")
    for name in rebuild_and_compare.BUILD_SPECIFIC_FILES:
        (folder / name).write_text(str(folder))


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Build]:
    """Return the list of changes to apply to the second build; empty if it is reproducible."""
    after: list[Build] = []

    def provide_kernel(*arguments: object) -> SimpleNamespace:
        place = arguments[3] if len(arguments) > 3 else tmp_path / "cache"
        assert isinstance(place, Path)
        folder = place / "kernels/key"
        fill(folder)
        for change in after if len(arguments) > 3 else ():
            change(folder)
        return SimpleNamespace(directory=folder)

    monkeypatch.setattr(rebuild_and_compare, "provide_kernel", provide_kernel)
    monkeypatch.setattr(rebuild_and_compare, "SECOND_BUILD", tmp_path / "build/second")
    monkeypatch.setenv("FLOWMAP_CACHE", str(tmp_path / "cache"))
    return after


@pytest.mark.usefixtures("second")
def test_equal_builds_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--check-reproducible"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "cache/kernels/key"),
        "built twice: 2 files, 0 MiB, all the same",
    ]
    assert list((tmp_path / "cache/second").iterdir()) == []
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda folder: (folder / "bzImage").write_bytes(b"imagf"), "bzImage"),
        (lambda folder: (folder / "bzImage").unlink(), "bzImage"),
        (lambda folder: (folder / "modules/new.ko").write_bytes(b""), "modules/new.ko"),
    ],
    ids=["one-byte", "missing", "added"],
)
def test_difference_is_named_and_second_build_kept(
    tmp_path: Path,
    second: list[Build],
    change: Build,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    second.append(change)
    assert cli.main(["--check-reproducible"]) == 1
    second_build = tmp_path / "build/second"
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"differs: {name}",
        f"built twice: 1 of 2 files differ; the second kernel is in {second_build}",
    ]
    assert (second_build / "modules/lib/nf_flow_table.ko").is_file()
    assert list((tmp_path / "cache/second").iterdir()) == []


def test_second_build_replaces_previous_one(tmp_path: Path, second: list[Build]) -> None:
    (tmp_path / "build/second/old").mkdir(parents=True)
    second.append(lambda folder: (folder / "bzImage").unlink())
    assert rebuild_and_compare.compare_builds(*ARGUMENTS).differing == ("bzImage",)
    assert not (tmp_path / "build/second/old").exists()


@pytest.mark.usefixtures("second")
def test_old_option_spelling_still_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--twice"]) == 0
    assert "--twice has been renamed to --check-reproducible" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--kernel-image", "--kernel-modules"])
def test_prebuilt_kernel_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--check-reproducible", option, "there"]) == 2
    assert "--check-reproducible: a prebuilt kernel" in capsys.readouterr().err
