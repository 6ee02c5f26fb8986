"""Files that survive a crash: written beside, made durable, then put in place in one step.

In a bucket an object appears whole or not at all, and what the server has said yes to is durable:
there the same verbs put whole objects, and only a copy has several steps.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from storage.places import buckets
from storage.places.places import BucketPath, Place, below

_BLOCK = 1 << 20
# What the errors say of a disk that cannot do something at all, not of one that failed to do it.
LACKING = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EPERM, errno.ENOLCK)
UNLINKED = (errno.EXDEV, errno.EMLINK)  # links within one directory only, or not so many
DISK_THREADS = 8


def sha256_of(path: Place) -> str:
    digest = hashlib.sha256()
    if isinstance(path, BucketPath):
        digest.update(path.read_bytes())
        return digest.hexdigest()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def make_durable(path: Place) -> None:
    """Wait until a file, or the entries of a directory, are on disk.

    Some disks (SMB, FUSE) cannot be asked to keep a directory; they keep it as well as they do.
    """
    if isinstance(path, BucketPath):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in LACKING or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def make_entries_durable(directory: Place, names: Iterable[str]) -> None:
    """Wait until the names of these files are on disk, and of all directories that lead to them.

    A directory is asked for whoever made it: a process that died may not have come to that.

    Args:
        names: Paths below `directory`.
    """
    if isinstance(directory, BucketPath):
        return
    inside = {directory / parent for name in names for parent in PurePosixPath(name).parents}
    make_files_durable(sorted(inside))
    for above in directory.absolute().parents:
        with suppress(PermissionError):  # what we may not even list is not of our making
            make_durable(above)
        if above.is_mount():
            break


def make_files_durable(paths: Iterable[Place]) -> None:
    """Wait for many files side by side: a disk makes one write of what is asked at once."""
    with ThreadPoolExecutor(DISK_THREADS) as pool:
        list(pool.map(make_durable, paths))


def make_tree_durable(directory: Path) -> None:
    """Wait until everything below a directory, and the directory itself, is on disk."""
    for path in (directory, *directory.rglob("*")):
        make_durable(path)


def make_directory(path: Place) -> None:
    """Make a directory and those above it, where directories exist."""
    if not isinstance(path, BucketPath):
        path.mkdir(parents=True, exist_ok=True)


def write_file(path: Place, content: bytes) -> None:
    """Replace a file: after a crash it has its old content, or the new one, never a part."""
    if isinstance(path, BucketPath):
        buckets.put(path.bucket, path.key, content)
        return
    beside = beside_of(path)
    _write_durably(beside, content)
    os.replace(beside, path)
    make_durable(path.parent)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that nobody looks for yet, without waiting for the disk."""
    path.write_bytes(content)


def write_file_once(path: Place, content: bytes, beside: Place) -> None:
    """Put a file where there is none.

    Args:
        beside: A name on the same disk, which that resembles under which it is written first; a
            crash may leave it there.
    Raises:
        FileExistsError: If there is one, whatever its content; it is left untouched.
        OutcomeUnknown: If a bucket's answer is lost, and the object cannot be read back.
    """
    if isinstance(path, BucketPath):
        buckets.put_once(path.bucket, path.key, content)
        return
    assert isinstance(beside, Path)
    one = beside_of(beside)
    _write_durably(one, content)
    try:
        _name_once(one, path)
    finally:
        one.unlink(missing_ok=True)
    make_durable(path.parent)


def _name_once(source: Path, target: Path) -> None:
    """Give a file a name that nothing has: by a link, else by a renaming that replaces nothing.

    Where a disk has neither, who looks first and then renames may replace what another process
    put there in between; that is the same artifact, and whole.
    """
    try:
        os.link(source, target)
        return
    except OSError as error:
        if error.errno not in (*LACKING, *UNLINKED):
            raise
    renaming = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renaming is not None:
        here, names = -100, (os.fsencode(source), os.fsencode(target))  # AT_FDCWD
        if renaming(here, names[0], here, names[1], 1) == 0:  # RENAME_NOREPLACE
            return
        number = ctypes.get_errno()
        if number not in LACKING:
            raise OSError(number, os.strerror(number), str(source), None, str(target))
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.replace(source, target)


