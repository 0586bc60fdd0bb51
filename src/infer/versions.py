"""Versions of the libraries that this process runs with, found without importing or loading more than it must."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from pathlib import Path

# Protections of libnghttp2 by the function that came with them: distributions carry some back to older versions.
_PROTECTIONS = {"nghttp2_option_set_stream_reset_rate_limit": "limit on stream resets",
                "nghttp2_option_set_max_continuations": "limit on CONTINUATION frames"}

NOT_BUILT = "this package was built without libnghttp2"
TO_BUILD = "install libnghttp2-dev (1.52 or newer) and pkg-config, then build the package again"


class _Info(ctypes.Structure):
    """The first fields of nghttp2_info."""

    _fields_ = [("age", ctypes.c_int), ("version_num", ctypes.c_int), ("version_str", ctypes.c_char_p)]


def _nghttp2() -> ctypes.CDLL | None:
    """The library that the core is linked with, which a wheel may bring under a name of its own."""
    import infer._core.http2_client  # noqa: F401 (loads the library)

    loaded = re.search(r"(/\S*libnghttp2\S*\.so\S*)", Path("/proc/self/maps").read_text())
    return ctypes.CDLL(loaded[1]) if loaded else None


def native_is_built() -> bool:
    """Whether the native transport and the load generator are part of this package."""
    return importlib.util.find_spec("infer._core.http2_client") is not None


def nghttp2_version() -> str:
    """As the library itself says, "unknown", or "none" in a package without it."""
    if not native_is_built():
        return "none"
    library = _nghttp2()
    if library is None:
        return "unknown"
    library.nghttp2_version.restype = ctypes.POINTER(_Info)
    version: bytes = library.nghttp2_version(0).contents.version_str
    return version.decode()


def missing_protections() -> list[str]:
    """What the loaded libnghttp2 does not do by itself."""
    library = _nghttp2() if native_is_built() else None
    return [text for function, text in _PROTECTIONS.items() if library is not None and not hasattr(library, function)]


def onnxruntime_libraries() -> list[Path]:
    """Every libonnxruntime that the installed package carries; the package itself is not imported."""
    spec = importlib.util.find_spec("onnxruntime")
    places = spec.submodule_search_locations if spec else None
    return sorted(file for place in places or () for file in Path(place, "capi").glob("libonnxruntime.so.*"))


def onnxruntime_version() -> str:
    """From the library's file name; the way to find it or what is wrong where it is not exactly one."""
    libraries = onnxruntime_libraries()
    if not libraries:
        return "not installed"
    return ", ".join(file.name.removeprefix("libonnxruntime.so.") for file in libraries)
