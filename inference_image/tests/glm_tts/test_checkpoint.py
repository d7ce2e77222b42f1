"""A checkpoint in the published layout loads whole, or says all that is wrong with it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import pickle
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import LlamaConfig as PublishedLlamaConfig
from transformers import LlamaForCausalLM

from glm_tts import checkpoint as module
from glm_tts.checkpoint import (
    FLOW_ARGUMENTS,
    Bundle,
    CheckpointError,
    Published,
    check,
    layout_of,
    llm_layout,
    load_module,
    open_checkpoint,
)
from glm_tts.convert import convert, main
from glm_tts.flow import Flow, FlowConfig
from glm_tts.hift import HiFT
from glm_tts.llama import KeyValueCache, Llama, LlamaConfig, fused
from glm_tts.speech_tokenizer import SpeechTokenizer, SpeechTokenizerConfig
from speech_server.contract import WEIGHTS_MANIFEST
from speech_server.weights import parse_manifest

LLAMA = LlamaConfig(32, 2, 4, 2, 8, 48, 101)
SPEECH = SpeechTokenizerConfig(hidden=16, heads=2, ffn=24, layers=2, pooling_layer=2, codes=11)
SPEECH_JSON = {
    "num_mel_bins": 128,
    "d_model": 16,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "max_source_positions": 1500,
    "quantize_position": 2,
    "pooling_position": 2,
    "pooling_kernel_size": 2,
    "quantize_vocab_size": 11,
}
FLOW_YAML = """
seed: 7
flow: !new:flow.flow.Flow
  spkr_emb_adaLN: True
  speech_token_cfg: False
  remove_spkr_concat_condition: True
  mel_dim: 80
  mel_framerate: 50
  input_frame_rate: 25
