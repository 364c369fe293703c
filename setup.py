"""The native extension; everything else is in pyproject.toml."""

from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

core = Extension(
    "fastoci._core",
    sources=["src/fastoci/_core.pyx", *sorted(glob("src/fastoci/csrc/*.c"))],
    depends=sorted(glob("src/fastoci/csrc/*.h")),
    extra_compile_args=["-std=gnu11", "-fvisibility=hidden"],
    libraries=["dl"],
)

setup(ext_modules=cythonize([core]))
