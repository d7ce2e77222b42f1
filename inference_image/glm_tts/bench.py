"""How fast the engine is, on the machine it runs on: `python -m glm_tts.bench --help`.

Models of random weights do the work of real ones. Needs torch, numpy and the standard library only,
so that it runs where nothing else is installed. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from glm_tts.decoder import DecoderConfig
from glm_tts.engine import Engine, EngineConfig, Request, Segment, Speaker, Stream
from glm_tts.flow import set_tf32
from glm_tts.random_model import FULL, TINY, ModelSize, random_engine, random_speaker
from glm_tts.sampling import DRAWS_PER_STEP

PROMPT_SECONDS = 5.0
TEXT_IDS = 40
SPEECH_SECONDS = 10
SPEECH_IDS = 25 * SPEECH_SECONDS

# Peak bandwidth of the memory, of NVIDIA's data sheets of the SXM boards.
_BANDWIDTH_BYTES_PER_SECOND = {"H100": 3.35e12, "H200": 4.8e12, "A100": 2.04e12}


@dataclass(frozen=True)
class Decoded:
    """The language model alone."""

    rows: int
    milliseconds_per_step: float
    ids_per_second: float
    share_of_bandwidth: float | None
    """Bytes that a step has to read, over what the memory could give in its time."""


@dataclass(frozen=True)
class Spoken:
    """Streams that begin at the same time."""

    streams: int
    first_audio_milliseconds: float
    """Median."""
    slowest_first_audio_milliseconds: float
    slowest_real_time_factor: float
    audio_seconds_per_second: float
    memory_gib: float | None
    """Of the device, the weights included."""


def decode(engine: Engine, speaker: Speaker, size: ModelSize, rows: int) -> Decoded:
    """The pace of steps over a cache as it is halfway through the workload."""
    decoder = engine.decoder
    uniform = torch.rand(SPEECH_IDS, DRAWS_PER_STEP)
    prompt = [*speaker.text_ids, *[1] * TEXT_IDS, size.vocabulary.begin, *speaker.speech_ids]
    prompt += [size.vocabulary.first] * (SPEECH_IDS // 2)
    for _ in range(rows):
        decoder.join(prompt, uniform, minimum=SPEECH_IDS)
    steps = SPEECH_IDS // 4
    decoder.step().ids()
    began = time.perf_counter()
    for _ in range(steps - 1):
        decoder.step()
    decoder.step().ids()
    seconds = (time.perf_counter() - began) / steps
    for row in reversed(range(rows)):
        decoder.leave(row)
    bytes_ = decoder.step_bytes(rows, len(prompt) + steps // 2)
    peak = _bandwidth(engine.decoder.device)
    share = bytes_ / seconds / peak if peak else None
    return Decoded(rows, seconds * 1e3, rows / seconds, share)


def speak(engine: Engine, speaker: Speaker, streams: int, segment: Segment) -> Spoken:
    """The workload for a number of streams at once, from request to last sample."""
    _reset_peak(engine.decoder.device)
    began = time.monotonic()
    heard = [engine.speak(Request(speaker, (segment,), seed)) for seed in range(streams)]
    ends = [0.0] * streams
    threads = [
        threading.Thread(target=_listen, args=(stream, ends, number))
        for number, stream in enumerate(heard)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    firsts = sorted(stream.first_audio_seconds or 0.0 for stream in heard)
    seconds = segment.maximum / 25
    return Spoken(
        streams,
        statistics.median(firsts) * 1e3,
        firsts[-1] * 1e3,
        (max(ends) - began) / seconds,
        streams * seconds / (max(ends) - began),
        _peak_gib(engine.decoder.device),
    )


def _listen(stream: Stream, ends: list[float], number: int) -> None:
    for _ in stream:
        pass
    ends[number] = time.monotonic()


def mixed(
    engine: Engine, speaker: Speaker, minutes: float, streams: int, seed: int = 0
) -> Iterator[Mapping[str, float]]:
    """Arrivals, cancellations and ends of all lengths; memory after each tenth of the time."""
    chance = random.Random(seed)  # noqa: S311 (it plays, and keeps no secret)
    began, made, portion = time.monotonic(), 0, minutes * 6
    playing: list[tuple[Stream, threading.Thread]] = []
    for tenth in range(1, 11):
        while time.monotonic() < began + tenth * portion:
            playing = [(stream, thread) for stream, thread in playing if thread.is_alive()]
            if len(playing) < streams:
                ids = chance.randint(25, SPEECH_IDS)
                segment = Segment((1,) * chance.randint(1, TEXT_IDS), ids, ids)
                stream = engine.speak(Request(speaker, (segment,), made))
                thread = threading.Thread(target=_listen, args=(stream, [0.0], 0))
                thread.start()
                playing.append((stream, thread))
                made += 1
            elif chance.random() < 0.2:
                chance.choice(playing)[0].cancel()
            time.sleep(chance.random() * 0.02)
        gc.collect()
        yield {"minutes": tenth * portion / 60, "streams": made, **_memory(engine.decoder.device)}
    for stream, thread in playing:
        stream.cancel()
        thread.join()


def _memory(device: torch.device) -> Mapping[str, float]:
    if device.type != "cuda":
        return {}
    statistic = torch.cuda.memory_stats(device)
    return {
        "allocated_mib": statistic["allocated_bytes.all.current"] / 2**20,
        "reserved_mib": statistic["reserved_bytes.all.current"] / 2**20,
    }


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gib(device: torch.device) -> float | None:
    return torch.cuda.max_memory_reserved(device) / 2**30 if device.type == "cuda" else None


def _bandwidth(device: torch.device) -> float | None:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for part, peak in _BANDWIDTH_BYTES_PER_SECOND.items() if part in name), None)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} threads, torch {torch.__version__}"


def _table(rows: Sequence[Decoded | Spoken]) -> str:
    names = list(asdict(rows[0]))
    lines = [names, ["---:"] * len(names)]
    lines += [[_cell(value) for value in asdict(row).values()] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: float | None) -> str:
    if value is None:
        return "not measured"
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def main() -> None:
    arguments = _arguments()
    device = torch.device(arguments.device)
    size = {"tiny": TINY, "full": FULL}[arguments.size]
    on_gpu = device.type == "cuda"
    set_tf32(arguments.flow == "tf32")
    config = EngineConfig(DecoderConfig(rows=max(arguments.streams), graphs=not arguments.eager))
    engine = random_engine(
        size,
        config,
        device,
        llama_dtype=torch.bfloat16 if on_gpu else torch.float32,
        flow_dtype=torch.bfloat16 if arguments.flow == "bf16" else torch.float32,
    )
    speaker = random_speaker(engine, size, PROMPT_SECONDS)
    began = time.monotonic()
    engine.record()
    recorded = time.monotonic() - began
    print(f"{arguments.size} model, {_machine(device)}; graphs recorded in {recorded:.1f} s\n")
    decoded = [decode(engine, speaker, size, rows) for rows in arguments.streams]
    print(_table(decoded), "\n", flush=True)
    engine.start()
    segment = Segment((1,) * TEXT_IDS, SPEECH_IDS, SPEECH_IDS)
    speak(engine, speaker, 1, segment)
    spoken = [speak(engine, speaker, streams, segment) for streams in arguments.streams]
    print(_table(spoken), "\n", flush=True)
    grown = []
    if arguments.minutes:
        for one in mixed(engine, speaker, arguments.minutes, max(arguments.streams)):
            print(json.dumps(one), flush=True)
            grown.append(one)
    engine.close()
    if arguments.json:
        results = {"decoded": decoded, "spoken": spoken}
        content = {name: [asdict(row) for row in rows] for name, rows in results.items()}
        content |= {"machine": _machine(device), "mixed": grown}
        arguments.json.write_text(json.dumps(content, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m glm_tts.bench", description=__doc__)
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--size", choices=("tiny", "full"), default="full" if on_gpu else "tiny")
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32] if on_gpu else [1, 4])
    parser.add_argument(
        "--flow",
        choices=("float32", "tf32", "bf16"),
        default="tf32",
        help="what the flow multiplies in on a GPU (default: tf32)",
    )
    parser.add_argument("--eager", action="store_true", help="without CUDA graphs")
    parser.add_argument("--minutes", type=float, default=0, help="of mixed arrivals and cancels")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
