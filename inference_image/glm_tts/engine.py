"""Many requests at once: decoding on one thread, flow and vocoder on another.

`Engine.speak` puts a request into the queue and returns a `Stream` of audio. The decoding thread
lets requests into rows of the decoder as rows become free, and advances all rows by one speech id
at a time. The synthesis thread makes passes over what has been decoded, those first that somebody
waits for. Both are loops around a method that does one round (`decode`, `synthesise`), which tests
call by hand.
"""

from __future__ import annotations

import itertools
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from glm_tts.blocks import FRAMES_PER_ID, Blocks, Pass
from glm_tts.decoder import Decoder, DecoderConfig, Drawn, SpeechVocabulary
from glm_tts.flow import Flow
from glm_tts.llama import Llama
from glm_tts.sampling import DRAWS_PER_STEP
from glm_tts.schedule import Rows, Urgency, bucket, together
from glm_tts.synthesis import Prompt, Synthesizer, Utterance
from glm_tts.vocoder import Vocoder

Audio = NDArray[np.float32]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineConfig:
    """Sizes of the engine; the defaults suit one H100."""

    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    blocks: Blocks = field(default_factory=Blocks)
    batch_frames: int = 8192
    """Mel frames of all passes that are made together, padding included."""
    batch_passes: int = 16
    """Passes that are made together."""
    frame_buckets: tuple[int, ...] = (256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 9999)
    """Lengths in mel frames to which passes that are made together are padded; the model cannot
    take more than the last."""
    graph_frames: int = 1024
    """Up to this length, passes are recorded as CUDA graphs; longer ones keep the device busy."""
    prompt_ids: int = 750
    """Speech ids of earlier segments, with those expected, that a segment's prompt may hold."""


@dataclass(frozen=True)
class Segment:
    """A part of a text that is spoken in one go."""

    text_ids: tuple[int, ...]
    minimum: int
    """Speech ids before which it cannot end."""
    maximum: int
    """Speech ids with which it ends."""

    @classmethod
    def of(cls, text_ids: Sequence[int]) -> Segment:
        """With the published bounds: 2 to 20 speech ids for each text id."""
        return cls(tuple(text_ids), 2 * len(text_ids), 20 * len(text_ids))


@dataclass(frozen=True)
class Speaker:
    """A voice as the engine keeps it."""

    text_ids: tuple[int, ...]
    """Of the transcript of the reference clip."""
    speech_ids: tuple[int, ...]
    """Of the reference clip."""
    prompt: Prompt

    @property
    def bytes(self) -> int:
        """Memory of the device that it takes."""
        return self.prompt.bytes


@dataclass(frozen=True)
class Request:
    """A text to speak."""

    speaker: Speaker
    segments: tuple[Segment, ...]
    seed: int = 0


class RequestError(ValueError):
    """A request that cannot be spoken, whatever else the engine does."""


