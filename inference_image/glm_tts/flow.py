"""The flow: from speech ids to a mel, by integrating the estimator's velocity from noise.

`Flow.sample_exact` is the model as it was published, one sequence at a time. `Flow.sample` gives
the same mel within rounding, faster and for many sequences at once: what no step changes is
computed before the loop, and the estimate with and without the condition is one batch.

Sequences of a batch may differ in length. Beyond a sequence's end every convolution sees zeros,
norms over time count its own frames only and no frame attends to what is there, so that a batch
gives what each sequence would give alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_tts.dit import DiT, DiTConfig, Modulations, nearest_ids

_FIXED: Final[Mapping[str, object]] = {
    "spkr_emb_adaLN": True,
    "speech_token_cfg": False,
    "remove_spkr_concat_condition": True,
    "big_model": False,
    "use_wavlm_emb": False,
    "t_scheduler": "cosine",
}
"""Arguments of the published class that choose a model, and the one that is built here."""
_FIXED_IF_LEFT_OUT: Final[frozenset[str]] = frozenset({"big_model", "use_wavlm_emb", "t_scheduler"})
_IGNORED: Final[frozenset[str]] = frozenset(
    {"calc_prompt_mel_loss", "loss_type", "use_mdt", "spk_embed_dim"}
)
"""Arguments that matter to the training, or to models that are not built here."""


@dataclass(frozen=True)
class FlowConfig:
    """The defaults are those of the published flow."""

    estimator: DiTConfig = field(default_factory=DiTConfig)
    speech_ids_per_second: int = 25
    frames_per_second: int = 50
    ode_steps: int = 10
    guidance: float = 0.7
    """How far the velocity is pushed away from the unconditional one; 0 for not at all."""

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, object]) -> FlowConfig:
        """From the arguments of `flow:` in the checkpoint's `flow/config.yaml`.

        Raises:
            ValueError: names every argument that is missing, unknown or of another model.
        """
        faults = [*_other_model(arguments), *_missing(arguments), *_unknown(arguments)]
        if faults:
            raise ValueError("flow/config.yaml: " + "; ".join(faults))
        estimator = DiTConfig(
            mel_bins=_integer(arguments, "mel_dim", 80),
            text_dim=_integer(arguments, "speech_token_dim", 512),
            speech_vocabulary=_integer(arguments, "vocab_size", 100_000),
        )
        return cls(
            estimator=estimator,
            speech_ids_per_second=_integer(arguments, "input_frame_rate"),
            frames_per_second=_integer(arguments, "mel_framerate"),
        )

    def frames(self, speech_ids: int) -> int:
        """Frames for a number of speech ids, with the truncation of the published code.

        It divides in floating point before it multiplies, so that 29 ids, for one, are 57 frames.
        """
        return int(speech_ids / self.speech_ids_per_second * self.frames_per_second)


def _other_model(arguments: Mapping[str, object]) -> list[str]:
    return [
        f"{name} is {arguments[name]!r}, and only {wanted!r} is supported"
        for name, wanted in _FIXED.items()
        if name in arguments and arguments[name] != wanted
    ]


def _missing(arguments: Mapping[str, object]) -> list[str]:
    needed = {*_FIXED, "input_frame_rate", "mel_framerate"} - _FIXED_IF_LEFT_OUT
    return [f"{name} is missing" for name in sorted(needed - arguments.keys())]


def _unknown(arguments: Mapping[str, object]) -> list[str]:
    sizes = {"mel_dim", "speech_token_dim", "vocab_size", "input_frame_rate", "mel_framerate"}
    known = {*_FIXED, *_IGNORED, *sizes}
    return [f"{name} is unknown" for name in sorted(arguments.keys() - known)]


def _integer(arguments: Mapping[str, object], name: str, default: int | None = None) -> int:
    value = arguments.get(name, default)
    if not isinstance(value, int | float) or value != int(value) or value < 1:
        raise ValueError(f"flow/config.yaml: {name} is {value!r}, not a whole number above 0")
    return int(value)


@dataclass(frozen=True)
class EarlierPass:
    """What an earlier pass over the beginning of the same speech left, to be followed again."""

    x: Tensor
    """As `FlowResult.x`, [steps, at least `frames`, 80]."""
    frames: int
    """Of these first frames, prompt included, x is replaced before each step."""


@dataclass(frozen=True)
class FlowItem:
    """One sequence to sample."""

    speech_ids: Tensor
    """Of the prompt, then of the speech, [N]."""
    prompt_mel: Tensor
    """[P, 80]."""
    speaker: Tensor
    """Speaker embedding of any length, [192]."""
    noise: Tensor
    """Where the integration starts, [T, 80], T as `FlowConfig.frames` has it."""
    earlier: EarlierPass | None = None
    modulations: Modulations | None = None
    """Of `Flow.modulations(speaker)`, if they were kept: the same for all of a voice."""
    attention_mask: Tensor | None = None
    """True where a frame may see another one, [T, T], such as a `block_mask`; by default all."""


@dataclass(frozen=True)
class FlowResult:
    """The sampled mel of one sequence."""

    mel: Tensor
    """Without the prompt, [T - P, 80]: one frame more than expected for some prompts."""
    x: Tensor
    """Before each step, prompt included, [steps, T, 80]; for an `EarlierPass`."""


@dataclass(frozen=True)
class FlowBatch:
    """All that `Flow.integrate` reads: B sequences, padded to T frames.

    Rows of the estimator come first with the condition, then without it: 2 B in all.
    """

    noise: Tensor
    """[B, T, 80]."""
    fixed: Tensor
    """[2 B, T, D]."""
    modulations: Modulations
    """Of 2 B rows."""
    rope: Tensor
    """[T, head_dim / 2], complex."""
    frame_mask: Tensor | None
    """1 at frames, 0 beyond an end, [2 B, T, 1]; None where all sequences have T frames."""
    attention_mask: Tensor | None
    """0 or -inf, to add to the logits, [2 B, 1, T or 1, T]; None where all sees all."""
    earlier: Tensor | None
    """[steps, B, T, 80]; None where no sequence has an earlier pass."""
    overridden: Tensor | None
    """True at frames that follow the earlier pass, [B, T, 1]."""

    def copy_(self, other: FlowBatch) -> None:
        """Take over the content of a batch of the same shapes, for a captured CUDA graph."""
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            mine.copy_(theirs)

    def tensors(self) -> list[Tensor]:
        """Those that it has, in a fixed order."""
        values = [getattr(self, entry.name) for entry in fields(self)]
        flat = [self.modulations.blocks, self.modulations.out, *values]
        return [value for value in flat if isinstance(value, Tensor)]


def time_grid(steps: int) -> list[tuple[float, float]]:
    """Time and length of each Euler step: short ones near the noise, long ones near the mel.

    In float32, and with time summed up from the steps, as the published loop does.
    """
    grid = torch.linspace(0, 1, steps + 1, device="cpu")
    grid = 1 - torch.cos(grid * 0.5 * torch.pi)
    pairs, time = [], grid[0]
    for end in grid[1:]:
        length = end - time
        pairs.append((time.item(), length.item()))
        time = time + length
    return pairs


def block_mask(block_frames: Sequence[int], frames: int) -> Tensor:
    """Which columns each row of a streamed sequence may see, [T, T] of booleans.

    The sequence is cut into blocks, the last size again and again. A row sees all before its block
    and the block; rows near the block's end see up to half a block of what follows, and up to two
    thirds in long blocks.
    """
    rows = torch.arange(frames)
    visible = torch.empty(frames, dtype=torch.long)
    start, sizes = 0, list(block_frames)
    while start < frames:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        end = start + size
        ahead = size // 2 if size <= 172 else int(size / 1.5)
        inside = rows[start:end] - start
        visible[start:end] = end + (ahead - (size - 1 - inside)).clamp(min=0)
        start = end
    return rows[None, :] < visible[:, None]


def set_tf32(enabled: bool) -> None:
    """Let this process's CUDA multiply float32 with ten bits of mantissa, about 8 times faster."""
    precision = "tf32" if enabled else "ieee"
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # pyright: ignore


