# SPDX-License-Identifier: GPL-2.0-only
"""Signs tarballs with gpg, with keys that are created for the tests."""

from pathlib import Path

from fixtures.host.util.subprocess_util import run


class Signer:
    """A signer with three keys: an expired one, a valid one and an untrusted one."""

    def __init__(self, home: str) -> None:
        self._home = home
        self.old = self.make("old", "20200101T000000", "1y")
        self.key = self.make("new", None, "never")
        self.other = self.make("other", None, "never")

    def gpg(self, *argv: str | Path, when: str | None = None) -> str:
        """Run gpg with the signer's keyring; ``when`` fakes the system time."""
        clock = ["--faked-system-time", f"{when}!"] if when else []
        command = ["gpg", "--homedir", self._home, "--batch", "--quiet", *clock]
        return run([*command, "--pinentry-mode", "loopback", "--passphrase", "", *argv]).stdout

    def make(self, name: str, made: str | None, expires: str) -> str:
        """Create a key and return its fingerprint."""
        self.gpg("--quick-gen-key", f"{name}@example.org", "ed25519", "sign", expires, when=made)
        listed = self.gpg("--with-colons", "--list-keys", f"{name}@example.org")
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))

    def sign(self, file: Path, *keys: str, when: str | None = None) -> None:
        """Write a signature into the file's folder, as kernel.org does."""
        signature = file.with_name(f"{file.name}.sign")
        signature.unlink(missing_ok=True)
        users = [word for key in keys for word in ("--local-user", f"{key}!")]
        self.gpg("--armor", *users, "--output", signature, "--detach-sign", file, when=when)

    def publish(self, folder: Path, *keys: str) -> None:
        """Export keys into a folder of trusted keys."""
        for key in keys:
            (folder / f"{key}.asc").write_text(self.gpg("--armor", "--export", key))
