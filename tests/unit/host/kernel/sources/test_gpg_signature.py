# SPDX-License-Identifier: GPL-2.0-only
"""A tarball without a pinned hash is believed when somebody known signed it, and only then."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fixtures.host.config import vm_profile
from fixtures.host.kernel.build_options import KernelOptions
from fixtures.host.kernel.sources import gpg_signature
from fixtures.host.kernel.sources.tarball import TarballSource, open_tarball
from fixtures.host.util.errors import UserError
from fixtures.host.util.progress import Quiet
from fixtures.host.util.subprocess_util import run
from tests.unit.host.kernel.sources.gpg_signer import Signer

MAKEFILE = "VERSION = 9\nPATCHLEVEL = 1\nSUBLEVEL = {}\n"


@pytest.fixture(scope="module")
def signer() -> Iterator[Signer]:
    """Has two keys that are believed, one of which expired, and one that is not."""
    # Not pytest's folder: the agent's socket is in it, and a socket's path has 108 bytes.
    with tempfile.TemporaryDirectory(prefix="gpg") as home:
        try:
            yield Signer(home)
        finally:
            run(["gpgconf", "--homedir", home, "--kill", "all"])


@pytest.fixture
def keys(signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the keys that are believed."""
    folder = tmp_path / "keys"
    folder.mkdir()
    signer.publish(folder, signer.key, signer.old)
    monkeypatch.setattr(gpg_signature, "KEYS", folder)
    return folder


