# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False, binding=False
"""Mounts and loop devices by the kernel's own calls, without the GIL. A failure is the kernel's errno, in an ``OSError``.

Thin functions over ``csrc/mount/``; the contract of each is in ``_mount.pyi``.
"""

import os

from fastoci.csrc.mount.calls cimport (
    CONFIG_CREATE, CONFIG_FD, CONFIG_FLAG, CONFIG_STRING, call_clone, call_fsconfig, call_fsmount, call_fsopen,
    call_mount, call_move_mount, call_set_private, call_unmount, config_command, read_messages,
)
from fastoci.csrc.mount.loop cimport loop_attach

READ_ONLY = 1

cdef enum:
    _MESSAGES = 8192


cdef int _check(int result, str what, int context=-1) except -1:
    """The result, or the error with what the kernel says of it beyond its number."""
    if result >= 0:
        return result
    cdef char messages[_MESSAGES]
    cdef size_t size = read_messages(context, messages, _MESSAGES) if context >= 0 else 0
    lines = messages[:size].decode("utf-8", "backslashreplace").split("\n")
    said = "; ".join(line[2:] for line in lines if line[:2] in ("e ", "w "))  # then comes the text; "i " is no reason
    text = os.strerror(-result)
    raise OSError(-result, f"{text} ({said})" if said else text, what)


cdef int _set(int context, str key, value) except -1:
    cdef bytes name = os.fsencode(key), text
    cdef const char *raw_name = name
    cdef const char *raw = NULL
    cdef int fd = 0, result
    cdef config_command command = CONFIG_FLAG
    if isinstance(value, int):
        command, fd = CONFIG_FD, value
    elif value is not None:
        text = os.fsencode(value)
        command, raw = CONFIG_STRING, text
    with nogil:
        result = call_fsconfig(context, command, raw_name, raw, fd)
    return _check(result, key, context)


def create(str kind, options, *, unsigned attributes=0):
    cdef bytes name = os.fsencode(kind)
    cdef const char *raw = name
    cdef int context, result
    with nogil:
        context = call_fsopen(raw)
    _check(context, "fsopen")
    try:
        for key, value in options:
            _set(context, key, value)
        with nogil:
            result = call_fsconfig(context, CONFIG_CREATE, NULL, NULL, 0)
        _check(result, "create", context)
        with nogil:
            result = call_fsmount(context, attributes)
        return _check(result, "fsmount", context)
    finally:
        os.close(context)


def move(int mount, int target, /):
    cdef int result
    with nogil:
        result = call_move_mount(mount, target)
    _check(result, "move_mount")


def clone(int fd, /):
    cdef int result
    with nogil:
        result = call_clone(fd)
    return _check(result, "open_tree")


def set_private(int mount, /):
    cdef int result
    with nogil:
        result = call_set_private(mount)
    _check(result, "mount_setattr")


def mount(str source, str target, str kind, unsigned long flags, str data, /):
    cdef bytes from_, to, name, text
    from_, to, name, text = (os.fsencode(each) for each in (source, target, kind, data))
    cdef const char *raw_from = from_
    cdef const char *raw_to = to
    cdef const char *raw_name = name
    cdef const char *raw_text = text
    cdef int result
    with nogil:
        result = call_mount(raw_from, raw_to, raw_name, flags, raw_text)
    _check(result, "mount")


def unmount(str path, /):
    cdef bytes name = os.fsencode(path)
    cdef const char *raw = name
    cdef int result
    with nogil:
        result = call_unmount(raw)
    _check(result, "umount2")


def attach_loop(int file, unsigned block_size, /, *, bint writable=False):
    cdef int number = -1, fd
    with nogil:
        fd = loop_attach(file, block_size, writable, &number)
    return _check(fd, "loop"), f"/dev/loop{number}"
