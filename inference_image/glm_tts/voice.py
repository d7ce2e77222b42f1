"""A voice: what a reference clip and its transcript become, once.

`VoiceMaker` checks a clip and makes a voice of it; `VoiceCache` keeps voices by their content, so
that a clip that is sent with every request is heard once; `save` and `load` keep one in a file.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glm_tts import features, tensor_file
from glm_tts.features import PROMPT_MEL
from glm_tts.speaker import SPEAKER_DIMENSIONS, SpeakerEncoder
from glm_tts.speech_tokenizer import SpeechTokenizer
from glm_tts.tensor_file import TensorFileError

SAMPLE_RATES_HZ: Final = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000)
"""Rates of clips. A lower one has nothing in the upper mel bands, which reach 8 kHz."""

CHANNELS: Final = 8
MINIMUM_SECONDS: Final = 0.5
MAXIMUM_SECONDS: Final = 30.0

PEAK_LIMIT: Final = 1.5
"""Decoders of lossy formats overshoot full scale a little; integers taken for floats, by far."""

LOUD_DBFS: Final = -45.0
LOUD_SECONDS: Final = 0.25
"""How much of a clip must be louder than that, in windows of 20 ms. One click is not a voice."""

CLIPPED_LEVEL: Final = 0.999
CLIPPED_SHARE: Final = 0.01

_FORMAT: Final = "glm-tts voice 1"


# The voice


@dataclass(frozen=True, eq=False)
class Voice:
    """What the model needs of a reference clip."""

    text_ids: Tensor
    """Of the transcript, with the space that ends it; int64 [M]."""
    speech_ids: Tensor
    """int64 [N], 25 a second."""
    mel_24khz: Tensor
    """For the 24 kHz vocoder, float32 [F, 80], 50 frames a second."""
    mel_32khz: Tensor
    """For the 32 kHz vocoder, float32 [F, 80], 50 frames a second."""
    speaker: Tensor
    """Speaker embedding, float32 [192], as CAM++ gives it: the flow normalises its length."""
    digest: str
    """SHA-256 of everything that it was made of, in hex."""

    def mel(self, sample_rate_hz: int) -> Tensor:
        """For a vocoder's sample rate, [F, 80]."""
        return {24_000: self.mel_24khz, 32_000: self.mel_32khz}[sample_rate_hz]

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in _TENSORS}

    @property
    def bytes(self) -> int:
        return sum(it.numel() * it.element_size() for it in self.tensors.values())

    def to(self, device: torch.device | str) -> Self:
        """The same voice in another device's memory."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return type(self)(**moved, digest=self.digest)


_TENSORS: Final = {
    # By field: type, and shape with None for what depends on the clip.
    "text_ids": (torch.int64, (None,)),
    "speech_ids": (torch.int64, (None,)),
    "mel_24khz": (torch.float32, (None, 80)),
    "mel_32khz": (torch.float32, (None, 80)),
    "speaker": (torch.float32, (SPEAKER_DIMENSIONS,)),
}
# An id beyond the model's tables would not raise on a GPU, but end the process's use of it.
_ID_LIMITS: Final = {"text_ids": 98_304, "speech_ids": 32_768}


# Making one


@dataclass(frozen=True)
class ClipFault:
    """One thing that makes a reference clip useless."""

    code: str
    """`sample_rate`, `shape`, `not_finite`, `scale`, `too_short`, `too_long`, `silent`, `clipped`
    or `no_transcript`."""
    field: str
    """`audio`, `sample_rate` or `transcript`."""
    problem: str
    """What was found, and the bound that it breaks."""
    fix: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}; {self.fix}"


class ClipError(ValueError):
    """A reference clip cannot become a voice. The message is written for who sent it."""

    def __init__(self, faults: Sequence[ClipFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, faults)))


class VoiceMaker:
    """Turns clips into voices. May be used by several threads."""

    def __init__(
        self,
        speech_tokenizer: SpeechTokenizer,
        speaker_encoder: SpeakerEncoder,
        text_ids: Callable[[str], Sequence[int]],
        settings: str,
    ) -> None:
        """
        Args:
            text_ids: ids of a transcript: normalised, and with the space that ends a prompt.
            settings: names everything besides the clip that decides what becomes of it: weights,
                mode of the text front end. Voices made under others are not mixed up.
        """
        self._speech_tokenizer = speech_tokenizer
        self._speaker_encoder = speaker_encoder
        self._text_ids = text_ids
        self._settings = settings

    def digest(self, audio: NDArray[np.float32], sample_rate_hz: int, transcript: str) -> str:
        """Digest of the voice that `make` would make. Costs little."""
        samples = np.ascontiguousarray(audio, dtype="<f4")
        described = (_FORMAT, self._settings, str(sample_rate_hz), str(samples.shape), transcript)
        digest = hashlib.sha256()
        for part in (*(it.encode(errors="surrogatepass") for it in described), samples.tobytes()):
            digest.update(len(part).to_bytes(8, "little") + part)
        return digest.hexdigest()

    @torch.no_grad()
    def make(self, audio: NDArray[np.float32], sample_rate_hz: int, transcript: str) -> Voice:
        """The voice of a clip.

        Each part listens as in the reference: the speech tokenizer to the first channel, the
        others to the channels' mean, each at its own rate, resampled from the clip itself.

        Args:
            audio: samples in ±1, [N] or [channels, N].
            transcript: what is said in the clip.

        Raises:
            ClipError: with everything that is wrong with the clip.
        """
        faults = list(clip_faults(audio, sample_rate_hz, transcript))
        if faults:
            raise ClipError(faults)
        channels = torch.tensor(np.atleast_2d(audio), dtype=torch.float32)  # [channels, N]
        first, mono = channels[0], channels.mean(dim=0)
        at_16khz = features.resample(torch.stack([first, mono]), sample_rate_hz, 16_000)
        mels = {
            rate: features.prompt_mel(features.resample(mono, sample_rate_hz, rate), config)
            for rate, config in PROMPT_MEL.items()
        }
        return Voice(
            text_ids=torch.tensor(list(self._text_ids(transcript)), dtype=torch.int64),
            speech_ids=self._speech_tokenizer.encode(at_16khz[0]).cpu(),
            mel_24khz=mels[24_000],
            mel_32khz=mels[32_000],
            speaker=self._speaker_encoder.embed(at_16khz[1]),
            digest=self.digest(audio, sample_rate_hz, transcript),
        )


def clip_faults(
    audio: NDArray[np.float32], sample_rate_hz: int, transcript: str
) -> Iterator[ClipFault]:
    """Everything that makes a clip useless."""
    if not transcript.strip():
        yield ClipFault("no_transcript", "transcript", "is empty", "say what is said in the clip")
    if sample_rate_hz not in SAMPLE_RATES_HZ:
        known = ", ".join(map(str, SAMPLE_RATES_HZ))
        problem = f"is {sample_rate_hz} Hz, and not one of {known}"
        yield ClipFault("sample_rate", "sample_rate", problem, "record at 24000 Hz or more")
    shape, kind = audio.shape, audio.dtype
    if audio.ndim not in (1, 2) or (audio.ndim == 2 and not 1 <= shape[0] <= CHANNELS):
        problem = f"has the shape {shape}, not [samples] or [1 to {CHANNELS} channels, samples]"
        yield ClipFault("shape", "audio", problem, "put channels first")
    elif not np.issubdtype(kind, np.floating):
        problem = f"is of the type {kind}, not of floating point in ±1"
        yield ClipFault("scale", "audio", problem, "divide integers by their full scale")
    elif sample_rate_hz in SAMPLE_RATES_HZ:
        seconds = shape[-1] / sample_rate_hz
        if seconds < MINIMUM_SECONDS:
            problem = f"lasts {seconds:.2f} s, less than {MINIMUM_SECONDS:g} s"
            yield ClipFault("too_short", "audio", problem, "use 3 to 10 s of speech")
        elif seconds > MAXIMUM_SECONDS:
            problem = f"lasts {seconds:.2f} s, more than {MAXIMUM_SECONDS:g} s"
            yield ClipFault("too_long", "audio", problem, "use 3 to 10 s of speech")
        else:
            yield from _level_faults(np.atleast_2d(audio), sample_rate_hz)


def _level_faults(channels: NDArray[np.float32], sample_rate_hz: int) -> Iterator[ClipFault]:
    if not np.isfinite(channels).all():
        yield ClipFault("not_finite", "audio", "has infinite samples or none", "decode it again")
        return
    peak = float(np.abs(channels).max())
    if peak > PEAK_LIMIT:
        problem = f"has a sample of {peak:g}, beyond ±{PEAK_LIMIT}"
        yield ClipFault("scale", "audio", problem, "divide it by its full scale")
        return
    # What is heard: the first channel by one part of the model, their mean by the others.
    for heard, samples in {
        "first channel": channels[0],
        "channels' mean": channels.mean(0),
    }.items():
        loud = _loud_seconds(samples, sample_rate_hz)
        if loud < LOUD_SECONDS:
            problem = (
                f"its {heard} is louder than {LOUD_DBFS:g} dBFS for {loud:.2f} s, "
                f"less than {LOUD_SECONDS} s"
            )
            yield ClipFault("silent", "audio", problem, "use a clip in which somebody speaks")
            return
    clipped = float((np.abs(channels) >= CLIPPED_LEVEL).mean())
    if clipped > CLIPPED_SHARE:
        problem = f"is at full scale in {clipped:.1%} of its samples, more than {CLIPPED_SHARE:.0%}"
        yield ClipFault("clipped", "audio", problem, "record it at a lower level")


def _loud_seconds(samples: NDArray[np.float32], sample_rate_hz: int) -> float:
    """Time in windows of 20 ms whose effective level is above `LOUD_DBFS`."""
    window = sample_rate_hz // 50
    windows = samples[: len(samples) // window * window].reshape(-1, window)
    power = np.square(windows, dtype=np.float64).mean(axis=1)
    return int((power > 10 ** (LOUD_DBFS / 10)).sum()) / 50


# Keeping them in memory


class Kept(Protocol):
    """What a cache may hold: a voice, or what is made of one."""

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        ...


_Kept = TypeVar("_Kept", bound=Kept)


class VoiceCache(Generic[_Kept]):
    """Voices by digest, or by another name of their content. For any number of threads.

    The least recently used one is given up first.
    """

    def __init__(
        self,
        limit_bytes: int,
        limit_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            limit_bytes: of all voices together. 0 keeps none.
            limit_seconds: after which a voice is made anew, however often it was used.
        """
        self._limit_bytes = limit_bytes
        self._limit_seconds = limit_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[_Kept, float]] = OrderedDict()
        self._making: dict[str, Future[_Kept]] = {}

    def get(self, digest: str) -> _Kept | None:
        """A voice that is kept."""
        with self._lock:
            return self._find(digest)

    def get_or_make(self, digest: str, make: Callable[[], _Kept]) -> _Kept:
        """A voice that is kept, or else what `make` returns.

        While one thread makes a voice, others that want the same one wait for it; they share its
        error, too. The next one to ask tries again.
        """
        with self._lock:
            voice = self._find(digest)
            if voice is not None:
                return voice
            future = self._making.get(digest)
            somebody_makes_it = future is not None
            if future is None:
                future = self._making[digest] = Future()
        if not somebody_makes_it:
            self._make(digest, make, future)
        return future.result()

    def discard(self, digest: str) -> None:
        """Forgets a voice, and one that is being made now as well, once it has been returned."""
        with self._lock:
            self._kept.pop(digest, None)
            self._making.pop(digest, None)

    def __len__(self) -> int:
        with self._lock:
            self._expire()
            return len(self._kept)

    @property
    def bytes(self) -> int:
        """Size of what is kept."""
        with self._lock:
            self._expire()
            return sum(voice.bytes for voice, _ in self._kept.values())

    def _make(self, digest: str, make: Callable[[], _Kept], future: Future[_Kept]) -> None:
        try:
            voice = make()
        except BaseException as error:
            with self._lock:
                self._finish(digest, future)
            future.set_exception(error)
            return
        with self._lock:
            if self._finish(digest, future):
                self._keep(digest, voice)
        future.set_result(voice)

    def _finish(self, digest: str, future: Future[_Kept]) -> bool:
        """Whether the voice is still wanted: it may have been discarded, and asked for again."""
        wanted = self._making.get(digest) is future
        if wanted:
            del self._making[digest]
        return wanted

    def _find(self, digest: str) -> _Kept | None:
        self._expire()
        if digest not in self._kept:
            return None
        self._kept.move_to_end(digest)
        return self._kept[digest][0]

    def _keep(self, digest: str, voice: _Kept) -> None:
        if voice.bytes > self._limit_bytes:
            return
        self._kept[digest] = (voice, self._clock())
        size = sum(it.bytes for it, _ in self._kept.values())
        while size > self._limit_bytes:
            _, (oldest, _) = self._kept.popitem(last=False)
            size -= oldest.bytes

    def _expire(self) -> None:
        now = self._clock()
        old = [it for it, (_, made) in self._kept.items() if now - made >= self._limit_seconds]
        for digest in old:
            del self._kept[digest]


