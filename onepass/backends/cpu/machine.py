"""From LLVM's representation to an address that can be called, through a cache of machine code on disk.

What is loaded from the cache needs neither Numba nor a compiler, so that a new process is ready in milliseconds.
"""

from __future__ import annotations

import hashlib
import re
import sys
import threading
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from onepass.backends.tables.cache import CannotCompile, cache_folder, keep

# Functions of the C library that a kernel may call; anything else that it leaves undefined keeps it out of the cache.
_LIBRARY = {f"{name}{suffix}" for name in ("sqrt", "pow", "exp", "log", "fmod") for suffix in ("", "f")}

_engines: list[Any] = []
_lock = threading.Lock()


@cache
def processor() -> tuple[str, str]:
    """The name and the features of this machine's processor, as LLVM calls them."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@cache
def _surroundings() -> str:
    """All that a kernel's machine code depends on besides its source; what the words mean stands in two files here."""
    words = b"".join(path.read_bytes() for path in (Path(__file__), Path(__file__).with_name("compile.py")))
    meaning = hashlib.sha256(words).hexdigest()
    return "|".join([meaning, version("numba"), version("llvmlite"), sys.platform, *processor()])


def load(source: str, real: str) -> int:
    """The address of a kernel of type ``void (int64)``, compiled now if no earlier process has.

    Args:
        source: what `emit` wrote.
        real: the type of its arithmetic.

    Raises:
        CannotCompile: it is not in the cache, and Numba does not work here.
    """
    key = hashlib.sha256(f"{_surroundings()}|{real}|{source}".encode()).hexdigest()[:32]
    path = cache_folder() / f"{key}.o"
    try:
        digest, machine_code = _split(path.read_bytes())
        if hashlib.sha256(machine_code).digest() == digest:
            with _lock:
                return _link(machine_code)
    except OSError:
        pass
    try:
        from onepass.backends.cpu.compile import compile_source
    except Exception as error:
        raise CannotCompile(f"Numba cannot be imported ({error}): pip install --force-reinstall numba") from error
    with _lock:
        text, symbol = compile_source(source, real)
        machine_code = _assemble(text, symbol)
        address = _link(machine_code)
    _keep(path, machine_code, source)
    return address


def _split(content: bytes) -> tuple[bytes, bytes]:
    """A cached file is the SHA-256 of the machine code, and the machine code: LLVM dies of what is damaged."""
    return content[:32], content[32:]


def _target_machine() -> Any:
    name, features = processor()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=name, features=features, opt=3, codemodel="jitdefault")


def _assemble(text: str, symbol: str) -> bytes:
    """Machine code in which the function is called ``kernel`` and nothing else can be seen."""
    undefined = set(re.findall(r'^declare [^@]*@"?([\w.$]+)"?\(', text, re.MULTILINE))
    foreign = {name for name in undefined if not name.startswith("llvm.")} - _LIBRARY
    if foreign:
        raise RuntimeError(f"the kernel calls {', '.join(sorted(foreign))}, which is no function of the C library")
    renamed = text.replace(f'@"{symbol}"', "@kernel").replace(f"@{symbol}(", "@kernel(")
    # The processor's estimate of 1 / sqrt(x), refined, is NaN where x is infinite and differs between processors.
    exact = re.sub(r"^(define .*)\{$", r'\1"reciprocal-estimates"="none" {', renamed, flags=re.MULTILINE)
    module = llvm.parse_assembly(exact)
    module.verify()
    return _target_machine().emit_object(module)


def _link(machine_code: bytes) -> int:
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    _engines.append(engine)  # The code lives as long as its engine.
    return engine.get_function_address("kernel")


def _keep(path: Path, machine_code: bytes, source: str) -> None:
    if keep(path.with_suffix(".py"), source.encode()):
        keep(path, hashlib.sha256(machine_code).digest() + machine_code)
