"""Compile a C++ file once, keep the library in a cache, load it with ctypes.

The cache is `$SPIKELOOM_CACHE` (or `~/.cache/spikeloom`) `/native/<hash>/`, with the hash taken
over sources, compiler flags and the processor, so that a changed file or machine compiles anew. No
headers of Python or torch are needed: any `g++` or `clang++` of the last years does (`$CXX` names
another).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# No trapping mathematics and no errno: both forbid vector code, neither changes a result.
FLAGS = (
    "-O3",
    "-march=native",
    "-std=c++17",
    "-fno-trapping-math",
    "-fno-math-errno",
    "-Wno-psabi",
    "-shared",
    "-fPIC",
)
_HEADERS = Path(__file__).parent


@functools.cache
def load(source: Path) -> ctypes.CDLL | None:
    """The library of a C++ source, or None (and one line on stderr) where it cannot be built."""
    try:
        return ctypes.CDLL(str(compiled(source)))
    except (OSError, subprocess.CalledProcessError) as error:
        _say_once(_reason(error))
        return None


def compiled(source: Path) -> Path:
    """Path of the shared library of `source`, compiling it if the cache does not hold it.

    Raises:
        OSError: no compiler, or the cache cannot be written.
        subprocess.CalledProcessError: the compiler refused.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    library = cache_directory() / _fingerprint(source, compiler or "") / f"{source.stem}.so"
    if library.exists():
        return library
    if compiler is None:
        raise FileNotFoundError("no C++ compiler (g++ or clang++) was found")
    library.parent.mkdir(parents=True, exist_ok=True)
    # Two processes may compile at once: each into its own file, and the last rename wins.
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        output = Path(scratch) / library.name
        command = [*shlex.split(compiler), *FLAGS, f"-I{_HEADERS}", str(source), "-o", str(output)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        os.replace(output, library)
    return library


def cache_directory() -> Path:
    """Where libraries are kept."""
    root = os.environ.get("SPIKELOOM_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "spikeloom") / "native"


def _fingerprint(source: Path, compiler: str) -> str:
    digest = hashlib.sha256(f"{compiler} {FLAGS} {_processor()}".encode())
    for file in [source, *sorted(_HEADERS.glob("*.hpp"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """What `-march=native` depends on: a home directory may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"


def _reason(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.stderr).splitlines() if "error" in line]
        return lines[0] if lines else f"the compiler ended with {error.returncode}"
    return str(error)


@functools.cache
def _say_once(reason: str) -> None:
    print(f"spikeloom: event-driven products run in torch, not in C++: {reason}", file=sys.stderr)
