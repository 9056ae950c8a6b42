"""Sound files: what their headers say, and their samples as one channel at the rate a model wants. No torch.

Read by soundfile (WAV, FLAC, Ogg and what else libsndfile knows), resampled by scipy's polyphase filter.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from pathlib import Path
from typing import Any

from peftselect.errors import DataError

#: below this there is no speech left to hear: the telephone's 8 kHz halved
LOWEST_RATE = 4_000
#: a clip longer than this is a recording to be cut up
LONGEST_SECONDS = 3_600
_READABLE = "give WAV, FLAC or Ogg files; their paths are read from the folder of the data file"


def check_file(where: str, theirs: str, file: Path) -> str:
    """The file's absolute path, if sound can be read from it; DataError with line and column if not."""
    if not file.is_file():
        raise DataError(f"{where}: column {theirs!r} names {file}, which is not there", _READABLE)
    try:
        rate, frames = header(str(file))
    except (OSError, RuntimeError) as error:
        raise DataError(f"{where}: {file} is no sound file ({_line(error)})", _READABLE) from error
    if not frames:
        raise DataError(f"{where}: {file} holds no sound", "leave the row out")
    if rate < LOWEST_RATE:
        raise DataError(f"{where}: {file} has {rate:,} samples a second", f"give {LOWEST_RATE:,} or more")
    if frames / rate > LONGEST_SECONDS:
        raise DataError(f"{where}: {file} lasts {frames / rate / 3600:.1f} h", "cut it into utterances")
    return str(file.absolute())


@lru_cache(maxsize=100_000)
def header(file: str) -> tuple[int, int]:
    """(samples a second, samples of each channel), without reading them."""
    import soundfile

    found = soundfile.info(file)
    return int(found.samplerate), int(found.frames)


def seconds(file: str) -> float:
    """How long the sound lasts."""
    rate, frames = header(file)
    return frames / rate


def load(file: str, rate: int, longest: float | None = None) -> Any:
    """Samples as float32 in -1..1, shape (frames,): channels averaged, resampled to ``rate``, cut at ``longest`` s.

    DataError where the file cannot be read any more.
    """
    import numpy as np
    import soundfile
    from scipy.signal import resample_poly

    try:
        samples, own = soundfile.read(file, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{file} cannot be read ({_line(error)})", _READABLE) from error
    one = samples.mean(axis=1)
    if longest is not None:
        one = one[: round(longest * own)]
    if own != rate:
        common = gcd(own, rate)
        one = resample_poly(one, rate // common, own // common)
    return np.ascontiguousarray(one, dtype=np.float32)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
