"""HiFT: its parameters, its source, its STFT, and the whole against the literal version."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_tts.hift import HiFT, HiFTConfig, ResBlock, ShortTimeFourier, Snake
from glm_tts.vocoder import Vocoder
from inference_image.tests.glm_tts import literal_hift
from inference_image.tests.glm_tts.test_dit import Operations, close, random

SMALL = HiFTConfig(channels=32, pitch_channels=16)
TOLERANCE = 1e-5
SCALE = 480


def randomise(model: HiFT, seed: int = 0) -> None:
    """Give every parameter a value at which nothing saturates, and pitches both voiced and not."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        value = torch.randn(parameter.shape, generator=generator)
        if name.endswith("original0"):  # gains of the weight norm
            value = 0.4 + 0.3 * value.abs()
        elif "alpha" in name:
            value = 0.5 + value.abs()
        elif name.endswith("bias"):
            value = 0.1 * value
        elif name.endswith("weight"):
            value = value / math.sqrt(parameter[0].numel())
        parameter.data = value
        parameter.requires_grad_(False)
    model.conv_post.get_parameter("bias").data[:9] -= 1.5  # of the logarithms
    model.f0_predictor.classifier.weight.data *= 100


def make_model() -> HiFT:
    model = HiFT(SMALL)
    randomise(model)
    return model


MODEL = make_model()
FOLDED = make_model()
FOLDED.fold()
STATE = dict(MODEL.state_dict())


def mel_of(frames: int, seed: int = 1) -> torch.Tensor:
    return random(1, frames, 80, seed=seed)


