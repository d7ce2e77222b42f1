"""`python -m glm_tts.convert`: a bundle, which loads fast, of a published checkpoint.

A bundle is one file of tensors, in the order in which an engine that starts needs them, one of
configurations, the files that are used as they are, and `SHA256SUMS`, to which
`voicemesh models publish` holds them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from glm_tts import tensor_file
from glm_tts.checkpoint import (
    BUNDLE,
    BUNDLE_FORMAT,
    BUNDLE_WEIGHTS,
    CONFIGS,
    MANIFEST,
    PARTS,
    Checkpoint,
    CheckpointError,
    Fault,
    Spec,
    converted,
    open_checkpoint,
    sha256,
)

FILE_FOLDERS: Final = ("vq32k-phoneme-tokenizer", "vocos2d", "frontend", "configs", "voices")
"""Folders whose files are used as they are; the last one is the server's."""


def convert(source: Path, target: Path, llm_dtype: torch.dtype | None = torch.bfloat16) -> str:
    """Makes a bundle of a published checkpoint, and returns the digest of its `SHA256SUMS`.

    Args:
        target: folder to write; it is there when all of it is, and not before.
        llm_dtype: type in which the language model's weights are kept; None: as published.

    Raises:
        CheckpointError: with all that is missing or damaged.
        FileExistsError: the target is there already.
    """
    if target.exists():
        raise FileExistsError(f"{target} is there already; give a folder that is not")
    checkpoint = open_checkpoint(source)
    configs, layouts = _survey(checkpoint)
    unfinished = target.with_name(f".{target.name}.incomplete")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        _write_weights(checkpoint, layouts, llm_dtype, unfinished / BUNDLE_WEIGHTS)
        content = {"format": BUNDLE_FORMAT, "configs": configs}
        (unfinished / BUNDLE).write_text(json.dumps(content, indent=1), encoding="utf-8")
        for name in _files(source):
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, unfinished / name)
        digest = write_manifest(unfinished)
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return digest


def _survey(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, dict[str, Spec]]]:
    """All configurations and layouts; all that is wrong with them at once."""
    faults: dict[Fault, None] = {}  # a set that keeps its order
    configs, layouts = {}, {}
    for ask, names, answers in (
        (checkpoint.config, CONFIGS, configs),
        (checkpoint.layout, PARTS, layouts),
    ):
        for name in names:
            try:
                answers[name] = ask(name)
            except CheckpointError as error:
                faults |= dict.fromkeys(error.faults)
    if faults:
        raise CheckpointError(faults)
    return configs, layouts


def _write_weights(
    checkpoint: Checkpoint,
    layouts: Mapping[str, Mapping[str, Spec]],
    llm_dtype: torch.dtype | None,
    path: Path,
) -> None:
    kept = {part: llm_dtype if part == "llm" else None for part in PARTS}
    layout = [
        (f"{part}/{name}", converted(torch.empty(0, dtype=dtype), kept[part]).dtype, shape)
        for part in PARTS
        for name, (dtype, shape) in layouts[part].items()
    ]
    tensors = (
        converted(tensor, kept[part]) for part in PARTS for _, tensor in checkpoint.stream(part)
    )
    tensor_file.write(path, layout, tensors)


def _files(source: Path) -> list[str]:
    """Files that are used as they are. Programs in Python and pickles are not."""
    found = [path for folder in FILE_FOLDERS for path in (source / folder).rglob("*")]
    found += source.glob("LICENSE*")
    names = [path.relative_to(source).as_posix() for path in found if path.is_file()]
    return sorted(name for name in names if not name.endswith((".py", ".pyc", ".pt")))


def write_manifest(folder: Path) -> str:
    """Writes `SHA256SUMS` of all files of a folder, as `sha256sum` does; returns its own digest."""
    names = sorted(it.relative_to(folder).as_posix() for it in folder.rglob("*") if it.is_file())
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names if name != MANIFEST]
    content = "".join(lines).encode()
    (folder / MANIFEST).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m glm_tts.convert`: converts a checkpoint; the process's exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m glm_tts.convert", description="Make a bundle of a published checkpoint."
    )
    parser.add_argument("source", type=Path, help="folder with the published checkpoint")
    parser.add_argument("target", type=Path, help="folder to write the bundle to")
    parser.add_argument(
        "--llm-dtype",
        choices=["bfloat16", "float32"],
        default="bfloat16",
        help="type in which the language model's weights are kept",
    )
    args = parser.parse_args(arguments)
    try:
        digest = convert(args.source, args.target, getattr(torch, args.llm_dtype))
    except (CheckpointError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    size = (args.target / BUNDLE_WEIGHTS).stat().st_size
    print(f"{size / 2**30:.3f} GiB of weights in {args.target}; {MANIFEST} has {digest}")
    print(
        f"next: voicemesh models publish {args.target} s3://BUCKET/models/NAME/VERSION/ --license …"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
