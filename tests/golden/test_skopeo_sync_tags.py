"""Which tags an expression chooses: skopeo chooses the same. (It knows ranges of versions only from 1.14 on.)"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from fastoci.lists.parsing import parse_list
from fastoci.lists.tag_rules import chosen
from fastoci.testing.registry import Registry, serve
from support.images import image_of, made

TAGS = """
    latest edge Edge 1 1.2 1.2.3 v1.2.3 V2 1.10.0 0.0.3 1.2.3-rc1 2.0.0_beta 1.13.1-alpine-perl 1.13.3-alpine-perl a aa
    b_a b-a
"""
EXPRESSIONS = r"""
    ^1\.13\.[12]-alpine-perl$ 1 ^v (?i)^V (?i:e)d [[:alpha:]] ^[[:^digit:]]+$ \bperl$ \Ba$ ^(?:\d+\.){2}\d+$ ^.{1,3}$
    ^[^0-9]+$ \Q1.2\E a{2}|^2 x* ^(a|aa)+$ ^[\w.]+\z ^[a-]+$ ^[]a]+$ \x61\x{61} 1(?P<rest>\.\d+)*$ a{,2} ^[^\W\d]+$ .*
    ^$|^b ^(?i)(?:E|x)(?-i:d)
"""


def test_skopeo_chooses_the_same_tags(peer: Callable[[str], str], tmp_path: Path) -> None:
    image = image_of(made(1, files=1, size=10))
    file = tmp_path / "sync.yaml"
    with serve(Registry()) as registry:
        for number in range(len(EXPRESSIONS.split())):
            for tag in TAGS.split():
                registry.add_image(f"r{number}", tag, image)
        rules = "".join(f"    r{number}: '{each}'\n" for number, each in enumerate(EXPRESSIONS.split()))
        file.write_text(f"{registry.address}:\n  tls-verify: false\n  images-by-tag-regex:\n{rules}")
        command = [peer("skopeo"), "sync", "--src", "yaml", "--dest", "dir", "--dry-run", "--keep-going"]
        done = subprocess.run([*command, str(file), str(tmp_path)], capture_output=True, text=True, check=True)
    theirs: defaultdict[str, set[str]] = defaultdict(set)
    for name, tag in re.findall(r'Would have copied image.*?from="docker://[^/]+/(r[0-9]+):([^"]+)', done.stderr):
        theirs[name].add(tag)
    found = parse_list(file.read_bytes(), "sync.yaml")
    assert found.problems == ()
    assert len(found.queries) == len(EXPRESSIONS.split())
    ours = {query.repository.rpartition("/")[2]: set(chosen(query, TAGS.split())) for query in found.queries}
    assert {name: tags for name, tags in ours.items() if tags} == dict(theirs)
