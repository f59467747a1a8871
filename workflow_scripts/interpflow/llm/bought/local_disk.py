"""Whether a path lies on a disk of this machine, as a store that several jobs write to must."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from interpflow.errors import UserError

MOUNTS = Path("/proc/self/mounts")
# Locks or shared memory do not reach across the machines that share these.
NETWORK_KINDS = frozenset(
    {
        "9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs",
        "gpfs", "lustre", "moosefs", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "panfs",
        "pvfs2", "quobyte", "smb", "smb2", "smb3", "smbfs", "webdav", "wekafs",
    }
)  # fmt: skip
# Any other file system in user space is somebody's bridge to elsewhere.
LOCAL_IN_USER_SPACE = frozenset(
    {"fuseblk", "fuse.ntfs-3g", "fuse.fuse-overlayfs", "fuse.bindfs", "fuse.mergerfs"}
)


@dataclass(frozen=True)
class Mount:
    point: Path
    kind: str


def network_kind(path: Path, mounts: list[Mount] | None = None) -> str | None:
    """The kind of the network file system that `path` (existing or not) lies on; null: a local one.

    `mounts` is this machine's mount table if not given. A machine without one counts as local.
    """
    mounts = mount_table() if mounts is None else mounts
    resolved = path.resolve()
    holding = [mount for mount in mounts if resolved.is_relative_to(mount.point)]
    if not holding:
        return None
    # Of two mounts on one point the later hides the earlier.
    longest = max(len(mount.point.parts) for mount in holding)
    kind = [mount.kind for mount in holding if len(mount.point.parts) == longest][-1]
    in_user_space = kind.startswith("fuse") and kind not in LOCAL_IN_USER_SPACE
    return kind if kind in NETWORK_KINDS or in_user_space else None


def require_local(path: Path, mounts: list[Mount] | None = None) -> None:
    """Raise UserError where `path` lies on a network file system."""
    if kind := network_kind(path, mounts):
        raise UserError(
            f"the store of bought answers lies on a network file system ({kind}), where parallel "
            "jobs could pay twice or spoil it",
            where=f"llm.store: {path}",
            remedy="name a path on a local disk of the machine that calls the services; the rules "
            "that call them all run there",
        )


def mount_table() -> list[Mount]:
    """The mounts of this machine (Linux, macOS), in the order in which they were made."""
    if MOUNTS.exists():
        rows = (line.split() for line in MOUNTS.read_text(errors="replace").splitlines())
        return [Mount(Path(_unescaped(row[1])), row[2]) for row in rows if len(row) > 2]
    try:
        listed = subprocess.run(["mount"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    found = re.findall(r"^.* on (/.*) \((\w+)[,)]", listed, flags=re.MULTILINE)
    return [Mount(Path(point), kind) for point, kind in found]


def _unescaped(field: str) -> str:
    """Blanks and backslashes of a mount point are octal in the kernel's table."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
