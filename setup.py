"""Build of the compiled core.

Every `src/infer/_core/*.pyx` becomes an extension of its own. `INFER_BUILD` chooses the kind of build:

release   (default) optimised; the extensions are put beside their sources by `build_ext --inplace`
debug     bounds checks on, INFER_DEBUG=1: live objects are counted and asserted
sanitize  as debug, with AddressSanitizer and UndefinedBehaviorSanitizer
fuzz      as sanitize, by clang and with what libFuzzer counts; for the driver in tests/fuzz

`INFER_EXT=a,b` builds only the named modules. Without libnghttp2, or with `INFER_WITHOUT_NGHTTP2=1`, the native
transport and the load generator are left out: such a package serves by grpcio. Generated C goes to `build/<kind>/c` and
is never committed.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
CORE = Path("src/infer/_core")
KIND = os.environ.get("INFER_BUILD", "release")
NGHTTP2_MINIMUM = (1, 52, 0)
ZLIB_MODULES = {"grpc_message"}
NGHTTP2_MODULES = {"http2_session", "http2_replies", "http2_events", "http2_streams", "http2_client"}
# Options that came after the minimum, and that distributions carry back: the header says, not the version.
NGHTTP2_OPTIONS = {"INFER_NGHTTP2_HAS_RESET_RATE": "nghttp2_option_set_stream_reset_rate_limit"}

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "nonecheck": False,
    "cdivision": True,
    "always_allow_keywords": True,
    "emit_code_comments": False,
}
CFLAGS = ["-O3", "-g1", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function", "-Wno-unused-variable",
          "-Wno-maybe-uninitialized"]
LDFLAGS: list[str] = []
MACROS: list[tuple[str, str | None]] = [("CYTHON_CLINE_IN_TRACEBACK", "0")]

if KIND in ("debug", "sanitize", "fuzz"):
    DIRECTIVES |= {"boundscheck": True, "initializedcheck": True, "nonecheck": True}
    MACROS += [("INFER_DEBUG", "1")]
    CFLAGS = ["-O1" if flag == "-O3" else flag for flag in CFLAGS]
if KIND == "sanitize":
    SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize=function,vptr,alignment", "-fno-omit-frame-pointer"]
    CFLAGS += [flag for flag in SANITIZERS if "function" not in flag] + ["-fno-sanitize=vptr,alignment"]
    LDFLAGS += ["-fsanitize=address,undefined"]
if KIND == "fuzz":
    # The driver holds the sanitizers' runtime and exports it: the extensions find it there when they are loaded.
    os.environ |= {"CC": "clang-14", "LDSHARED": "clang-14 -shared"}
    CFLAGS += ["-fsanitize=address,undefined", "-fno-sanitize=alignment", "-fno-sanitize-recover=all",
               "-fno-omit-frame-pointer", "-Wno-sign-compare", "-Wno-unknown-warning-option"]


def pkg_config(*arguments: str) -> str:
    """Answer of pkg-config about libnghttp2; raises OSError or CalledProcessError where it knows nothing of it."""
    return subprocess.run(["pkg-config", *arguments, "libnghttp2"], check=True, capture_output=True,
                          text=True).stdout.strip()


def missing_nghttp2() -> str:
    """Why the modules that need libnghttp2 cannot be built; empty where they can."""
    if os.environ.get("INFER_WITHOUT_NGHTTP2"):
        return "INFER_WITHOUT_NGHTTP2 is set"
    try:
        version = pkg_config("--modversion")
    except (OSError, subprocess.CalledProcessError):
        return "libnghttp2 and its headers were not found"
    if tuple(int(part) for part in version.split(".")) < NGHTTP2_MINIMUM:
        return f"libnghttp2 {version} is too old, 1.52.0 is needed"
    return ""


def users_of_nghttp2() -> set[str]:
    """Modules that need the library or its header, by what they cimport, themselves or through others."""
    imports = {}
    for module in {path.stem for path in CORE.glob("*.p[yx][xd]")}:
        text = "".join(path.read_text() for path in CORE.glob(f"{module}.p[yx][xd]"))
        imports[module] = set(re.findall(r"^\s*(?:from\s+)?c?import\s+infer\._core\.([\w.]+)|"
                                         r"^\s*from\s+infer\._core\.([\w.]+)\s+c?import", text, re.M))
    found = {"capi.nghttp2", "capi.nghttp2_client"}
    while True:
        more = {module for module, names in imports.items() if any({*pair} & found for pair in names)} - found
        if not more:
            return found
        found |= more


def zlib_settings() -> dict[str, list]:
    """Linker settings for the module that uses zlib; ends the build where its header is missing."""
    found = subprocess.run([os.environ.get("CC", "cc"), "-E", "-"], input="#include <zlib.h>\n", check=False,
                           capture_output=True, text=True)
    if found.returncode != 0:
        sys.exit("infer: zlib's header is needed to build; on Debian or Ubuntu run:\n"
                 "    apt-get install -y zlib1g-dev")
    return {"extra_link_args": ["-lz"]}


def nghttp2_settings() -> dict[str, list]:
    """Compiler and linker settings for the modules that use libnghttp2, with the options its version has."""
    flags = pkg_config("--cflags").split()
    header = subprocess.run([os.environ.get("CC", "cc"), "-E", *flags, "-"], input="#include <nghttp2/nghttp2.h>\n",
                            check=True, capture_output=True, text=True).stdout
    return {
        "extra_compile_args": flags,
        "extra_link_args": pkg_config("--libs").split(),
        "define_macros": [(name, "1") for name, function in NGHTTP2_OPTIONS.items() if function in header],
    }


def extensions() -> list[Extension]:
    """One Extension per module of the core, or those that INFER_EXT names."""
    from Cython.Build import cythonize

    chosen = {name for name in os.environ.get("INFER_EXT", "").split(",") if name}
    modules = []
    missing = missing_nghttp2()
    left_out = users_of_nghttp2() if missing else set()
    if missing:
        print(f"infer: {missing}: building without the native transport and the load generator; the server will use "
              "grpcio, which is much slower. On Debian or Ubuntu: apt-get install -y pkg-config libnghttp2-dev",
              file=sys.stderr)
    for source in sorted(CORE.glob("*.pyx")):
        if source.stem in left_out:
            continue
        if chosen and source.stem not in chosen:
            continue
        if source.stem.startswith("_testing") and "bdist_wheel" in sys.argv:
            continue
        extra = nghttp2_settings() if source.stem in NGHTTP2_MODULES else {}
        extra |= zlib_settings() if source.stem in ZLIB_MODULES else {}
        # What the tests' own modules do is no news to the fuzzer.
        counted = ["-fsanitize=fuzzer-no-link"] if KIND == "fuzz" and not source.stem.startswith("_testing") else []
        modules.append(Extension(
            f"infer._core.{source.stem}", [str(source)],
            extra_compile_args=CFLAGS + counted + extra.get("extra_compile_args", []),
            extra_link_args=LDFLAGS + extra.get("extra_link_args", []) + ["-lpthread"],
            define_macros=MACROS + extra.get("define_macros", []),
        ))
    return cythonize(modules, build_dir=f"build/{KIND}/c", include_path=["src"], compiler_directives=DIRECTIVES,
                     nthreads=0 if len(modules) < 2 else (os.cpu_count() or 1), quiet=True)


def build_descriptors(target: Path) -> None:
    """Compile protos/ into the descriptor set that the cold RPCs read at run time."""
    sources = sorted(str(path.relative_to("protos")) for path in Path("protos").rglob("*.proto"))
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-Iprotos", "--include_imports",
                    f"--descriptor_set_out={target}", *sources], check=True)


class BuildExt(build_ext):
    """Extensions, compiled side by side; and, in place, the descriptor set."""

    def build_extensions(self) -> None:
        self.parallel = self.parallel or os.cpu_count() or 1
        super().build_extensions()

    def run(self) -> None:
        super().run()
        if (self.inplace or self.editable_mode) and not os.environ.get("INFER_EXT"):
            build_descriptors(Path("src/infer/proto/descriptors.binpb"))


class BuildPy(build_py):
    """Python files, the descriptor set and the example models that `infer demo` serves."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            package = Path(self.build_lib) / "infer"
            build_descriptors(package / "proto" / "descriptors.binpb")
            if Path("examples/models").is_dir():
                shutil.copytree("examples/models", package / "examples" / "models", dirs_exist_ok=True)


os.chdir(ROOT)
setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt, "build_py": BuildPy})
