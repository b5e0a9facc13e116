"""Files as a command handles them: ``-`` for pipes, and outputs that are there in full or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeGuard

from prancimg.errors import PrancImgError
from prancimg.format.bitstream import MAX_FILE, SIGNATURE

DataLike = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
PIPE, STANDARD_OUTPUT = "-", "standard output"


def read(name: str | os.PathLike[str]) -> bytes:
    """A file, or standard input, if it ends."""
    with _opened(name) as file:
        return read_all(file)


def read_all(file: BinaryIO) -> bytes:
    """What an open file holds, if that is no more than a gigabyte."""
    data = _at_most(file, MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise PrancImgError(f"the file is larger than {MAX_FILE} bytes")
    return data


def is_binary(source: object) -> TypeGuard[BinaryIO]:
    """Whether this is a file that gives bytes."""
    return hasattr(source, "read") and not isinstance(source, io.TextIOBase)


def _at_most(file: BinaryIO, size: int) -> bytes:
    """So many bytes, or all there are: a pipe without a buffer gives them bit by bit."""
    data = bytearray()
    try:
        while len(data) < size and (part := file.read(size - len(data))):
            data += part
    except (ValueError, TypeError) as error:  # closed, not open for reading, not of bytes
        raise PrancImgError(f"the open file cannot be read: {error}") from error
    return bytes(data)


def read_prc(name: str | os.PathLike[str], signature: bytes = SIGNATURE) -> bytes:
    """What there is of a file of a signature, or of standard input: of anything else not much, and not for long."""
    with _opened(name) as file:
        return _beginning(file, signature)


@contextlib.contextmanager
def _opened(name: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file, or standard input; what goes wrong with it has its name."""
    if name == PIPE and sys.stdin is None:
        raise closed("standard input")
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if name == PIPE else open(os.fsdecode(name), "rb") as file:  # noqa: PTH123
            yield file
    except PrancImgError:
        raise
    except ValueError as error:
        raise PrancImgError(f"{name!r} cannot be the name of a file: {error}") from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard input" if name == PIPE else os.fsdecode(name)) from error


@contextlib.contextmanager
def writing_to_standard_output() -> Iterator[None]:
    """Give errors its name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from error


def closed(stream: str) -> OSError:
    """What to say of a standard stream that the caller has closed."""
    return OSError(errno.EBADF, "it is closed", stream)


def read_bytes(source: DataLike) -> bytes:
    """The bytes of a .prc file (bytes, a path, an open file)."""
    if isinstance(source, str | os.PathLike):
        return read_prc(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if is_binary(source):
        return _beginning(source)
    raise PrancImgError(f"{type(source).__name__} is no .prc file, and no path or binary file of one")


def _beginning(file: BinaryIO, signature: bytes = SIGNATURE) -> bytes:
    start = _at_most(file, len(signature))
    return start + _at_most(file, MAX_FILE + 1 - len(start)) if start == signature else start


def write(name: str, data: bytes) -> None:
    """Write all of a file or nothing: a new file that takes its place at the end."""
    check_writable(name)
    if name == PIPE:
        with writing_to_standard_output():
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        return
    path = Path(os.path.realpath(name))  # a link stays a link
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)  # a device or a named pipe cannot be replaced
            return
        _replace(path, data, path.stat().st_mode & 0o777 if path.exists() else None)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error


def _replace(path: Path, data: bytes, mode: int | None) -> None:
    """Put a whole new file in the place of ``path``, with its mode if there is one. Until it is whole it has no name,
    where the system can do that, so that not even a process that is killed leaves anything behind."""
    first = 0o666 if mode is None else 0o600
    temporary = str(path.with_name(f".{path.name}.{os.urandom(8).hex()}"))
    handle = None
    if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir():
        with contextlib.suppress(OSError):  # not on every file system
            handle = os.open(path.parent, os.O_WRONLY | os.O_TMPFILE, first)
    nameless = handle is not None
    if handle is None:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), first)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
            if mode is not None:
                os.chmod(handle if nameless else temporary, mode)
            if nameless:
                os.link(f"/proc/self/fd/{handle}", temporary, src_dir_fd=handle)  # only then it follows the link
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def check_writable(name: str, *sources: str) -> None:
    """Fail before the work, not after it; also if the output would take the place of one of the ``sources``."""
    if name == PIPE:
        if sys.stdout is None:
            raise closed(STANDARD_OUTPUT)
        if sys.stdout.isatty():
            raise PrancImgError("will not write binary data to a terminal; name a file or use a pipe")
        return
    path = Path(os.path.realpath(name))
    if not name:  # which Path takes for the folder
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if path.exists() and not os.access(path, os.W_OK):  # it could be replaced, but somebody protected it
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), name)
    if path.exists() and not path.is_file():  # a device or a named pipe
        return
    if not os.access(path.parent, os.W_OK):
        number = errno.EACCES if path.parent.is_dir() else errno.ENOENT
        raise OSError(number, os.strerror(number), str(path.parent))
    check_no_source(name, *sources)


def check_no_source(name: str, *sources: str) -> None:
    """Refuse an output that would take the place of an input, or of another output."""
    for source in sources:
        if source == PIPE:
            continue
        there = Path(name).exists() and Path(source).exists() and Path(name).samefile(source)
        if there or os.path.realpath(name) == os.path.realpath(source):
            raise PrancImgError(f"{name}: the output would take the place of {source}")
