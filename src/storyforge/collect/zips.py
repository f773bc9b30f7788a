"""Which zip archives of a writer are opened: a `.zip`, and the documents that are archives inside."""

from collections.abc import Sequence
from zipfile import ZipInfo

from storyforge.collect.reading import Unusable
from storyforge.core.archives import MAX_RATIO

MAX_MEMBERS, MAX_UNPACKED_BYTES = 10_000, 1 << 30
SMALL = 1 << 20  # bytes of a member that may be packed as well as it likes: a blank picture, a list of styles


def unsafe(infos: Sequence[ZipInfo]) -> Unusable | None:
    """Why an archive is not unpacked: it is encrypted, or a bomb."""
    if any(info.flag_bits & 1 for info in infos):
        return Unusable("encrypted")
    large = any(info.file_size > max(SMALL, MAX_RATIO * info.compress_size) for info in infos)
    if large or len(infos) > MAX_MEMBERS or sum(info.file_size for info in infos) > MAX_UNPACKED_BYTES:
        return Unusable("too_long", "it would unpack to more than a writer's archive holds")
    return None
