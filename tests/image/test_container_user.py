"""Who a container runs as, by the image's own files."""

from __future__ import annotations

import pytest

from fastoci.errors import UnsupportedError
from fastoci.image.container_user import ContainerUser, find_user

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
+nis
broken:x:1
odd:x:many:7::/odd:/bin/sh
app:x:1000:1001:The App:/home/app:/bin/sh
app:x:7:7:again:/:/bin/sh
12:x:50:50::/named:/bin/sh
home:x:60:60::relative:/bin/sh
bytes:x:70:70:\xff\xfe:/\xff:/bin/sh
windows:x:80:80::/w:/bin/sh\r
"""
GROUP = b"""root:x:0:
apps:x:1001:app
wheel:x:10:root,app
more:x:20:app
again:x:10:app
large:x:99999999999:app
staff:x:30:application
"""


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("", ContainerUser(0, 0, (), "/root")),
        ("0", ContainerUser(0, 0, (), "/root")),
        ("root", ContainerUser(0, 0, (10,), "/root")),
        ("app", ContainerUser(1000, 1001, (10, 20), "/home/app")),
        ("1000", ContainerUser(1000, 1001, (), "/home/app")),
        ("app:staff", ContainerUser(1000, 30, (), "/home/app")),
        ("app:77", ContainerUser(1000, 77, (), "/home/app")),
        ("app:", ContainerUser(1000, 1001, (10, 20), "/home/app")),
        (":staff", ContainerUser(0, 30, (), "/root")),
        ("4000", ContainerUser(4000, 0)),
        ("4000:5000", ContainerUser(4000, 5000)),
        ("0012", ContainerUser(12, 0)),
        ("home", ContainerUser(60, 60, (), "/")),
        ("bytes", ContainerUser(70, 70, (), "/")),
        ("windows", ContainerUser(80, 80, (), "/w")),
        (str((1 << 31) - 1), ContainerUser((1 << 31) - 1, 0)),
    ],
)
def test_a_user_is_found_as_the_specification_says(user: str, found: ContainerUser) -> None:
    assert find_user(user, PASSWD, GROUP) == found


@pytest.mark.parametrize(
    "user", ["nobody", "odd", "broken", "+nis", "app:nogroup", "app:large", "2147483648", "4294967295", "0:4294967295"]
)
def test_a_user_that_the_image_does_not_have_is_refused(user: str) -> None:
    with pytest.raises(UnsupportedError, match="the image's config wants"):
        find_user(user, PASSWD, GROUP)


def test_without_files_only_numbers_mean_anybody() -> None:
    assert find_user("5:6", b"", b"") == ContainerUser(5, 6)
    with pytest.raises(UnsupportedError, match="passwd has none"):
        find_user("root", b"", b"")


def test_digits_of_other_scripts_are_a_name() -> None:
    with pytest.raises(UnsupportedError, match="passwd has none"):
        find_user("\u0661", PASSWD, GROUP)


def test_more_groups_than_a_process_can_have_are_refused() -> None:
    groups = b"".join(b"g:x:%d:app\n" % number for number in range(2000, 2000 + 65537))
    with pytest.raises(UnsupportedError, match="65537 groups"):
        find_user("app", PASSWD, groups)