@pytest.fixture
def site(signer: Signer, keys: Path, tmp_path: Path) -> Iterator["Site"]:  # noqa: ARG001
    """A server with linux-9.1.4, signed."""
    folder = tmp_path / "v9.x"
    folder.mkdir()
    handler = partial(Handler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        site = Site(signer, folder, tmp_path / "cache", server.server_address[1])
        site.release(4)
        yield site
        server.shutdown()


class Handler(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: object) -> None:
        """Drop the line."""


class Site:
    """kernel.org with one folder."""

    def __init__(self, signer: Signer, folder: Path, cache: Path, port: int) -> None:
        self.signer = signer
        self.folder = folder
        self.cache = cache
        self.told: list[str] = []
        self.profile = replace(
            vm_profile.load("base").kernel,
            version="9.1.4",
            tarball=f"http://127.0.0.1:{port}/v{{major}}.x/linux-{{version}}.tar.xz",
            tarball_sha256=None,
        )

    def release(self, sublevel: int, stated: int | None = None) -> Path:
        """Put a release there; ``stated`` is what it takes itself for."""
        name = f"linux-9.1.{sublevel}"
        tree = self.folder / name
        tree.mkdir()
        (tree / "Makefile").write_text(MAKEFILE.format(sublevel if stated is None else stated))
        run(["tar", "-cf", f"{name}.tar", name], cwd=self.folder)
        shutil.rmtree(tree)
        tar = self.folder / f"{name}.tar"
        self.signer.sign(tar, self.signer.key)
        self.pack(tar)
        return tar

    def pack(self, tar: Path) -> None:
        """Make the .tar.xz anew."""
        run(["xz", "--keep", "--force", tar])

    def say(self, line: str) -> None:
        """Keep what is said."""
        self.told.append(line)

    def open(self, options: KernelOptions | None = None) -> TarballSource:
        """What the suite would take."""
        progress = Quiet()
        progress.say = self.say  # type: ignore[method-assign]
        return open_tarball(self.profile, options or KernelOptions(), self.cache, progress)

    def refused(self) -> str:
        """The one line that it is refused with; nothing of it stays."""
        source = self.open()
        with pytest.raises(UserError) as caught:
            source.fetch(Quiet())
        assert source.scripts() is None
        assert "\n" not in str(caught.value)
        return str(caught.value)


def test_a_download_is_believed_for_its_signature(site: Site) -> None:
    source = site.open()
    assert "9.1.4" in source.identity
    tree = source.fetch(Quiet())
    assert (tree.folder / "Makefile").is_file()
    told = source.describe()
    assert told["signed_by"] == site.signer.key
    assert (told["version"], len(told["sha256"]), len(told["signed"])) == ("9.1.4", 64, 10)
    shutil.rmtree(site.folder)
    again = site.open()
    assert (again.identity, again.fetch(Quiet())) == (source.identity, tree)
    assert again.describe() == told


def test_what_was_changed_after_signing_is_refused(site: Site) -> None:
    tar = site.folder / "linux-9.1.4.tar"
    tar.write_bytes(tar.read_bytes().replace(b"VERSION = 9", b"VERSION = 8"))
    site.pack(tar)
    assert "linux-9.1.4.tar.xz: bad signature" in site.refused()


def test_what_was_cut_short_is_refused(site: Site) -> None:
    packed = site.folder / "linux-9.1.4.tar.xz"
    packed.write_bytes(packed.read_bytes()[:-40])
    assert "bad signature" in site.refused()


def test_a_stranger_is_refused_by_name(site: Site) -> None:
    site.signer.sign(site.folder / "linux-9.1.4.tar", site.signer.other)
    assert f"signed by {site.signer.other}, whose key is not in" in site.refused()


def test_a_key_under_another_name_is_refused(site: Site, keys: Path) -> None:
    (keys / f"{site.signer.key}.asc").rename(keys / f"{'A' * 40}.asc")
    assert f"signed by {site.signer.key}, which no file" in site.refused()


def test_without_a_signature_it_is_refused(site: Site) -> None:
    (site.folder / "linux-9.1.4.tar.sign").unlink()
    said = site.refused()
    assert "linux-9.1.4.tar.sign: HTTP Error 404" in said
    assert "pin kernel.tarball_sha256" in said


def test_what_is_no_signature_is_refused(site: Site) -> None:
    (site.folder / "linux-9.1.4.tar.sign").write_text("<html>not here</html>\n")
    assert "no OpenPGP signature in the file" in site.refused()


def test_two_signatures_are_one_too_many(site: Site) -> None:
    again = site.signer.make("again", None, "never")
    site.signer.publish(gpg_signature.KEYS, again)
    site.signer.sign(site.folder / "linux-9.1.4.tar", site.signer.key, again)
    assert "not one good signature in linux-9.1.4.tar.sign" in site.refused()


def test_an_old_release_under_a_new_name_is_refused(site: Site) -> None:
    site.release(5, stated=3)
    site.profile = replace(site.profile, version="9.1.5")
    assert "signed, but it is 9.1.3, not 9.1.5" in site.refused()


def test_a_key_that_expired_is_good_for_what_it_signed_before(site: Site) -> None:
    tar = site.folder / "linux-9.1.4.tar"
    site.signer.sign(tar, site.signer.old, when="20200601T000000")
    source = site.open()
    source.fetch(Quiet())
    assert source.describe()["signed"] == "2020-06-01"


def test_but_not_for_what_it_signed_later(site: Site, keys: Path) -> None:
    # gpg signs with no key that has expired: this one has its date set after it signed.
    key = site.signer.make("spent", "20200101T000000", "never")
    site.signer.sign(site.folder / "linux-9.1.4.tar", key, when="20220601T000000")
    site.signer.gpg("--quick-set-expire", key, "6m", when="20200601T000000")
    site.signer.publish(keys, key)
    assert f"signed by {key} after that key had expired" in site.refused()


def test_the_newest_of_the_series_stands_in_for_what_is_gone(site: Site) -> None:
    site.release(12)
    site.release(9)
    names = ["9.1.12", "9.1.9", "9.1", "9.10.40", "9.2.1"]
    listing = "".join(f"{'0' * 64}  linux-{name}.tar.xz\n" for name in names)
    (site.folder / "sha256sums.asc").write_text(listing)
    (site.folder / "linux-9.1.4.tar.xz").unlink()
    source = site.open()
    assert source.version == "9.1.12"
    assert "gone: taking 9.1.12, the newest of the same series" in site.told[0]
    source.fetch(Quiet())
    assert source.describe()["version"] == "9.1.12"
    shutil.rmtree(site.folder)
    assert site.open().identity == source.identity


def test_a_series_that_is_gone_is_one_line(site: Site) -> None:
    (site.folder / "sha256sums.asc").write_text(f"{'0' * 64}  linux-9.2.1.tar.xz\n")
    (site.folder / "linux-9.1.4.tar.xz").unlink()
    with pytest.raises(UserError, match=r"all of series 9\.1: change kernel\.version"):
        site.open()


def test_a_server_that_is_away_is_no_reason_to_take_another(site: Site) -> None:
    site.profile = replace(
        site.profile, tarball="http://127.0.0.1:9/v{major}.x/linux-{version}.tar.xz"
    )
    assert site.open().version == "9.1.4"
    assert "--kernel-tarball FILE with its .sign beside it" in site.refused()


@pytest.mark.parametrize("ending", [".tar.xz", ".tar.gz", ".tar"])
def test_a_file_is_believed_for_the_signature_beside_it(site: Site, ending: str) -> None:
    tar = site.folder / "linux-9.1.4.tar"
    run(["gzip", "--keep", tar])
    options = KernelOptions(tarball=site.folder / f"linux-9.1.4{ending}")
    source = site.open(options)
    source.fetch(Quiet())
    assert source.describe()["signed_by"] == site.signer.key
    site.signer.sign(tar, site.signer.key, when="20300101T000000")
    assert site.open(options).identity != source.identity


def test_a_pinned_hash_wins(site: Site) -> None:
    site.profile = replace(site.profile, tarball_sha256="0" * 64)
    assert "sha256 is" in site.refused()


def test_the_projects_own_keys_are_what_their_names_say(tmp_path: Path) -> None:
    keys = gpg_signature.load()
    (tmp_path / "ring").write_bytes(keys.ring)
    listed = run(["gpg", "--homedir", tmp_path, "--with-colons", "--show-keys", tmp_path / "ring"])
    primary = [
        after.split(":")[9]
        for line, after in zip(*[listed.stdout.splitlines()[at:] for at in (0, 1)], strict=False)
        if line.startswith("pub:")
    ]
    assert sorted(primary) == list(keys.fingerprints)
    assert "647F28654894E3BD457199BE38DBBDC86092693E" in keys.fingerprints


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("greg.asc", "", "name it by the fingerprint"),
        (f"{'A' * 40}.asc", "no key", "not an armored OpenPGP key"),
        (
            f"{'A' * 40}.asc",
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ?\n-----END PGP PUBLIC KEY BLOCK-----\n",
            "not an armored OpenPGP key",
        ),
        ("README.md", "", "nobody's signature can be believed"),
    ],
)
def test_a_damaged_list_of_keys_is_one_line(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=told):
        gpg_signature.load(tmp_path)
