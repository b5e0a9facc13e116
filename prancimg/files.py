"""Files as a command handles them: ``-`` for pipes, and outputs that are there in full or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
from pathlib import Path

from prancimg.errors import PrancImgError

PIPE = "-"


def read(name: str) -> bytes:
    """A file, or standard input."""
    return sys.stdin.buffer.read() if name == PIPE else Path(name).read_bytes()


def write(name: str, data: bytes) -> None:
    """Write all of a file or nothing: through a temporary neighbour that takes its place at the end."""
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
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def check_writable(name: str) -> None:
    """Fail before the work, not after it."""
    folder = Path(os.path.realpath(name)).parent
    if name != PIPE and not os.access(folder, os.W_OK):
        number = errno.EACCES if folder.is_dir() else errno.ENOENT
        raise OSError(number, os.strerror(number), str(folder))