# Keeping one in a file


class VoiceFileError(ValueError):
    """A file is not a voice; the message names it and says why."""


def save(voice: Voice, path: Path) -> None:
    """Writes a voice to a file, which has its name when all of it is there."""
    tensors = voice.tensors
    layout = [(name, it.dtype, tuple(it.shape)) for name, it in tensors.items()]
    unfinished = path.with_name(f".{path.name}.{threading.get_ident()}")
    metadata = {"format": _FORMAT, "digest": voice.digest}
    try:
        tensor_file.write(unfinished, layout, tensors.values(), metadata)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: Path) -> Voice:
    """Reads a voice from a file. Nothing in it is executed or believed unseen.

    Raises:
        VoiceFileError: it is damaged or something else.
        OSError: it cannot be read.
    """
    try:
        header = tensor_file.read_header(path)
        _check_header(path, header)
        tensors = tensor_file.read(path, header.entries)
    except TensorFileError as error:
        raise VoiceFileError(str(error)) from error
    for name, limit in _ID_LIMITS.items():
        if ((tensors[name] < 0) | (tensors[name] >= limit)).any():
            raise VoiceFileError(f"{path}: {name} are not all from 0 to {limit - 1}")
    if not all(torch.isfinite(it).all() for it in tensors.values()):
        raise VoiceFileError(f"{path}: has infinite values or none")
    return Voice(**tensors, digest=header.metadata["digest"])


def _check_header(path: Path, header: tensor_file.Header) -> None:
    metadata = header.metadata
    if metadata.get("format") != _FORMAT or not metadata.get("digest"):
        found = metadata.get("format")
        raise VoiceFileError(f"{path}: is {found!r}, not {_FORMAT!r}: make the voice again")
    found = {it.name: it for it in header.entries}
    if found.keys() != _TENSORS.keys():
        raise VoiceFileError(f"{path}: has {', '.join(found)}; expected {', '.join(_TENSORS)}")
    for name, (dtype, shape) in _TENSORS.items():
        entry = found[name]
        fits = len(entry.shape) == len(shape) and all(
            want in (None, size) for size, want in zip(entry.shape, shape, strict=True)
        )
        if entry.dtype != dtype or not fits:
            kind = f"{entry.dtype} {list(entry.shape)}"
            raise VoiceFileError(f"{path}: {name} is {kind}, not {dtype} {list(shape)}")