def specified_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dict, written out from its specification."""
    shapes: dict[str, tuple[int, ...]] = {}

    def plain(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, weight[:1]

    def normed(name: str, *weight: int, bias: int | None = None) -> None:
        shapes[f"{name}.bias"] = (bias or weight[0],)
        shapes[f"{name}.parametrizations.weight.original0"] = (weight[0], 1, 1)
        shapes[f"{name}.parametrizations.weight.original1"] = weight

    def resblock(name: str, channels: int, kernel: int) -> None:
        for n in range(3):
            normed(f"{name}.convs1.{n}", channels, channels, kernel)
            normed(f"{name}.convs2.{n}", channels, channels, kernel)
            shapes[f"{name}.activations1.{n}.alpha"] = (channels,)
            shapes[f"{name}.activations2.{n}.alpha"] = (channels,)

    for n in range(5):
        normed(f"f0_predictor.condnet.{2 * n}", 512, 512 if n else 80, 3)
    plain("f0_predictor.classifier", 1, 512)
    plain("m_source.l_linear", 1, 9)
    normed("conv_pre", 512, 80, 7)
    for n, (kernel, down, source_kernel) in enumerate(((16, 30, 7), (11, 6, 7), (7, 1, 11))):
        inputs, outputs = 512 // 2**n, 256 // 2**n
        normed(f"ups.{n}", inputs, outputs, kernel, bias=outputs)
        plain(f"source_downs.{n}", outputs, 18, down)
        resblock(f"source_resblocks.{n}", outputs, source_kernel)
        for j, kernel in enumerate((3, 7, 11)):
            resblock(f"resblocks.{3 * n + j}", outputs, kernel)
    normed("conv_post", 18, 64, 7)
    return shapes


def test_the_published_sizes_have_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        model = HiFT()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes == specified_shapes()
    assert len(shapes) == 328
    assert sum(math.prod(shape) for shape in shapes.values()) == pytest.approx(20.8e6, abs=5e4)
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    model.load_state_dict(state, strict=True, assign=True)


def folded_weight(name: str) -> torch.Tensor:
    return FOLDED.state_dict()[f"{name}.weight"]


def test_folding_keeps_the_weights_and_loses_the_names() -> None:
    names = set(FOLDED.state_dict())
    assert not any("parametrizations" in name for name in names)
    for name in ("conv_pre", "ups.1", "resblocks.4.convs2.1", "f0_predictor.condnet.6"):
        assert close(folded_weight(name), literal_hift.weight_of(STATE, name))


def test_the_norm_of_a_weight_is_over_all_but_its_first_dimension() -> None:
    """Also of the transposed convolutions, whose first dimension is that of the inputs."""
    weight = folded_weight("ups.0")
    gains = STATE["ups.0.parametrizations.weight.original0"].flatten()
    assert close(weight.flatten(1).norm(dim=1), gains)
    assert weight.shape[0] == SMALL.channels


def test_a_model_built_without_weights_works_once_they_are_assigned() -> None:
    with torch.device("meta"):
        model = HiFT(SMALL)
    model.load_state_dict(STATE, strict=True, assign=True)
    mel, source = mel_of(2), 0.3 * random(1, SCALE * 2)
    assert torch.equal(model.decode(mel, source), MODEL.decode(mel, source))


def test_snake_adds_a_squared_sine_over_alpha() -> None:
    snake = Snake(5)
    snake.alpha.data = random(5).abs() + 0.2
    x = random(1, 5, 7)
    a = snake.alpha.detach().double().numpy()[:, None]
    expected = x.double().numpy() + np.sin(a * x.double().numpy()) ** 2 / (a + 1e-9)
    with torch.no_grad():
        assert close(snake(x), torch.from_numpy(expected).float())
        snake.fold()
        assert close(snake(x), torch.from_numpy(expected).float())
        assert torch.equal(snake(torch.zeros(1, 5, 2)), torch.zeros(1, 5, 2))


def test_a_residual_block_is_that_of_the_literal_version() -> None:
    x = random(1, 16, 40)
    expected = literal_hift.resblock(STATE, "resblocks.2", x)
    block = MODEL.resblocks[2]
    assert isinstance(block, ResBlock)
    with torch.no_grad():
        assert close(block(x, None), expected)


def test_the_pitch_is_that_of_the_literal_version_and_positive() -> None:
    mel = mel_of(30).transpose(1, 2)
    hertz = MODEL.f0_predictor(mel, None)
    assert close(hertz, literal_hift.pitch(STATE, mel), 1e-3)  # of hundreds of Hz
    voiced = hertz > SMALL.voiced_above_hz
    assert voiced.any()
    assert not voiced.all()


@pytest.mark.parametrize("frames", [1, 2, 49, 700])
def test_the_source_is_that_of_the_literal_version_with_the_same_seed(frames: int) -> None:
    hertz = random(2, frames).abs() * 150
    torch.manual_seed(7)
    expected = literal_hift.source(STATE, hertz)
    afterwards = torch.rand(1)
    torch.manual_seed(7)
    noise = MODEL.m_source.draw_noise(2, SCALE * frames)
    assert torch.equal(torch.rand(1), afterwards)
    assert close(MODEL.m_source(hertz, noise), expected)


def test_noise_drawn_in_any_other_order_is_other_noise() -> None:
    torch.manual_seed(7)
    without_initial_phases = torch.randn_like(torch.empty(1, 9, SCALE).transpose(1, 2))
    torch.manual_seed(7)
    torch.rand(1, 9)
    one_sample_after_the_other = torch.randn(1, SCALE, 9)
    torch.manual_seed(7)
    noise = MODEL.m_source.draw_noise(1, SCALE)
    assert not torch.equal(noise, without_initial_phases)
    assert not torch.equal(noise, one_sample_after_the_other)
    generator = torch.Generator().manual_seed(7)
    assert torch.equal(MODEL.m_source.draw_noise(1, SCALE, generator), noise)


def phases_in_numpy(hertz: np.ndarray, between_frames: bool) -> np.ndarray:
    """The fundamental's phase, [L]: stretched linearly from frames' middles, or by repetition."""
    ends = np.cumsum(hertz / 24000 % 1) * 2 * np.pi * SCALE
    if not between_frames:
        return np.repeat(ends, SCALE)
    middles = (np.arange(len(hertz)) + 0.5) * SCALE - 0.5
    return np.interp(np.arange(len(hertz) * SCALE), middles, ends)


def test_phases_are_summed_over_frames_and_stretched_linearly() -> None:
    hertz = torch.tensor([[120.0, 121.0, 180.0, 90.0, 5.0, 100.0]])
    phase = MODEL.m_source.phases(hertz)[0, 0].double().numpy()
    expected = phases_in_numpy(hertz[0].double().numpy(), between_frames=True)
    assert np.abs(phase - expected).max() < 1e-3  # radians, of up to 75 in float32
    repeated = phases_in_numpy(hertz[0].double().numpy(), between_frames=False)
    assert np.abs(phase - repeated).max() > 1
    summed_over_samples = np.cumsum(np.repeat(hertz[0].double().numpy(), SCALE) / 24000) * 2 * np.pi
    assert np.abs(np.sin(phase) - np.sin(summed_over_samples)).max() > 0.5


def test_the_pitch_is_repeated_to_samples_and_not_drawn_out_to_lines() -> None:
    """A frame is voiced or not as a whole: the noise changes at its edge and nowhere else."""
    hertz = torch.tensor([[100.0, 0.0, 100.0]])
    noise = torch.ones(1, 3 * SCALE, 9)
    linear = MODEL.m_source.l_linear
    loud = torch.tanh(linear(torch.full((9,), 0.1 / 3))).item()
    unvoiced = MODEL.m_source(hertz, noise)[0]
    assert close(unvoiced[SCALE : 2 * SCALE], torch.full((SCALE,), loud))
    drawn_out = F.interpolate(hertz[None], scale_factor=SCALE, mode="linear")[0, 0] > 10
    assert int((~drawn_out).sum()) != SCALE
    assert abs(unvoiced[SCALE - 1].item() - loud) > 1e-4


def test_the_stft_equals_torchs_with_centred_reflected_frames() -> None:
    fourier = ShortTimeFourier(SMALL)
    audio = random(2, 960)
    window = torch.hann_window(16)
    expected = torch.stft(audio, 16, 4, 16, window=window, return_complex=True)
    expected = torch.cat((expected.real, expected.imag), dim=1)
    assert close(fourier(audio, None), expected)
    spectrum = torch.complex(random(2, 9, 241), random(2, 9, 241, seed=2))
    joined = torch.cat((spectrum.real, spectrum.imag), dim=1)
    inverse = torch.istft(spectrum, 16, 4, 16, window=window)
    assert close(fourier.inverse(joined, None), inverse)
    assert close(fourier.inverse(fourier(audio, None), None), audio)


def test_stfts_of_a_batch_end_where_each_row_ends() -> None:
    fourier = ShortTimeFourier(SMALL)
    audio = random(3, 960)
    lengths = torch.tensor([480, 960, 16])
    spectrum = fourier(audio, lengths)
    inverse = fourier.inverse(spectrum + 0.5, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = fourier(audio[row : row + 1, :length], None)
        assert close(spectrum[row : row + 1, :, : length // 4 + 1], alone)
        assert not spectrum[row, :, length // 4 + 1 :].any()
        assert close(inverse[row : row + 1, :length], fourier.inverse(alone + 0.5, None))
        assert not inverse[row, length:].any()


@pytest.mark.parametrize("model", [MODEL, FOLDED], ids=["as loaded", "folded"])
@pytest.mark.parametrize("frames", [1, 2, 13])
def test_audio_of_a_given_source_is_that_of_the_literal_version(model: HiFT, frames: int) -> None:
    mel, source = mel_of(frames), 0.3 * random(1, SCALE * frames)
    expected = literal_hift.decode(STATE, mel.transpose(1, 2), source)
    audio = model.decode(mel, source)
    assert audio.shape == (1, SCALE * frames)
    assert close(audio, expected, TOLERANCE)
    assert 0.02 < expected.std() < 0.9
    assert (expected.abs() < 0.99).float().mean() > 0.9  # little of it is clamped


def test_whole_audio_is_that_of_the_literal_version_with_the_same_seed() -> None:
    mel = random(2, 9, 80)
    torch.manual_seed(11)
    expected = literal_hift.vocode(STATE, mel.transpose(1, 2))
    torch.manual_seed(11)
    assert close(FOLDED(mel), expected, 1e-4)  # pitches differ in the last digit, phases add up
    assert close(FOLDED(mel, generator=torch.Generator().manual_seed(11)), expected, 1e-4)


@settings(max_examples=12, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4), spare=st.integers(0, 3))
def test_a_batch_gives_what_each_of_its_rows_gives_alone(lengths: list[int], spare: int) -> None:
    frames = max(lengths) + spare
    mel = random(len(lengths), frames, 80, seed=sum(lengths))
    noise = random(len(lengths), SCALE * frames, 9, seed=3)
    ends = torch.tensor(lengths)
    source = FOLDED.source(mel, noise, ends)
    audio = FOLDED.decode(mel, source, ends)
    assert audio.shape == (len(lengths), SCALE * frames)
    for row, length in enumerate(lengths):
        mine = slice(row, row + 1)
        alone = FOLDED.source(mel[mine, :length], noise[mine, : SCALE * length])
        assert close(source[mine, : SCALE * length], alone, 1e-4)
        expected = FOLDED.decode(mel[mine, :length], source[mine, : SCALE * length])
        assert close(audio[mine, : SCALE * length], expected, TOLERANCE)
        assert not audio[row, SCALE * length :].any()


def test_a_batch_without_lengths_would_change_the_shorter_row() -> None:
    mel, source = random(1, 9, 80), 0.3 * random(1, SCALE * 9)
    alone = FOLDED.decode(mel[:, :5], source[:, : SCALE * 5])
    unmasked = FOLDED.decode(mel, source)[:, : SCALE * 5]
    assert not close(unmasked, alone, 1e-2)


def test_vocoding_takes_the_same_operations_for_any_lengths_and_never_waits() -> None:
    mel, noise = random(2, 5, 80), random(2, SCALE * 5, 9)
    seen = []
    for lengths in (torch.tensor([5, 2]), torch.tensor([1, 4])):
        with Operations() as operations:
            FOLDED.decode(mel, FOLDED.source(mel, noise, lengths), lengths)
        assert operations.waits() == []
        seen.append(operations.seen)
    assert len(seen[0]) > 100
    assert seen[0] == seen[1]


def test_the_source_of_a_mel_that_grows_goes_on_without_a_jump() -> None:
    """But for the last frames of the shorter one, whose pitch depends on what follows."""
    mel, noise = mel_of(12), random(1, SCALE * 12, 9)
    short = FOLDED.source(mel[:, :9], noise[:, : SCALE * 9])
    whole = FOLDED.source(mel, noise)
    known = SCALE * (9 - 5 - 1)
    assert close(short[:, :known], whole[:, :known], 1e-5)


def test_it_is_a_vocoder_of_24_khz() -> None:
    vocoder: Vocoder = FOLDED
    assert (vocoder.sample_rate_hz, vocoder.samples_per_frame) == (24_000, 480)
    audio = vocoder(random(2, 4, 80), torch.tensor([4, 2]))
    assert audio.shape == (2, 1920)
    assert not audio[1, 960:].any()
    assert audio.abs().max() <= 0.99
