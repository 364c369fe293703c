"""The native extension; everything else is in pyproject.toml."""

from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

CSRC = "src/fastoci/csrc"

core = Extension(
    "fastoci._core",
    sources=["src/fastoci/_core.pyx", *sorted(set(glob(f"{CSRC}/*/*.c")) - set(glob(f"{CSRC}/tests/*.c")))],
    include_dirs=[CSRC],
    depends=sorted(glob(f"{CSRC}/*/*.h")),
    extra_compile_args=["-std=gnu11", "-fvisibility=hidden"],
    libraries=["dl"],
)

setup(ext_modules=cythonize([core]))