class Flow(nn.Module):
    """The flow of the published checkpoint, `flow/flow.pt`."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.steps = time_grid(config.ode_steps)
        self.estimator = DiT(config.estimator)
        self._unconditional: Modulations | None = None

    @torch.no_grad()
    def fuse(self, matmul_dtype: torch.dtype = torch.float32) -> None:
        """Prepare loaded weights for speed, where they are to stay: device and names are final."""
        self._unconditional = self._modulations_without_speaker()
        self.estimator.fuse(matmul_dtype)

    @torch.no_grad()
    def modulations(self, speaker: Tensor) -> Modulations:
        """What a speaker embedding [192] does at every step; about 3 MB to keep with a voice."""
        return self._modulations(F.normalize(speaker[None].float(), dim=1))

    @torch.no_grad()
    def sample_exact(self, item: FlowItem) -> FlowResult:
        """Sample one sequence as the published code does."""
        frames = self._checked_frames(item)
        ids, x = item.speech_ids, item.noise[None]
        prompt = self._prompt(item, frames)[None]
        speaker = F.normalize(item.speaker[None], dim=1)
        taken = []
        for step, (time, length) in enumerate(self.steps):
            if item.earlier is not None:
                end = self._overridden_frames(item, frames)
                x = torch.cat((item.earlier.x[step, :end][None], x[:, end:]), dim=1)
            taken.append(x)
            now = torch.tensor([time], device=x.device)
            velocities = [
                self.estimator(x, kept * prompt, ids, now, kept * speaker, item.attention_mask)
                for kept in (1, 0)
            ]
            x = x + length * self._guided(*velocities)
        return FlowResult(x[0, len(item.prompt_mel) :], torch.cat(taken))

    def sample(self, items: Sequence[FlowItem], *, frames: int | None = None) -> list[FlowResult]:
        """Sample one or more sequences at once.

        Args:
            items: at least one.
            frames: the length they are padded to; by default, that of the longest.
        """
        return self.results(items, *self.integrate(self.prepare(items, frames=frames)))

    @torch.no_grad()
    def prepare(self, items: Sequence[FlowItem], *, frames: int | None = None) -> FlowBatch:
        """All that can be known before the first step.

        With `frames` given, the batch has every tensor that any batch can have, so that batches of
        as many items and frames differ in content alone (all with attention masks, or none).
        """
        lengths = [self._checked_frames(item) for item in items]
        size = frames if frames is not None else max(lengths)
        if size < max(lengths):
            raise ValueError(f"an item has {max(lengths)} frames, and the batch only {size}")
        uniform = frames is None and min(lengths) == size
        mask = None if uniform else self._frame_mask(lengths, size)
        any_earlier = frames is not None or any(item.earlier is not None for item in items)
        earlier, overridden = self._earlier(items, lengths, size) if any_earlier else (None, None)
        return FlowBatch(
            noise=torch.stack([_padded(item.noise, size) for item in items]),
            fixed=self._fixed(items, lengths, size, mask),
            modulations=self._both_modulations(items),
            rope=self.estimator.rotary_embed(size),
            frame_mask=None if mask is None else mask.repeat(2, 1, 1),
            attention_mask=self._attention_mask(mask, items, size),
            earlier=earlier,
            overridden=overridden,
        )

    @torch.no_grad()
    def integrate(self, batch: FlowBatch) -> tuple[Tensor, Tensor]:
        """All Euler steps, of fixed shapes and without waiting for the device.

        Returns:
            x at the end, [B, T, 80], and before each step, [steps, B, T, 80].
        """
        x, taken = batch.noise, []
        for step in range(len(self.steps)):
            if batch.earlier is not None and batch.overridden is not None:
                x = torch.where(batch.overridden, batch.earlier[step], x)
            taken.append(x)
            x = self.step(x, batch, step)
        return x, torch.stack(taken)

    @torch.no_grad()
    def step(self, x: Tensor, batch: FlowBatch, step: int) -> Tensor:
        """One Euler step, [B, T, 80] -> [B, T, 80]."""
        velocities = self.estimator.estimate(
            x,
            batch.fixed,
            batch.modulations.blocks[step],
            batch.modulations.out[step],
            batch.rope,
            frame_mask=batch.frame_mask,
            attention_mask=batch.attention_mask,
        )
        conditional, unconditional = velocities.chunk(2)
        return x + self.steps[step][1] * self._guided(conditional, unconditional)

    def results(self, items: Sequence[FlowItem], end: Tensor, taken: Tensor) -> list[FlowResult]:
        """Cut what `integrate` returned for these items; the results share no memory with it."""
        results = []
        for row, item in enumerate(items):
            frames = len(item.noise)
            mel = end[row, len(item.prompt_mel) : frames].clone()
            results.append(FlowResult(mel, taken[:, row, :frames].clone()))
        return results

    def _guided(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        guidance = self.config.guidance
        return (1.0 + guidance) * conditional - guidance * unconditional

    def _checked_frames(self, item: FlowItem) -> int:
        bins = self.config.estimator.mel_bins
        frames = self.config.frames(len(item.speech_ids))
        if tuple(item.noise.shape) != (frames, bins):
            raise ValueError(
                f"noise is {list(item.noise.shape)}, and {len(item.speech_ids)} speech ids need "
                f"[{frames}, {bins}]"
            )
        return frames

    def _prompt(self, item: FlowItem, frames: int) -> Tensor:
        """The prompt's mel, then zeros, [T, 80]; of a prompt longer than all, the last frames."""
        kept = min(len(item.prompt_mel), frames)
        return _padded(item.prompt_mel[len(item.prompt_mel) - kept :], frames)

    def _fixed(
        self, items: Sequence[FlowItem], lengths: Sequence[int], size: int, mask: Tensor | None
    ) -> Tensor:
        """[2 B, T, D]: the speech ids are kept where the condition, prompt and speaker, is not."""
        ids = [
            F.pad(nearest_ids(item.speech_ids, frames), (0, size - frames))
            for item, frames in zip(items, lengths, strict=True)
        ]
        prompts = torch.stack(
            [
                _padded(self._prompt(item, frames), size)
                for item, frames in zip(items, lengths, strict=True)
            ]
        )
        text = self.estimator.text_emb_layer(torch.stack(ids), mask)  # [B, T, E]
        return self.estimator.emb_concator.fixed_part(
            torch.cat((prompts, torch.zeros_like(prompts))), text.repeat(2, 1, 1)
        )

    def _both_modulations(self, items: Sequence[FlowItem]) -> Modulations:
        conditional = [item.modulations or self.modulations(item.speaker) for item in items]
        unconditional = self._unconditional or self._modulations_without_speaker()
        return Modulations.concatenate([*conditional, *[unconditional] * len(items)])

    def _modulations_without_speaker(self) -> Modulations:
        weight = self.estimator.proj_out.weight
        return self._modulations(weight.new_zeros(1, self.config.estimator.speaker_dim))

    def _modulations(self, speakers: Tensor) -> Modulations:
        times = torch.tensor([time for time, _ in self.steps], device=speakers.device)
        return self.estimator.modulations(times, speakers)

    def _frame_mask(self, lengths: Sequence[int], size: int) -> Tensor:
        """[B, T, 1] of ones and zeros."""
        weight = self.estimator.proj_out.weight
        positions = torch.arange(size, device=weight.device)
        ends = torch.tensor(lengths, device=weight.device)
        return (positions[None, :, None] < ends[:, None, None]).to(weight.dtype)

    def _attention_mask(
        self, mask: Tensor | None, items: Sequence[FlowItem], size: int
    ) -> Tensor | None:
        """Where the estimator may look, as a number to add: [2 B, 1, T or 1, T]."""
        own = [item.attention_mask is not None for item in items]
        if mask is None and not any(own):
            return None
        weight = self.estimator.proj_out.weight
        ones = weight.new_ones(len(items), size, 1) if mask is None else mask
        allowed = ones.bool().transpose(1, 2)  # [B, 1, T] of keys
        if any(own):
            allowed = allowed.repeat(1, size, 1)
            for row, item in enumerate(items):
                if item.attention_mask is not None:
                    length = len(item.attention_mask)
                    allowed[row, :length, :length] &= item.attention_mask.to(weight.device)
        added = torch.zeros_like(allowed, dtype=self.estimator.matmul_dtype)
        return added.masked_fill_(~allowed, -math.inf)[:, None].repeat(2, 1, 1, 1)

    def _earlier(
        self, items: Sequence[FlowItem], lengths: Sequence[int], size: int
    ) -> tuple[Tensor, Tensor]:
        """[steps, B, T, 80] and [B, T, 1]: what x is replaced by, and where."""
        steps, rows = len(self.steps), len(items)
        noise = items[0].noise
        earlier = noise.new_zeros(steps, rows, size, noise.shape[1])
        kept = [self._overridden_frames(*pair) for pair in zip(items, lengths, strict=True)]
        for row, item in enumerate(items):
            if item.earlier is not None:
                earlier[:, row, : kept[row]] = item.earlier.x[:, : kept[row]]
        positions = torch.arange(size, device=noise.device)
        ends = torch.tensor(kept, device=noise.device)
        return earlier, positions[None, :, None] < ends[:, None, None]

    def _overridden_frames(self, item: FlowItem, frames: int) -> int:
        if item.earlier is None:
            return 0
        return max(0, min(item.earlier.frames, item.earlier.x.shape[1], frames))


def _padded(x: Tensor, frames: int) -> Tensor:
    """[t, C] -> [T, C], zeros at the end."""
    return F.pad(x, (0, 0, 0, frames - len(x)))
