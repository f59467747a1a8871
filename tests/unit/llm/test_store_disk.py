"""Network file systems are told from local disks by the mount table."""

from pathlib import Path

import pytest

from interpflow.errors import UserError
from interpflow.llm.bought import local_disk, store_file
from interpflow.llm.bought.local_disk import Mount, mount_table, network_kind, require_local
from interpflow.llm.bought.store import open_store


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        ("ext4", False), ("xfs", False), ("tmpfs", False), ("overlay", False), ("apfs", False),
        ("fuseblk", False), ("nfs4", True), ("cifs", True), ("lustre", True), ("beegfs", True),
        ("gpfs", True), ("fuse.sshfs", True), ("9p", True), ("afs", True), ("fuse.s3fs", True),
    ],
)  # fmt: skip
def test_kinds(tmp_path, kind, network):
    mounts = [Mount(Path("/"), "ext4"), Mount(tmp_path.resolve(), kind)]
    assert network_kind(tmp_path / "not" / "yet", mounts) == (kind if network else None)


def test_the_innermost_and_latest_mount_counts(tmp_path):
    root = tmp_path.resolve()
    home = Mount(root / "home", "nfs")
    mounts = [Mount(Path("/"), "ext4"), home, Mount(root / "home" / "scratch", "xfs")]
    assert network_kind(root / "home" / "x", mounts) == "nfs"
    assert network_kind(root / "home" / "scratch" / "x", mounts) is None
    assert network_kind(root / "homework", mounts) is None
    assert network_kind(root / "home" / "x", [*mounts, Mount(home.point, "xfs")]) is None
    (root / "link").symlink_to(root / "home")
    assert network_kind(root / "link" / "x", mounts) == "nfs"


def test_the_kernels_table_is_read(tmp_path, monkeypatch):
    table = tmp_path / "mounts"
    table.write_text("a / ext4 rw 0 0\nb:/c /mnt/my\\040files nfs4 rw 0 0\n")
    monkeypatch.setattr(local_disk, "MOUNTS", table)
    assert mount_table() == [Mount(Path("/"), "ext4"), Mount(Path("/mnt/my files"), "nfs4")]


def test_a_store_on_a_network_disk_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    mounts = [Mount(tmp_path.resolve(), "nfs")]
    monkeypatch.setattr(store_file, "require_local", lambda path: require_local(path, mounts))
    with (
        pytest.raises(UserError, match=r"network file system \(nfs\)") as caught,
        open_store(tmp_path / "deep" / "answers.sqlite"),
    ):
        pass
    assert "llm.store" in caught.value.where
    assert not list(tmp_path.iterdir())
