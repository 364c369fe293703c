"""Images of this machine's own programs, each with the libraries that it needs: they run without anything else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fastoci.image.descriptor import Descriptor, encode
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, directory, from_directory, symlink

USERS = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"
GROUPS = b"root:x:0:\napps:x:1001:\nmore:x:20:app\n"


def image_with(layers: Sequence[Layer], config: Mapping[str, object]) -> Image:
    """An image of these layers that says this of its containers."""
    plain = Image.build(layers)
    changed = json.dumps({**json.loads(plain.config), "config": config}).encode()
    manifest = json.loads(plain.manifest)
    manifest["config"] = encode(Descriptor.of(changed, plain.config_type))
    return replace(plain, config=changed, manifest=json.dumps(manifest).encode())


def program(name: str, at: str) -> Iterator[Entry]:
    """A program at a path of the image, and its libraries where they are on this machine."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    real = Path(found).resolve()
    yield Entry(at, data=real, mode=0o755)
    said = subprocess.run(["ldd", str(real)], capture_output=True, text=True, check=False).stdout
    for library in re.findall(r"/\S+(?= \()", said):
        yield Entry(library.lstrip("/"), data=Path(library).resolve(), mode=0o755)


def shell_layer(*programs: str) -> Layer:
    """``/bin/sh``, some programs, and users: root, and ``app`` with uid 1000."""
    entries = [Entry("etc/passwd", data=USERS), Entry("etc/group", data=GROUPS), directory("tmp", mode=0o1777)]
    entries += program("dash", "bin/sh")
    for name in programs:
        entries += program(name, f"bin/{name}")
    return Layer.build(list({entry.path: entry for entry in entries}.values()), "none")


def shell_image(config: Mapping[str, object], *programs: str, layers: tuple[Layer, ...] = ()) -> Image:
    """An image of ``/bin/sh`` with this ``config``, and more layers above."""
    return image_with([shell_layer(*programs), *layers], config)


def python_image(config: Mapping[str, object]) -> Image:
    """An image of this Python with as much of its library as starts it, and json."""
    library = Path(sysconfig.get_paths()["stdlib"])
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    skip = {"__pycache__"}
    entries = list(program(str(Path(sys.executable).resolve()), f"usr/bin/{version}"))
    entries.append(symlink("usr/bin/python3", version))
    for name in ("encodings", "json", "re", "collections"):
        entries += from_directory(library / name, at=f"usr/lib/{version}/{name}", skip=skip)
    for path in sorted(library.glob("*.py")):
        entries.append(Entry(f"usr/lib/{version}/{path.name}", data=path))
    entries = [replace(each, data=each.data.read_bytes()) if isinstance(each.data, Path) else each for each in entries]
    return image_with([Layer.build(list({entry.path: entry for entry in entries}.values()), "none")], config)