class Stream:
    """The audio of one request: iterate over it, from one thread, or cancel it, from any."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.arrived = time.monotonic()
        self.cancelled = False
        self._chunks: queue.SimpleQueue[Audio | Exception | None] = queue.SimpleQueue()
        self.spoken: list[_Spoken] = []
        """The segments that have begun."""
        self._first_audio: float | None = None
        self._samples = 0

    def __iter__(self) -> Iterator[Audio]:
        while (chunk := self._chunks.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    def cancel(self) -> None:
        """Nobody listens any more. What is left ends early, without an error."""
        self.cancelled = True
        self._chunks.put(None)

    @property
    def first_audio_seconds(self) -> float | None:
        """From the request to its first audio."""
        return None if self._first_audio is None else self._first_audio - self.arrived

    def urgency(self, sample_rate_hz: int) -> Urgency:
        if self._first_audio is None:
            return Urgency(-math.inf, self.arrived)
        return Urgency(self._first_audio + self._samples / sample_rate_hz, self.arrived)

    def give(self, audio: Audio) -> None:
        if self._first_audio is None:
            self._first_audio = time.monotonic()
        self._samples += len(audio)
        self._chunks.put(audio)

    def end(self, error: Exception | None = None) -> None:
        self._chunks.put(error)
        if error is not None:
            self._chunks.put(None)


@dataclass(eq=False)
class _Spoken:
    """A segment of a stream that waits, is being decoded, or has been."""

    stream: Stream
    number: int
    segment: Segment
    utterance: Utterance

    @property
    def cancelled(self) -> bool:
        return self.stream.cancelled


@dataclass(frozen=True)
class _Candidate:
    """A pass that can be made now."""

    spoken: _Spoken
    made: Pass
    urgency: Urgency
    frames: int


@dataclass(frozen=True)
class _InFlight:
    """Ids that the device is drawing, and for whom."""

    rows: Sequence[_Spoken]
    drawn: Drawn


class Engine:
    """Speaks many requests at once."""

    def __init__(
        self,
        llama: Llama,
        flow: Flow,
        vocoder: Vocoder,
        vocabulary: SpeechVocabulary,
        config: EngineConfig,
    ) -> None:
        self.config, self._vocabulary = config, vocabulary
        self.decoder = Decoder(llama, vocabulary, config.decoder)
        self.synthesizer = Synthesizer(flow, vocoder, config.blocks)
        # The decoding thread's own.
        self._rows: Rows[_Spoken] = Rows(config.decoder.rows)
        self._in_flight: deque[_InFlight] = deque()
        # Everybody's, under the lock of `_changed`.
        self._arrived: deque[_Spoken] = deque()
        self._speaking: list[Stream] = []
        self._changed = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []

    # What callers do

    def speak(self, request: Request) -> Stream:
        """Begin to speak.

        Raises:
            RequestError: there is nothing to speak, or a segment does not fit.
        """
        self.check(request)
        stream = Stream(request)
        first = self._begin(stream, 0)
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self._speaking.append(stream)
            self._arrived.append(first)
            self._changed.notify_all()
        return stream

    def check(self, request: Request) -> None:
        """Raise `RequestError` for a request that `speak` would refuse."""
        if not request.segments:
            raise RequestError("segments: none, at least one is needed")
        for segment in request.segments:
            room = self._room(request.speaker, segment)
            if not segment.text_ids:
                raise RequestError("segments: one has no text ids")
            if segment.maximum > room:
                raise RequestError(
                    f"segments: {len(segment.text_ids)} text ids may need {segment.maximum} speech "
                    f"ids, and beside this voice's prompt there is room for {max(room, 0)}: use "
                    "shorter segments, or a shorter reference clip"
                )

    def _room(self, speaker: Speaker, segment: Segment) -> int:
        """Speech ids that a segment may have, if nothing but the voice comes before it."""
        voice = len(speaker.text_ids) + len(speaker.speech_ids)
        decoded = self.config.decoder.length - voice - len(segment.text_ids) - 2
        synthesised = self.config.frame_buckets[-1] // FRAMES_PER_ID - len(speaker.speech_ids)
        return min(decoded, synthesised)

    def record(self) -> None:
        """Record CUDA graphs, if there is a GPU. Blocks for about a minute."""
        if not self.config.decoder.graphs:
            return
        self.decoder.record()
        rows = DecoderConfig(rows=self.config.batch_passes).row_buckets()
        frames = [it for it in self.config.frame_buckets if it <= self.config.graph_frames]
        self.synthesizer.record(rows, frames)

    def start(self) -> None:
        """Start the threads."""
        for round_, has_work in (
            (self.decode, self._can_decode),
            (self.synthesise, self._can_synthesise),
        ):
            thread = threading.Thread(
                target=self._loop, args=(round_, has_work), name=round_.__name__, daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End all streams and the threads. Blocks until no work is left on the device."""
        with self._changed:
            self._closed = True
            for stream in self._speaking:
                stream.cancel()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    # What the threads do

    def decode(self) -> bool:
        """Draw one more speech id of every row; False if there was nothing to do."""
        with self._changed:
            while self._arrived:
                self._rows.wait(self._arrived.popleft())
        self._drop_cancelled()
        joined = self._join()
        active = tuple(self._rows.active)
        if active:
            self._in_flight.append(_InFlight(active, self.decoder.step()))
        # One step stays in flight: what it drew is read while the device is at the next.
        while len(self._in_flight) > bool(active):
            self._take(self._in_flight.popleft())
        return bool(active or joined)

    def synthesise(self) -> bool:
        """Make the most urgent passes; False if there are none."""
        with self._changed:
            self._speaking = [one for one in self._speaking if not one.cancelled]
            candidates = list(self._candidates())
        config = self.config
        chosen = together(candidates, config.batch_frames, config.frame_buckets)
        chosen = chosen[: config.batch_passes]
        if not chosen:
            return False
        frames = bucket(chosen[0].frames, config.frame_buckets)
        passes = [(one.spoken.utterance, one.made) for one in chosen]
        made = self.synthesizer.run(passes, frames)
        for one, audio in zip(chosen, made, strict=True):
            self._give(one.spoken, audio)
        return True

    def _loop(self, round_: Callable[[], bool], has_work: Callable[[], bool]) -> None:
        try:
            with _own_cuda_stream(self.decoder.device):
                while not self._closed:
                    if not round_():
                        with self._changed:
                            self._changed.wait_for(lambda: self._closed or has_work())
        except Exception as error:
            _logger.exception("the engine failed in its thread %r", round_.__name__)
            self._fail(error)

    def _can_decode(self) -> bool:
        return bool(self._arrived or self._rows.active or self._rows.waiting)

    def _can_synthesise(self) -> bool:
        return any(True for _ in self._candidates())

    def _fail(self, error: Exception) -> None:
        """Nothing can be spoken any more: tell everybody who listens."""
        with self._changed:
            self._closed = True
            for stream in self._speaking:
                stream.end(error)
            self._speaking.clear()
            self._changed.notify_all()

    def _begin(self, stream: Stream, number: int) -> _Spoken:
        request = stream.request
        # Every segment begins from the seed, as the published pipeline has it.
        utterance = self.synthesizer.utterance(request.speaker.prompt, request.seed)
        spoken = _Spoken(stream, number, request.segments[number], utterance)
        stream.spoken.append(spoken)
        return spoken

    def _drop_cancelled(self) -> None:
        for row, spoken in reversed(list(enumerate(self._rows.active))):
            if spoken.cancelled:
                self._leave(row)

    def _join(self) -> bool:
        """Let those who wait into free rows."""
        joined = False
        while (spoken := self._rows.next()) is not None:
            prompt, shared = self._prompt(spoken)
            uniform = torch.rand(
                spoken.segment.maximum + 1,
                DRAWS_PER_STEP,
                generator=torch.Generator().manual_seed(spoken.stream.request.seed),
            )
            drawn = self.decoder.join(prompt, uniform, spoken.segment.minimum, shared)
            self._rows.join()
            self._in_flight.append(_InFlight((spoken,), drawn))
            joined = True
        return joined

    def _prompt(self, spoken: _Spoken) -> tuple[list[int], int]:
        """Ids that a segment is decoded after, and how many of them all segments of a voice share.

        The segments before it come along, the latest ones if not all fit.
        """
        speaker, segment = spoken.stream.request.speaker, spoken.segment
        earlier = self._earlier(spoken)
        texts = itertools.chain.from_iterable(one.segment.text_ids for one in earlier)
        speech = itertools.chain.from_iterable(one.utterance.speech_ids for one in earlier)
        first = self._vocabulary.first
        prompt = [
            *speaker.text_ids,
            *texts,
            *segment.text_ids,
            self._vocabulary.begin,
            *(first + one for one in itertools.chain(speaker.speech_ids, speech)),
        ]
        return prompt, len(speaker.text_ids)

    def _earlier(self, spoken: _Spoken) -> list[_Spoken]:
        """The segments that a segment's prompt goes on from."""
        earlier = [one for one in spoken.stream.spoken if one.number < spoken.number]
        speaker, segment = spoken.stream.request.speaker, spoken.segment
        expected = _expected_ids(segment, earlier, speaker)

        def fits() -> bool:
            speech = sum(len(one.utterance.speech_ids) for one in earlier)
            text = sum(len(one.segment.text_ids) for one in earlier)
            known = len(speaker.speech_ids) + speech + expected
            room = self._room(speaker, segment) - segment.maximum
            return known <= self.config.prompt_ids and speech + text <= room

        while earlier and not fits():
            earlier.pop(0)
        return earlier

    def _take(self, step: _InFlight) -> None:
        """What a step drew, to those it was drawn for."""
        stop, first = self._vocabulary.stop, self._vocabulary.first
        for spoken, drawn in zip(step.rows, step.drawn.ids(), strict=True):
            utterance = spoken.utterance
            if utterance.ended or spoken.cancelled:
                continue
            # An id that is no speech can come only where the whole vocabulary competes.
            if first <= drawn < first + self._vocabulary.size:
                utterance.speech_ids.append(drawn - first)
            if drawn == stop or len(utterance.speech_ids) == spoken.segment.maximum:
                self._end(spoken)
        with self._changed:
            self._changed.notify_all()

    def _end(self, spoken: _Spoken) -> None:
        """All speech ids of a segment are there: its row is free, and the next segment begins."""
        spoken.utterance.ended = True
        self._leave(self._rows.active.index(spoken))
        stream = spoken.stream
        if spoken.number + 1 < len(stream.request.segments):
            self._rows.wait_first(self._begin(stream, spoken.number + 1))

    def _leave(self, row: int) -> None:
        self.decoder.leave(row)
        self._rows.leave(row)

    def _candidates(self) -> Iterator[_Candidate]:
        """The passes that can be made; of each stream, that of the segment which is to be heard."""
        for stream in self._speaking:
            if stream.cancelled:
                continue
            spoken = next((one for one in stream.spoken if not one.utterance.finished), None)
            made = spoken and spoken.utterance.next_pass(self.config.blocks)
            if spoken and made:
                urgency = stream.urgency(self.synthesizer.vocoder.sample_rate_hz)
                frames = self.synthesizer.frames(spoken.utterance, made)
                yield _Candidate(spoken, made, urgency, frames)

    def _give(self, spoken: _Spoken, audio: Audio) -> None:
        stream = spoken.stream
        if len(audio):
            stream.give(audio)
        if spoken.utterance.finished and spoken.number + 1 == len(stream.request.segments):
            stream.end()
            with self._changed:
                self._speaking = [one for one in self._speaking if one is not stream]


def _expected_ids(segment: Segment, earlier: Sequence[_Spoken], speaker: Speaker) -> int:
    """Speech ids that a segment will need, by the pace of what was spoken before it."""
    spoken = len(speaker.speech_ids) + sum(len(one.utterance.speech_ids) for one in earlier)
    texts = len(speaker.text_ids) + sum(len(one.segment.text_ids) for one in earlier)
    return math.ceil(len(segment.text_ids) * spoken / texts) if texts else segment.minimum


def _own_cuda_stream(device: torch.device) -> AbstractContextManager[object]:
    """What the calling thread does on a GPU runs beside what other threads do there."""
    if device.type != "cuda":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))
