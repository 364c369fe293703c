"""The native extensions; everything else is in pyproject.toml."""

from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

CSRC = "src/fastoci/csrc"


def extension(name: str, *subjects: str) -> Extension:
    """An extension and the folders of csrc that it is made of."""
    return Extension(
        f"fastoci.{name}",
        sources=[
            f"src/fastoci/{name}.pyx",
            *(path for folder in subjects for path in sorted(glob(f"{CSRC}/{folder}/*.c"))),
        ],
        include_dirs=[CSRC],
        depends=sorted(glob(f"{CSRC}/*/*.h")),
        extra_compile_args=["-std=gnu11", "-fvisibility=hidden"],
        libraries=["dl"],
    )


setup(
    ext_modules=cythonize(
        [
            extension("_core", "io", "sha256", "verity"),
            extension("_inflate", "inflate"),
            extension("_extract", "io", "tar", "layer", "extract", "tarsplit"),
            extension("_erofs", "io", "tar", "layer", "erofs"),
            extension("_mount", "mount"),
        ],
        include_path=["src"],
    )
)
