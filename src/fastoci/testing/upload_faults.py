"""What a registry for tests does to uploads that a good one does not. Set at any time, for all uploads from then on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class UploadFaults:
    """A registry without faults by default.

    ``cuts``: the connection ends when an upload has so many bytes, each once. ``keeps``: what came before a cut stays;
    else the upload is lost with it. ``loses``: so many uploads are unknown when their bytes come. ``chunks``: PATCH
    is taken. ``least_chunk``: announced, and demanded of each chunk but the last. ``largest``: bytes of one request.
    ``mounts``: blobs of other repositories are taken over; "refused" is an error in place of an upload. ``holds``: what
    it has of a blob that it took: its bytes, or "less" of them, "other" ones or "nothing". ``pause_s``: before each
    piece of a body. ``deletes``: manifests and tags, manifests "by digest", or "nothing".
    """

    cuts: list[int] = field(default_factory=list)
    keeps: bool = True
    loses: int = 0
    chunks: bool = True
    least_chunk: int = 0
    largest: int = 0
    mounts: bool | Literal["refused"] = True
    holds: Literal["all", "less", "other", "nothing"] = "all"
    pause_s: float = 0.0
    deletes: Literal["all", "by digest", "nothing"] = "all"
