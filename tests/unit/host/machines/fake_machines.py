# SPDX-License-Identifier: GPL-2.0-only
"""A machine whose "ssh" runs the command here, and a project whose suite is a shell script."""

import gzip
import io
import os
import tarfile
from pathlib import Path

from fixtures.host.machines.project_bundle import Bundle
from fixtures.host.machines.ssh_machine import SshMachine

FAKE_SSH = """#!/bin/sh
# Takes ssh's arguments; the last one is the command.
for command; do :; done
echo $$ >"$FAKE_SSH_PID"
exec sh -c "$command"
"""

SUITE = """#!/bin/sh
# Writes a report like the suite: arguments, tests, environment.
mkdir -p build/job-report/artefacts
echo "$@" >build/job-report/arguments
pwd >build/job-report/folder
test ! -e build/tests.txt || cp build/tests.txt build/job-report/tests
{commands}
"""


def bundle_of(commands: str) -> Bundle:
    """Return a project whose suite runs shell commands."""
    data = SUITE.replace("{commands}", commands).encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo("suite")
        info.size, info.mode = len(data), 0o755
        tar.addfile(info, io.BytesIO(data))
    return Bundle(gzip.compress(archive.getvalue()), "0123abc")


def make_machine(folder: Path, commands: str, name: str = "worker") -> SshMachine:
    """Return a machine; its jobs have their folders in ``work``, its pid is in ``pid``.

    Args:
        folder: a temporary folder.
        commands: shell commands of the suite.
        name: the machine's name.
    """
    ssh = folder / "ssh"
    if not ssh.exists():
        ssh.write_text(FAKE_SSH)
        ssh.chmod(0o755)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    command = ("env", f"FAKE_SSH_PID={folder / 'pid'}", str(ssh))
    return SshMachine(name, bundle_of(commands), command, str(work), ("./suite",))


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
