"""Builds the C++ kernel when it is first used, for the best instructions that the processor has."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import torch

from lightning_sparse_rnn.utilities.caching import cache_folder

__all__ = ["PATHS", "Kernel", "best_path", "kernel", "load_kernel"]

_AVX512 = (
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mpopcnt", "-mbmi2"),
    "-mprefer-vector-width=512",
)
#: The compiler's options for each set of instructions; the portable one is for tests, and slower than dense products.
PATHS = {
    "avx512_vbmi2": (*_AVX512, "-mavx512vbmi2"),
    "avx512": _AVX512,
    "avx2": ("-mavx2", "-mfma", "-mpopcnt", "-mbmi2"),
    "neon": (),
    "portable": ("-DPORTABLE",),
}
#: Names one of ``PATHS``, or ``none`` for dense products.
_CHOICE = "LIGHTNING_SPARSE_RNN_KERNEL"
_SOURCES = Path(__file__).parent / "kernel"
# Floating-point exceptions are trapped nowhere, and results are the same without them. A compiler that has to keep them
# turns loops with comparisons into vectors only where there are masked instructions.
_OPTIONS = ("-O2", "-std=c++17", "-fno-trapping-math", "-fPIC", "-shared", "-w")
_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


class Kernel:
    """The functions of one built library, which take addresses and sizes; ``packed.cpp`` says of what."""

    def __init__(self, path: str, library: Path) -> None:
        self.path = path
        # Python's lock is free while a function of the library runs.
        functions = ctypes.CDLL(str(library))
        self.linear = functions.packed_linear
        self.linear.argtypes = [*[_POINTER] * 7, _INT, *[_SIZE] * 3, _INT]
        self.linear.restype = None
        self.rows = functions.packed_rows
        self.rows.argtypes = [*[_POINTER] * 6, _INT, *[_SIZE] * 2, _INT]
        self.rows.restype = None
        self.recurrence = functions.packed_recurrence
        self.recurrence.argtypes = [*[_POINTER] * 9, *[_INT] * 3, *[_SIZE] * 3, _INT]
        self.recurrence.restype = None
        self.sequence = functions.packed_sequence
        self.sequence.argtypes = [*[_POINTER] * 13, *[_INT] * 3, *[_SIZE] * 4, _INT]
        self.sequence.restype = None
        self.pack = functions.pack_weight
        self.pack.argtypes = [_POINTER, _SIZE, _SIZE, _POINTER, _POINTER]
        self.pack.restype = None


@functools.cache
def kernel() -> Kernel | None:
    """Return the kernel for this processor, or ``None`` where there is none; then dense products are to be made.

    ``LIGHTNING_SPARSE_RNN_KERNEL`` chooses one of ``PATHS``, or ``none``. Without a choice it is the processor's best,
    and where that cannot be had, one warning says why.

    Raises:
        ValueError: the variable names no such path.
        RuntimeError: the path that it names cannot be built.
    """
    choice = os.environ.get(_CHOICE)
    if choice == "none":
        return None
    if choice:
        if choice not in PATHS:
            raise ValueError(f"Expected {_CHOICE} to be one of {', '.join(PATHS)} or none, got {choice!r}.")
        return load_kernel(choice)
    path = best_path()
    try:
        if path is None:
            raise RuntimeError(f"There is no kernel for this processor ({platform.machine()}).")
        return load_kernel(path)
    except RuntimeError as error:
        warnings.warn(f"Packed weights are made dense, and products are torch's: {error}", stacklevel=2)
        return None


def best_path() -> str | None:
    """Return the fastest of ``PATHS`` that this processor can run, or ``None``."""
    if os.name != "posix":
        return None
    if platform.machine().lower() in ("aarch64", "arm64"):
        return "neon"
    path = {"AVX512": "avx512", "AVX2": "avx2"}.get(torch.backends.cpu.get_cpu_capability())
    return "avx512_vbmi2" if path == "avx512" and "avx512_vbmi2" in _flags() else path


def _flags() -> list[str]:
    """What Linux says that the processor can do."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next((line.split() for line in lines if line.startswith("flags")), [])


def load_kernel(path: str) -> Kernel:
    """Return the kernel for one set of instructions, built if that was not done before.

    Built libraries stand in the user's cache folder, under a name that depends on the sources, the options and the
    compiler. The compiler is ``CXX``, or else ``c++``, ``g++`` or ``clang++``. A process tries once.

    Raises:
        RuntimeError: there is no compiler, it fails, or what it has made cannot be loaded.
    """
    loaded = _loaded(path)
    if isinstance(loaded, str):
        raise RuntimeError(loaded)
    return loaded


@functools.cache
def _loaded(path: str) -> Kernel | str:
    """The kernel, or why there is none: an exception would not be kept, and all be tried again at each call."""
    try:
        return Kernel(path, _built(path))
    except (RuntimeError, OSError) as error:
        return str(error)


def _built(path: str) -> Path:
    compiler = _compiler()
    sources = sorted(_SOURCES.iterdir())
    parts = [*compiler, *_OPTIONS, *PATHS[path], platform.machine(), *(source.read_text() for source in sources)]
    name = f"packed-{path}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.so"
    library = _library_folder() / name
    if not library.exists():
        _compile([*compiler, *_OPTIONS, *PATHS[path]], library)
    return library


def _compiler() -> list[str]:
    given = shlex.split(os.environ.get("CXX", ""))
    if given:
        return given
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if found is None:
        raise RuntimeError("There is no C++ compiler. Install one, such as g++, or name it in CXX.")
    return [found]


def _library_folder() -> Path:
    """A folder that can be written to: the cache, or one for this process alone."""
    folder = cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="lightning_sparse_rnn-"))


def _compile(command: list[str], library: Path) -> None:
    """Compile to ``library``, whole or not at all: several processes may do so at once."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        part = Path(folder) / library.name
        # Threads by OpenMP are torch's own threads, whose library is loaded before ours. Some compilers have none.
        for threads in (["-fopenmp"], []):
            try:
                made = subprocess.run(
                    [*command, *threads, str(_SOURCES / "packed.cpp"), "-o", str(part)],
                    capture_output=True,
                    text=True,
                    timeout=300,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise RuntimeError(f"The C++ compiler {command[0]} cannot be run: {error}") from error
            if made.returncode == 0:
                part.replace(library)
                return
    said = made.stderr.strip().splitlines()
    raise RuntimeError(f"The C++ compiler {command[0]} failed: {said[0] if said else f'status {made.returncode}'}")
