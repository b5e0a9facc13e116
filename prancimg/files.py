"""Files as a command handles them: ``-`` for pipes, and outputs that are there in full or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from prancimg.bitstream import MAX_FILE, SIGNATURE
from prancimg.errors import PrancImgError

DataLike = bytes | bytearray | memoryview | str | os.PathLike[str]
PIPE = "-"


def read(name: str) -> bytes:
    """A file, or standard input."""
    return sys.stdin.buffer.read() if name == PIPE else Path(name).read_bytes()


def read_prc(name: str | os.PathLike[str], signature: bytes = SIGNATURE) -> bytes:
    """What there is of a file of a signature, or of standard input: of anything else not much, and not for long."""
    if name == PIPE:
        return _beginning(sys.stdin.buffer, signature)
    with Path(name).open("rb") as file:
        return _beginning(file, signature)


def read_bytes(source: DataLike) -> bytes:
    """The bytes of a .prc file (bytes, or a path)."""
    return read_prc(source) if isinstance(source, str | os.PathLike) else bytes(source)


def _beginning(file: BinaryIO, signature: bytes = SIGNATURE) -> bytes:
    start = file.read(len(signature))
    return start + file.read(MAX_FILE + 1 - len(start)) if start == signature else start


def write(name: str, data: bytes) -> None:
    """Write all of a file or nothing: a new file that takes its place at the end."""
    if name == PIPE:
        if sys.stdout.isatty():
            raise PrancImgError("will not write binary data to a terminal; name a file or use a pipe")
        sys.stdout.buffer.write(data)
        return
    path = Path(os.path.realpath(name))  # a link stays a link
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        path.write_bytes(data)  # a device or a named pipe cannot be replaced
        return
    try:
        umask = os.umask(0)
        os.umask(umask)
        _replace(path, data, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Put a whole new file in the place of ``path``. Until it is whole it has no name, where the system can do that,
    so that not even a process that is killed leaves anything behind."""
    temporary = str(path.with_name(f".{path.name}.{os.urandom(8).hex()}"))
    handle = None
    if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir():
        with contextlib.suppress(OSError):  # not on every file system
            handle = os.open(path.parent, os.O_WRONLY | os.O_TMPFILE, 0o600)
    nameless = handle is not None
    if handle is None:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
            os.chmod(handle if nameless else temporary, mode)
            if nameless:
                os.link(f"/proc/self/fd/{handle}", temporary, src_dir_fd=handle)  # only then it follows the link
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def check_writable(name: str, source: str = PIPE) -> None:
    """Fail before the work, not after it; also if the output would take the place of ``source``."""
    path = Path(os.path.realpath(name))
    if name == PIPE or (path.exists() and not stat.S_ISREG(path.stat().st_mode)):
        return
    if not os.access(path.parent, os.W_OK):
        number = errno.EACCES if path.parent.is_dir() else errno.ENOENT
        raise OSError(number, os.strerror(number), str(path.parent))
    if source != PIPE and path.exists() and path.samefile(source):
        raise PrancImgError(f"{name}: the output would take the place of the input")