def write_together(files: Mapping[Place, Iterable[Any]], beside: Place) -> list[tuple[int, str]]:
    """Write files whole and durably, or replace them by new ones; their sizes and sha256, in order.

    Args:
        files: Content by place, bytes or arrays of bytes, which is asked for when it is written.
        beside: A name on the same disk, which those that are written first resemble.
    """
    moves: dict[Path, Path] = {}
    written, waiting = [], []
    try:
        # While one file waits for the disk, or for the bucket's server, the next one is made.
        with ThreadPoolExecutor(DISK_THREADS) as pool:
            for place, parts in files.items():
                if isinstance(place, BucketPath):
                    content = b"".join(parts)
                    waiting.append(pool.submit(buckets.put, place.bucket, place.key, content))
                    written.append((len(content), hashlib.sha256(content).hexdigest()))
                else:
                    assert isinstance(beside, Path)
                    one = beside_of(beside)
                    moves[one] = place
                    written.append(_write_hashed(one, parts))
                    waiting.append(pool.submit(make_durable, one))
        for each in waiting:
            each.result()
        if moves:
            move_all_into_place(moves)
    finally:
        for one in moves:
            one.unlink(missing_ok=True)
    return written


def write_directory(path: Place, files: Mapping[str, bytes]) -> None:
    """Write a directory of files that is whole or absent.

    In a bucket the last file is put last and removed first: where it is, all are.

    Raises:
        OSError: If a directory is there that is not empty; a bucket's objects are replaced.
    """
    if isinstance(path, BucketPath):
        *_, last = files
        buckets.delete(path.bucket, [(path / last).key])
        for name, content in files.items():
            write_file(path / name, content)
        return
    staging = beside_of(path)
    staging.mkdir(parents=True)
    for name, content in files.items():
        write_new(staging / name, content)
    make_tree_durable(staging)
    try:
        os.rename(staging, path)
    except OSError:
        shutil.rmtree(staging)
        raise
    finally:
        make_durable(path.parent)


def write_directory_once(path: Place, files: Mapping[str, bytes]) -> None:
    """Write a directory of files where there is none that has the last of them.

    In a bucket, where directories do not exist, the last file is put last and once; what of others
    is there is replaced.

    Raises:
        FileExistsError: If one is there; on a disk it is left as it is.
    """
    *others, last = files
    if isinstance(path, BucketPath):
        for name in others:
            write_file(path / name, files[name])
        write_file_once(path / last, files[last], path / last)
        return
    if path.is_dir() and not (path / last).exists():
        shutil.rmtree(path)  # of a process that did not come to its end
    try:
        write_directory(path, files)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(f"{path} exists") from error
        raise


def remove(path: Place) -> None:
    """Remove a file, or a directory with all that is in it."""
    if isinstance(path, BucketPath):
        below = sorted(buckets.sizes(path.bucket, path.key), reverse=True)
        buckets.delete(path.bucket, [path.key, *below])
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def copy_into_place(source: Place, target: Place, beside: Place) -> None:
    """Give a file a second place, without copying its bytes where that can be."""
    if isinstance(source, BucketPath) and isinstance(target, BucketPath):
        assert source.bucket == target.bucket
        buckets.copy(source.bucket, source.key, target.key)
        return
    assert isinstance(source, Path) and isinstance(target, Path) and isinstance(beside, Path)
    one = beside_of(beside)
    try:
        os.link(source, one)
    except OSError:
        shutil.copyfile(source, one)
        make_durable(one)
    move_into_place(one, target)


def _write_hashed(path: Path, parts: Iterable[Any]) -> tuple[int, str]:
    """Write a file in one go, not yet durably; its size and sha256."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as stream:
        for part in parts:
            stream.write(part)
            digest.update(part)
            size += len(part)
    return size, digest.hexdigest()


def move_into_place(source: Path, target: Path) -> None:
    """Make a file durable, then move it to its place, making directories on the way."""
    make_durable(source)
    move_all_into_place({source: target})


def move_all_into_place(moves: Mapping[Path, Path]) -> None:
    """Move files that are durable to their places, and wait until they are there for good."""
    changed = set()
    for source, target in moves.items():
        made = [parent for parent in target.parents if not parent.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
        changed |= {target.parent, *(parent.parent for parent in made)}
    make_files_durable(changed)


def inventory(directory: Place, paths: Iterable[Place]) -> Iterator[dict[str, Any]]:
    """Path below `directory`, size and sha256 of each file, by path."""
    for path in sorted(paths, key=str):
        name = below(directory, path)
        if isinstance(path, BucketPath):
            content = path.read_bytes()
            size, digest = len(content), hashlib.sha256(content).hexdigest()
        else:
            size, digest = path.stat().st_size, sha256_of(path)
        yield {"path": name, "size": size, "sha256": digest}


def beside_of(path: Path) -> Path:
    """A name in the same directory that nobody else uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