"""


class Part(nn.Module):
    """Stands for a flow or a vocoder: it has a buffer that is not in the checkpoint."""

    table: Tensor
    count: Tensor

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(size, 2)
        self.norm = nn.LayerNorm(2)
        self.register_buffer("table", torch.arange(4.0), persistent=False)
        self.register_buffer("count", torch.tensor(5))


def randomised(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def published_llama(*, tied: bool = True) -> LlamaForCausalLM:
    config = PublishedLlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        vocab_size=101,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config)
    randomised(model)
    return model


@pytest.fixture(scope="module")
def parts() -> dict[str, nn.Module]:
    return {
        "llm": published_llama(),
        "speech_tokenizer": randomised(SpeechTokenizer(SPEECH)),
        "flow": randomised(Part()),
        "hift": randomised(Part(5)),
    }


@pytest.fixture
def folder(tmp_path: Path, parts: dict[str, nn.Module]) -> Path:
    """A tiny checkpoint in the published layout."""
    folder = tmp_path / "published"
    for name in ("llm", "speech_tokenizer", "flow", "hift", "frontend", "vocos2d", "configs"):
        (folder / name).mkdir(parents=True)
    parts["llm"].save_pretrained(folder / "llm", max_shard_size="20KB")  # type: ignore[operator]
    write_json(folder / "speech_tokenizer/config.json", SPEECH_JSON)
    write_json(folder / "speech_tokenizer/preprocessor_config.json", {"feature_size": 128})
    speech = {f"model.encoder.{name}": it for name, it in state(parts["speech_tokenizer"]).items()}
    speech |= {
        "model.encoder.layer_norm.weight": torch.ones(16),
        "model.encoder.layers.2.fc1.weight": torch.ones(24, 16),
        "model.encoder.embed_positions2.weight": torch.ones(750, 16),
        "model.decoder.layers.0.fc1.weight": torch.ones(24, 16),
    }
    safetensors.torch.save_file(speech, folder / "speech_tokenizer/model.safetensors")
    torch.save({"model": state(parts["flow"])}, folder / "flow/flow.pt")
    (folder / "flow/config.yaml").write_text(FLOW_YAML)
    torch.save(state(parts["hift"]), folder / "hift/hift.pt")
    tokenizer = folder / "vq32k-phoneme-tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.model").write_bytes(base64.b64encode(b"a") + b" 0\n")
    (tokenizer / "tokenization_chatglm.py").write_text("raise SystemExit")
    (folder / "frontend/campplus.onnx").write_bytes(b"graph")
    (folder / "frontend/spk2info.pt").write_bytes(b"pickle")
    (folder / "vocos2d/generator_jit.ckpt").write_bytes(b"program")
    (folder / "voices").mkdir()
    (folder / "voices/ming.wav").write_bytes(b"clip")
    (folder / "LICENSE").write_text("as you like")
    return folder


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: it.clone() for name, it in model.state_dict().items()}


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def expected_layouts() -> dict[str, dict[str, module.Spec]]:
    return {
        "llm": llm_layout(LLAMA),
        "speech_tokenizer": layout_of(lambda: SpeechTokenizer(SPEECH), "config.json"),
        "flow": layout_of(Part, "config.json"),
        "hift": layout_of(lambda: Part(5), "config.json"),
    }


FILES = ("frontend/campplus.onnx", "vocos2d/generator_jit.ckpt")


def faults_of(folder: Path, files: tuple[str, ...] = FILES) -> list[str]:
    try:
        check(open_checkpoint(folder), expected_layouts(), files)
    except CheckpointError as error:
        return str(error).splitlines()
    return []


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=0, rtol=0)


# Reading the published layout


def test_every_part_is_read_under_the_names_of_its_module(
    folder: Path, parts: dict[str, nn.Module]
) -> None:
    checkpoint = open_checkpoint(folder)
    assert isinstance(checkpoint, Published)
    assert faults_of(folder) == []
    for part, model in parts.items():
        tensors = state(model)
        if part == "llm":
            tensors.pop("lm_head.weight")  # tied
        assert_same(checkpoint.tensors(part), tensors)
        layout = {name: (it.dtype, tuple(it.shape)) for name, it in tensors.items()}
        assert checkpoint.layout(part) == layout
    assert len(list((folder / "llm").glob("model-*.safetensors"))) > 2, "in several shards"


def test_the_layout_of_the_language_model_are_those_of_transformers() -> None:
    for tied in (True, False):
        published = published_llama(tied=tied).state_dict()
        theirs = {name: (it.dtype, tuple(it.shape)) for name, it in published.items()}
        if tied:
            theirs.pop("lm_head.weight")
        config = LlamaConfig(32, 2, 4, 2, 8, 48, 101, tied_head=tied)
        assert llm_layout(config) == theirs
        assert sum(math.prod(shape) for _, shape in theirs.values()) == config.parameters


def test_a_tied_head_that_is_there_all_the_same_is_no_fault(folder: Path) -> None:
    name = next((folder / "llm").glob("model-00001-*")).name
    tensors = safetensors.torch.load_file(folder / "llm" / name)
    tensors |= {"lm_head.weight": torch.zeros(101, 32)}
    tensors |= {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}
    safetensors.torch.save_file(tensors, folder / "llm" / name)
    index = json.loads((folder / "llm/model.safetensors.index.json").read_text())
    index["weight_map"] |= dict.fromkeys(tensors, name)
    write_json(folder / "llm/model.safetensors.index.json", index)
    assert faults_of(folder) == []


def test_one_file_without_an_index_will_do(folder: Path, parts: dict[str, nn.Module]) -> None:
    for path in (folder / "llm").glob("model*"):
        path.unlink()
    parts["llm"].save_pretrained(folder / "llm")  # type: ignore[operator]
    assert not (folder / "llm/model.safetensors.index.json").exists()
    assert faults_of(folder) == []


def test_a_state_dict_may_be_wrapped_or_not(folder: Path, parts: dict[str, nn.Module]) -> None:
    wrapped = open_checkpoint(folder).tensors("flow")
    torch.save(state(parts["flow"]), folder / "flow/flow.pt")
    assert_same(open_checkpoint(folder).tensors("flow"), wrapped)


def test_the_oldest_format_of_pickles_is_read(folder: Path, parts: dict[str, nn.Module]) -> None:
    torch.save(state(parts["hift"]), folder / "hift/hift.pt", _use_new_zipfile_serialization=False)
    assert faults_of(folder) == []
    assert_same(open_checkpoint(folder).tensors("hift"), state(parts["hift"]))


@pytest.mark.parametrize("bundled", [False, True])
def test_the_models_own_modules_are_assembled(
    folder: Path, tmp_path: Path, parts: dict[str, nn.Module], *, bundled: bool
) -> None:
    if bundled:
        convert(folder, tmp_path / "bundle", None)
    checkpoint = open_checkpoint(tmp_path / "bundle" if bundled else folder)
    llama = LlamaConfig.from_hf(checkpoint.config("llm/config.json"))
    assert llm_layout(llama) == llm_layout(LLAMA)
    weights = fused(checkpoint.tensors("llm"), llama)
    made = load_module(lambda: Llama(llama), weights, checkpoint.weights_file("llm"))
    ids = torch.tensor([3, 1, 4, 1, 5])
    expected = parts["llm"](ids[None]).logits[:, -1]
    prefilled = made.prefill(ids, KeyValueCache(llama, 1, 8), 0)
    torch.testing.assert_close(made.head(prefilled), expected, atol=1e-4, rtol=1e-5)

    speech = SpeechTokenizerConfig.from_files(
        checkpoint.config("speech_tokenizer/config.json"),
        checkpoint.config("speech_tokenizer/preprocessor_config.json"),
    )
    tokenizer = load_module(
        lambda: SpeechTokenizer(speech),
        checkpoint.tensors("speech_tokenizer"),
        checkpoint.weights_file("speech_tokenizer"),
    )
    clip = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    original = parts["speech_tokenizer"]
    assert torch.equal(tokenizer.encode(clip), original.encode(clip))  # type: ignore[operator]


def test_flow_and_vocoder_have_the_published_numbers_of_tensors() -> None:
    config = FlowConfig.from_arguments(FLOW_ARGUMENTS)
    flow, vocoder = (layout_of(make, "config.json") for make in (lambda: Flow(config), HiFT))
    assert (len(flow), len(vocoder)) == (308, 328)
    assert all(name.startswith("estimator.") for name in flow)
    assert "conv_pre.parametrizations.weight.original0" in vocoder


# Configuration


def test_the_flow_is_configured_by_its_yaml_without_constructing_anything(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config("flow/config.yaml") == FLOW_ARGUMENTS
    other = FLOW_YAML.replace("mel_dim: 80", "mel_dim: 100").replace(
        "seed: 7", "opt: !!python/object/apply:os.abort []\nmade: !apply:os.abort [1]\nat: !ref <a>"
    )
    (folder / "flow/config.yaml").write_text(other)
    assert checkpoint.config("flow/config.yaml") == {**FLOW_ARGUMENTS, "mel_dim": 100}


@pytest.mark.parametrize(
    "content", [None, "", "{}", "flow:", "flow: !new:flow.flow.Flow {}", "- 1"]
)
def test_a_flow_that_nothing_is_said_of_is_the_published_one(
    folder: Path, content: str | None
) -> None:
    (folder / "flow/config.yaml").unlink()
    if content is not None:
        (folder / "flow/config.yaml").write_text(content)
    assert open_checkpoint(folder).config("flow/config.yaml") == FLOW_ARGUMENTS


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("flow/config.yaml", b"flow: [", "is not YAML"),
        ("flow/config.yaml", b"[" * 5000, "is not YAML"),
        ("flow/config.yaml", b"flow: &a\n  b: *a", "is not YAML"),
        ("flow/config.yaml", b"flow: {mel_dim: 2025-01-01}", "is not YAML"),
        ("flow/config.yaml", b"\xff", "is not text"),
        ("llm/config.json", b"{", "is not JSON"),
        ("llm/config.json", b"[]", "is not a JSON object"),
        ("llm/config.json", b" " * 2**20 + b"{}", "is larger than 1048576 bytes"),
    ],
)
def test_a_damaged_configuration_is_named(
    folder: Path, file: str, content: bytes, problem: str
) -> None:
    open_checkpoint(folder).config(file)
    (folder / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{file}: {problem}"):
        open_checkpoint(folder).config(file)


# What is wrong


def test_everything_that_is_wrong_is_said_at_once(folder: Path) -> None:
    (folder / "frontend/campplus.onnx").unlink()
    (folder / "hift/hift.pt").unlink()
    shard = next((folder / "llm").glob("model-00002-*"))
    shard.unlink()
    torch.save({**state(Part(4)), "extra": torch.ones(1, 2)}, folder / "flow/flow.pt")
    again = "fetch it again from where the model is published"
    release = "take weights and configuration from the same release"
    assert faults_of(folder) == [
        "frontend/campplus.onnx: is not there; copy it from the model's source repository, which "
        "has it beside the code",
        f"llm/{shard.name}: is not there; {again}",
        "flow/flow.pt: linear.weight is [2, 4], the configuration makes it [2, 3]; " + release,
        "flow/flow.pt: extra [1, 2] is unexpected; " + release,
        f"hift/hift.pt: is not there; {again}",
    ]


def damage_index(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    path = folder / "llm/model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    write_json(path, index)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda map_: map_.update({"model.norm.bias": map_["model.norm.weight"]}),
            r"model-.*: model\.norm\.bias is said by the index to be here and is not",
        ),
        (
            lambda map_: map_.pop("model.norm.weight"),
            r"model-.*: model\.norm\.weight is not said by the index to be here",
        ),
        (
            lambda map_: map_.update({"model.norm.weight": "../../elsewhere"}),
            r"index\.json: does not say in which files tensors are \['../../elsewhere'\]",
        ),
        (lambda map_: map_.clear(), r"index\.json: does not say in which files tensors are"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(
    folder: Path, change: Callable[[dict[str, str]], None], message: str
) -> None:
    damage_index(folder, change)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder).tensors("llm")


class Program:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a checkpoint's code was run",))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"model": {"linear.weight": Program()}}, "is damaged, or holds more than tensors"),
        ({"model": {"linear.weight": [1.0]}}, "is not a dictionary of tensors"),
        ([torch.ones(1)], "is not a dictionary of tensors"),
        (None, "is damaged, or holds more than tensors"),
    ],
)
def test_a_pickle_with_anything_but_tensors_is_refused(
    folder: Path, content: object, problem: str
) -> None:
    if content is None:
        (folder / "flow/flow.pt").write_bytes((folder / "flow/flow.pt").read_bytes()[:500])
    else:
        torch.save(content, folder / "flow/flow.pt")
    for read in ("tensors", "layout"):
        with pytest.raises(CheckpointError, match=f"flow/flow.pt: {problem}"):
            getattr(open_checkpoint(folder), read)("flow")


def test_quantised_weights_are_refused(folder: Path, parts: dict[str, nn.Module]) -> None:
    weights = state(parts["flow"])
    weights["linear.weight"] = weights["linear.weight"].to(torch.int8)
    torch.save(weights, folder / "flow/flow.pt")
    problem = "flow/flow.pt: linear.weight is of torch.int8, not of torch.float32 or alike; "
    assert faults_of(folder) == [problem + "take a checkpoint that is not quantised"]


def test_an_old_pickle_is_refused_too(folder: Path) -> None:
    (folder / "flow/flow.pt").write_bytes(pickle.dumps(Program(), protocol=2))
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        open_checkpoint(folder).tensors("flow")


def test_a_shard_that_was_cut_off_is_named(folder: Path) -> None:
    path = folder / "speech_tokenizer/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    (fault,) = faults_of(folder)
    assert fault.startswith("speech_tokenizer/model.safetensors: is damaged (")


def test_a_speech_tokenizer_that_is_built_otherwise_is_refused(folder: Path) -> None:
    write_json(folder / "speech_tokenizer/config.json", SPEECH_JSON | {"pooling_type": "max"})
    (fault,) = faults_of(folder)
    assert "pooling_type is 'max', only 'avg' is built here" in fault


def test_a_folder_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        open_checkpoint(tmp_path / "nowhere")


def test_of_many_faults_the_first_are_shown_and_all_are_kept() -> None:
    fault = module.Fault("file", "is wrong", "mend it", "tensor")
    error = CheckpointError([fault] * 50)
    assert len(error.faults) == 50
    assert str(error).splitlines()[-2:] == ["file: tensor is wrong; mend it", "… and 30 more"]


# Assembling


def test_a_module_is_made_of_the_tensors_and_keeps_what_it_computes_itself() -> None:
    weights = state(randomised(Part()))
    made = load_module(Part, weights, "flow.pt")
    assert_same(state(made), weights)
    assert torch.equal(made.table, torch.arange(4.0))
    assert not made.training
    assert not any(it.requires_grad for it in made.parameters())
    assert made.linear.weight.data_ptr() == weights["linear.weight"].data_ptr(), "not copied"


def test_floating_point_tensors_become_what_is_asked_for() -> None:
    weights = {
        name: it.half() if it.is_floating_point() else it for name, it in state(Part()).items()
    }
    assert load_module(Part, weights, "f").linear.weight.dtype == torch.float32
    assert load_module(Part, weights, "f", None).linear.weight.dtype == torch.float16
    brief = load_module(Part, weights, "f", torch.bfloat16)
    assert (brief.linear.weight.dtype, brief.count.dtype) == (torch.bfloat16, torch.int64)


def test_what_does_not_fit_a_module_is_named_whole() -> None:
    weights = state(Part(4))
    del weights["norm.bias"]
    with pytest.raises(CheckpointError) as caught:
        load_module(Part, weights, "flow/flow.pt")
    assert [(it.tensor, it.problem) for it in caught.value.faults] == [
        ("linear.weight", "is [2, 4], the configuration makes it [2, 3]"),
        ("norm.bias", "[2] is missing"),
    ]


def test_making_a_module_draws_no_random_numbers() -> None:
    weights = state(Part())
    before = torch.get_rng_state()
    load_module(Part, weights, "flow.pt")
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_tied_stays_tied() -> None:
    weights = state(randomised(Llama(LLAMA)))
    made = load_module(lambda: Llama(LLAMA), weights, "llm")
    assert made.head.weight is made.embedding.weight
    assert_same(state(made), weights)
    untied = replace(LLAMA, tied_head=False)
    made = load_module(lambda: Llama(untied), state(randomised(Llama(untied))), "llm")
    assert not torch.equal(made.head.weight, made.embedding.weight)


def test_shapes_cost_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shapes = layout_of(lambda: nn.Linear(30_000, 30_000), "config.json")
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert kibibytes < 100_000, "3.4 GiB, had they been touched"
    assert {name: shape for name, (_, shape) in shapes.items()} == {
        "weight": (30_000, 30_000),
        "bias": (30_000,),
    }
    with torch.device("meta"):
        published = Llama(LlamaConfig())
    assert sum(it.numel() for it in published.parameters()) == LlamaConfig().parameters


def test_sizes_beyond_any_memory_are_told_as_such() -> None:
    with pytest.raises(CheckpointError, match=r"^config\.json.*sizes that no module can have"):
        layout_of(lambda: nn.Linear(10**6, 10**6), "config.json")


# The bundle


@pytest.mark.parametrize("mapped", [False, True])
def test_a_bundle_gives_what_the_checkpoint_gave(
    folder: Path, tmp_path: Path, *, mapped: bool
) -> None:
    convert(folder, tmp_path / "bundle", None)
    published, bundle = open_checkpoint(folder), open_checkpoint(tmp_path / "bundle", mapped=mapped)
    assert isinstance(bundle, Bundle)
    for part in module.PARTS:
        assert_same(bundle.tensors(part), published.tensors(part))
        assert list(bundle.layout(part).items()) == list(published.layout(part).items())
    for name in module.CONFIGS:
        assert bundle.config(name) == published.config(name)
    for name in (*FILES, "vq32k-phoneme-tokenizer/tokenizer.model", "voices/ming.wav", "LICENSE"):
        assert bundle.path(name).read_bytes() == published.path(name).read_bytes()
    assert faults_of(tmp_path / "bundle") == []


def test_only_the_language_model_is_shortened_and_only_if_asked(
    folder: Path, tmp_path: Path
) -> None:
    convert(folder, tmp_path / "bundle")
    published, bundle = open_checkpoint(folder), open_checkpoint(tmp_path / "bundle")
    for part in module.PARTS:
        for name, tensor in bundle.tensors(part).items():
            original = published.tensors(part)[name]
            wanted = original.bfloat16() if part == "llm" else original
            assert tensor.dtype == wanted.dtype
            assert torch.equal(tensor, wanted)


def test_the_parts_lie_in_the_order_in_which_they_are_needed(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "bundle")
    with safetensors.safe_open(tmp_path / "bundle" / "weights.safetensors", "pt") as file:
        names = file.offset_keys()
    assert list(dict.fromkeys(name.split("/")[0] for name in names)) == list(module.PARTS)


def test_neither_programs_nor_pickles_get_into_a_bundle(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "bundle")
    files = [it for it in (tmp_path / "bundle").rglob("*") if it.is_file()]
    assert {it.suffix for it in files} == {
        *(".json", ".safetensors", ".model", ".onnx", ".ckpt", ".wav", ""),
    }


def test_the_manifest_is_one_that_weights_are_fetched_by(folder: Path, tmp_path: Path) -> None:
    assert module.MANIFEST == WEIGHTS_MANIFEST
    digest = convert(folder, tmp_path / "bundle")
    content = (tmp_path / "bundle/SHA256SUMS").read_bytes()
    assert digest == hashlib.sha256(content).hexdigest()
    entries = parse_manifest(content.decode())
    files = {
        it.relative_to(tmp_path / "bundle").as_posix()
        for it in (tmp_path / "bundle").rglob("*")
        if it.is_file()
    }
    assert {it.name for it in entries} == files - {"SHA256SUMS"}
    for entry in entries:
        found = (tmp_path / "bundle" / entry.name).read_bytes()
        assert entry.sha256 == hashlib.sha256(found).hexdigest()


def test_a_faulty_checkpoint_leaves_no_bundle_behind(folder: Path, tmp_path: Path) -> None:
    (folder / "hift/hift.pt").unlink()
    (folder / "llm/config.json").write_text("[]")
    with pytest.raises(CheckpointError) as caught:
        convert(folder, tmp_path / "bundle")
    assert [it.file for it in caught.value.faults] == ["llm/config.json", "hift/hift.pt"]
    assert [it.name for it in tmp_path.iterdir()] == ["published"]


def test_what_is_there_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(FileExistsError, match="is there already"):
        convert(folder, tmp_path / "bundle")


@pytest.mark.parametrize(
    ("content", "problem"),
    [({"format": 2}, "has the format 2, not 1"), ({"format": 1}, "has no llm/config.json")],
)
def test_a_bundle_of_another_format_is_refused(
    folder: Path, tmp_path: Path, content: dict[str, Any], problem: str
) -> None:
    convert(folder, tmp_path / "bundle")
    write_json(tmp_path / "bundle/bundle.json", content)
    with pytest.raises(CheckpointError, match=problem):
        open_checkpoint(tmp_path / "bundle").config("llm/config.json")


def test_a_bundle_that_was_cut_off_is_refused(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "bundle")
    path = tmp_path / "bundle/weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: is damaged"):
        open_checkpoint(tmp_path / "bundle")


def test_the_command_converts_or_says_why_not(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), str(tmp_path / "bundle"), "--llm-dtype", "float32"]) == 0
    digest = hashlib.sha256((tmp_path / "bundle/SHA256SUMS").read_bytes()).hexdigest()
    assert digest in capsys.readouterr().out
    (folder / "flow/flow.pt").unlink()
    assert main([str(folder), str(tmp_path / "other")]) == 1
    assert capsys.readouterr().err.startswith("flow/flow.pt: is not there")
