"""The model's weights and configuration: the published layout, and a bundle that loads fast.

`open_checkpoint` opens either; what it returns gives configurations, paths of files, and the
tensors of each part under the names that the part's module has. The published layout:

    llm/                      config.json, shards of safetensors and their index, as Hugging Face's
    speech_tokenizer/         config.json, preprocessor_config.json, model.safetensors
    flow/                     config.yaml, flow.pt
    hift/                     hift.pt
    vq32k-phoneme-tokenizer/  the text tokenizer
    vocos2d/                  generator_jit.ckpt, a TorchScript program
    frontend/, configs/       campplus.onnx and tables; published with the source code

`glm_tts.convert` makes a bundle of it: one file of tensors in the order in which they are needed,
one of configurations, and everything else as it was.

Nothing in a checkpoint is executed: `.pt` files may hold tensors only, and the YAML, which is
written to construct objects, is read as plain data.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from glm_tts import tensor_file
from glm_tts.llama import LlamaConfig
from glm_tts.speech_tokenizer import SpeechTokenizerConfig, inference_weights
from glm_tts.tensor_file import TensorFileError

PARTS: Final = ("llm", "speech_tokenizer", "flow", "hift")
"""Parts whose weights are tensors, in the order in which an engine that starts needs them."""

FLOW_CONFIG: Final = "flow/config.yaml"
FLOW_ARGUMENTS: Final[Mapping[str, Any]] = {
    "spkr_emb_adaLN": True,
    "speech_token_cfg": False,
    "remove_spkr_concat_condition": True,
    "mel_dim": 80,
    "mel_framerate": 50,
    "input_frame_rate": 25,
}
"""What the published `flow/config.yaml` says, for a checkpoint that comes without."""

CONFIGS: Final = (
    "llm/config.json",
    "speech_tokenizer/config.json",
    "speech_tokenizer/preprocessor_config.json",
    FLOW_CONFIG,
)
BUNDLE: Final = "bundle.json"
BUNDLE_WEIGHTS: Final = "weights.safetensors"
BUNDLE_FORMAT: Final = 1
MANIFEST: Final = "SHA256SUMS"

_CONFIG_LIMIT: Final = 2**20
_SHOWN_FAULTS: Final = 20
_AGAIN: Final = "fetch it again from where the model is published"
_UNPACK: Final = "take a checkpoint that is not quantised"
_ONE_RELEASE: Final = "take weights and configuration from the same release"

Shape: TypeAlias = tuple[int, ...]
Spec: TypeAlias = tuple[torch.dtype, Shape]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a checkpoint."""

    file: str
    problem: str
    fix: str
    tensor: str | None = None

    def __str__(self) -> str:
        what = f"{self.file}: " + (f"{self.tensor} " if self.tensor else "")
        return f"{what}{self.problem}; {self.fix}"


class CheckpointError(Exception):
    """A checkpoint cannot be used. `faults` are all that is wrong with it, as far as was looked."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        lines = [str(fault) for fault in self.faults[:_SHOWN_FAULTS]]
        more = len(self.faults) - len(lines)
        super().__init__("\n".join([*lines, f"… and {more} more"] if more else lines))


# Reading


class Checkpoint(ABC):
    """A model on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def config(self, name: str) -> dict[str, Any]:
        """One of `CONFIGS`; of the flow's, the arguments that it is constructed with."""

    @abstractmethod
    def layout(self, part: str) -> dict[str, Spec]:
        """Type and shape of each of a part's tensors, without reading them."""

    @abstractmethod
    def stream(self, part: str) -> Iterator[tuple[str, Tensor]]:
        """A part's tensors in the order of `layout`, with as few of them in memory as possible."""

    @abstractmethod
    def weights_file(self, part: str) -> str:
        """Where a part's tensors are, for messages."""

    def tensors(self, part: str) -> dict[str, Tensor]:
        """A part's tensors by the names of its module; those of `llm` by Hugging Face's."""
        return dict(self.stream(part))

    def path(self, name: str) -> Path:
        """A file that is used as it is, by its published name: `frontend/campplus.onnx`."""
        path = self.folder / name
        if not path.is_file():
            raise CheckpointError([_missing(name)])
        return path


def open_checkpoint(folder: Path, *, mapped: bool = False) -> Checkpoint:
    """A checkpoint of either layout. Nothing but a bundle's configuration is read yet.

    Args:
        mapped: of a bundle, read each tensor when it is first used; for a local disk.
    """
    if not folder.is_dir():
        raise CheckpointError([Fault(str(folder), "is not a folder", "give the checkpoint's")])
    return Bundle(folder, mapped=mapped) if (folder / BUNDLE).is_file() else Published(folder)


class Published(Checkpoint):
    """The layout in which the model is published."""

    def config(self, name: str) -> dict[str, Any]:
        if name == FLOW_CONFIG:
            path = self.folder / name
            return read_flow_arguments(path) if path.is_file() else dict(FLOW_ARGUMENTS)
        return _read_json(self.path(name), name)

    def layout(self, part: str) -> dict[str, Spec]:
        if part in _PICKLED:
            loaded = _load_pickled(self.path(_PICKLED[part]), _PICKLED[part], "meta")
            return _layout(loaded)
        found: dict[str, Spec] = {}
        for _, entries in self._shards(part):
            found |= {entry.name: (entry.dtype, entry.shape) for entry in entries}
        return self._needed(part, found)

    def stream(self, part: str) -> Iterator[tuple[str, Tensor]]:
        if part in _PICKLED:
            yield from _load_pickled(self.path(_PICKLED[part]), _PICKLED[part], "cpu").items()
            return
        for path, entries in self._shards(part):
            with _reported(self._name(path)):
                tensors = tensor_file.read(path, entries)
            yield from self._needed(part, tensors).items()

    def weights_file(self, part: str) -> str:
        if part in _PICKLED:
            return _PICKLED[part]
        index = self.folder / part / _INDEX
        return f"{part}/{_INDEX if index.is_file() else _SINGLE}"

    def _needed(self, part: str, tensors: dict[str, _T]) -> dict[str, _T]:
        if part != "speech_tokenizer":
            return tensors
        return inference_weights(tensors, self._speech_tokenizer_config())

    def _speech_tokenizer_config(self) -> SpeechTokenizerConfig:
        config = self.config("speech_tokenizer/config.json")
        preprocessor = self.config("speech_tokenizer/preprocessor_config.json")
        try:
            return SpeechTokenizerConfig.from_files(config, preprocessor)
        except ValueError as error:
            fault = Fault("speech_tokenizer/config.json", str(error), _ONE_RELEASE)
            raise CheckpointError([fault]) from error

    def _shards(self, part: str) -> list[tuple[Path, tuple[tensor_file.Entry, ...]]]:
        """Files of a part, in the index's order, and what is in each."""
        index = self.folder / part / _INDEX
        if not index.is_file():
            return [self._shard(f"{part}/{_SINGLE}")]
        name = f"{part}/{_INDEX}"
        files: dict[str, str] = _read_json(index, name).get("weight_map", {})
        strange = {it for it in files.values() if PurePosixPath(it).name != it}
        if not files or strange:
            problem = f"does not say in which files tensors are {sorted(strange) or ''}".strip()
            raise CheckpointError([Fault(name, problem, _AGAIN)])
        faults, shards = [], []
        for file in dict.fromkeys(files.values()):
            try:
                shard = self._shard(f"{part}/{file}")
            except CheckpointError as error:
                faults += error.faults
                continue
            faults += _index_faults(f"{part}/{file}", files, file, shard[1])
            shards.append(shard)
        if faults:
            raise CheckpointError(faults)
        return shards

    def _shard(self, name: str) -> tuple[Path, tuple[tensor_file.Entry, ...]]:
        path = self.path(name)
        with _reported(name):
            return path, tensor_file.read_header(path).entries

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


_INDEX: Final = "model.safetensors.index.json"
_SINGLE: Final = "model.safetensors"
_PICKLED: Final = {"flow": "flow/flow.pt", "hift": "hift/hift.pt"}
_T = TypeVar("_T")


def _index_faults(
    name: str, files: Mapping[str, str], file: str, entries: Sequence[tensor_file.Entry]
) -> Iterator[Fault]:
    inside = {entry.name for entry in entries}
    for tensor, place in files.items():
        if place == file and tensor not in inside:
            yield Fault(name, "is said by the index to be here and is not", _ONE_RELEASE, tensor)
    for tensor in sorted(inside):
        if files.get(tensor) != file:
            yield Fault(name, "is not said by the index to be here", _ONE_RELEASE, tensor)


def _load_pickled(path: Path, name: str, device: str) -> dict[str, Tensor]:
    """A state dict, or one under the key `model`. Code in the file is not run, but refused."""
    only_shapes = device == "meta" and zipfile.is_zipfile(path)  # not in the oldest format
    try:
        loaded = torch.load(path, map_location=device, weights_only=True, mmap=only_shapes)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        problem = f"is damaged, or holds more than tensors ({reason})"
        raise CheckpointError([Fault(name, problem, _AGAIN)]) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), dict):
        loaded = loaded["model"]
    if not isinstance(loaded, dict) or not all(isinstance(it, Tensor) for it in loaded.values()):
        raise CheckpointError([Fault(name, "is not a dictionary of tensors", _AGAIN)])
    return loaded


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(_read_text(path, name))
    except ValueError as error:
        raise CheckpointError([Fault(name, f"is not JSON ({error})", _AGAIN)]) from error
    if not isinstance(content, dict):
        raise CheckpointError([Fault(name, "is not a JSON object", _AGAIN)])
    return content


def read_flow_arguments(path: Path) -> dict[str, Any]:
    """What `flow:` is constructed with in the published HyperPyYAML.

    Tags such as `!new:flow.flow.Flow` are dropped: what they would construct stays plain data. A
    file that says nothing of the flow counts as one that is not there.
    """
    try:
        content = _read_yaml(_read_text(path, FLOW_CONFIG))
        arguments = content.get("flow") if isinstance(content, dict) else None
        # JSON has no dates, and nothing that contains itself.
        arguments = json.loads(json.dumps(arguments))
    except (ValueError, TypeError, RecursionError) as error:
        problem = f"is not YAML of plain values ({error})"
        raise CheckpointError([Fault(FLOW_CONFIG, problem, _AGAIN)]) from error
    return arguments if isinstance(arguments, dict) and arguments else dict(FLOW_ARGUMENTS)


def _read_yaml(text: str) -> Any:
    import yaml

    class PlainLoader(yaml.SafeLoader):
        pass

    def plain(loader: yaml.SafeLoader, _tag: str, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node)  # type: ignore[arg-type]

    PlainLoader.add_multi_constructor("", plain)  # every tag that the safe loader does not know
    try:
        return yaml.load(text, PlainLoader)  # noqa: S506  a safe loader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _read_text(path: Path, name: str) -> str:
    if path.stat().st_size > _CONFIG_LIMIT:
        problem = f"is larger than {_CONFIG_LIMIT} bytes, no configuration is"
        raise CheckpointError([Fault(name, problem, _AGAIN)])
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError([Fault(name, f"is not text ({error})", _AGAIN)]) from error


def _missing(name: str) -> Fault:
    published_with_code = name.startswith(("frontend/", "configs/"))
    fix = (
        "copy it from the model's source repository, which has it beside the code"
        if published_with_code
        else _AGAIN
    )
    return Fault(name, "is not there", fix)


@contextmanager
def _reported(name: str) -> Iterator[None]:
    """What is wrong with a tensor file, as a fault of the checkpoint."""
    try:
        yield
    except TensorFileError as error:
        raise CheckpointError([Fault(name, f"is damaged ({error})", _AGAIN)]) from error


# Comparing and assembling


def layout_of(make: Callable[[], nn.Module], config: str) -> dict[str, Spec]:
    """Types and shapes of a module's tensors. Their memory is never touched, so it takes none.

    On the device `meta` there would be none to begin with, but to compute on it, as weight norm
    does, loads torch's compiler: that takes seconds, and fails where the user has no name.

    Args:
        config: the file that gives the sizes, for messages.

    Raises:
        CheckpointError: the sizes are beyond any memory.
    """
    try:
        with _WithoutInitialisation():
            return _layout(make().state_dict())
    except RuntimeError as error:
        problem = f"has sizes that no module can have ({error})"
        raise CheckpointError([Fault(config, problem, _ONE_RELEASE)]) from error


def _layout(tensors: Mapping[str, Tensor]) -> dict[str, Spec]:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def llm_layout(config: LlamaConfig) -> dict[str, Spec]:
    """The same of a Llama, under the names that Hugging Face gives its tensors."""
    H, D, F = config.hidden_size, config.head_size, config.feed_forward_size
    queries, keys = config.query_heads * D, config.key_heads * D
    block: dict[str, Shape] = {
        "input_layernorm": (H,),
        "self_attn.q_proj": (queries, H),
        "self_attn.k_proj": (keys, H),
        "self_attn.v_proj": (keys, H),
        "self_attn.o_proj": (H, queries),
        "post_attention_layernorm": (H,),
        "mlp.gate_proj": (F, H),
        "mlp.up_proj": (F, H),
        "mlp.down_proj": (H, F),
    }
    embedding: Shape = (config.vocabulary_size, H)
    shapes = {
        "model.embed_tokens.weight": embedding,
        **{
            f"model.layers.{layer}.{name}.weight": shape
            for layer in range(config.layers)
            for name, shape in block.items()
        },
        "model.norm.weight": (H,),
        **({} if config.tied_head else {"lm_head.weight": embedding}),
    }
    return {name: (torch.float32, shape) for name, shape in shapes.items()}


def check(
    checkpoint: Checkpoint,
    expected: Mapping[str, Mapping[str, Spec]],
    files: Iterable[str] = (),
) -> None:
    """Compares all of a checkpoint with what will be made of it; reads no weights for that.

    Args:
        expected: layouts by part, as of `layout_of` and `llm_layout`.
        files: files that will be used as they are.

    Raises:
        CheckpointError: with everything that is missing, damaged or does not fit.
    """
    faults: list[Fault] = [
        _missing(name) for name in files if not (checkpoint.folder / name).is_file()
    ]
    for part, layout in expected.items():
        try:
            found = checkpoint.layout(part)
        except CheckpointError as error:
            faults += error.faults
        else:
            faults += compare(layout, found, checkpoint.weights_file(part))
    if faults:
        raise CheckpointError(faults)


def compare(expected: Mapping[str, Spec], found: Mapping[str, Spec], file: str) -> Iterator[Fault]:
    """Tensors that are missing, unexpected, misshapen, or integers where there are none."""
    for name, (dtype, shape) in expected.items():
        if name not in found:
            yield Fault(file, f"{list(shape)} is missing", _ONE_RELEASE, name)
            continue
        its_dtype, its_shape = found[name]
        if its_shape != shape:
            problem = f"is {list(its_shape)}, the configuration makes it {list(shape)}"
            yield Fault(file, problem, _ONE_RELEASE, name)
        if its_dtype.is_floating_point != dtype.is_floating_point:
            yield Fault(file, f"is of {its_dtype}, not of {dtype} or alike", _UNPACK, name)
    for name, (_, shape) in found.items():
        if name not in expected and not _is_redundant(name):
            yield Fault(file, f"{list(shape)} is unexpected", _ONE_RELEASE, name)


def _is_redundant(name: str) -> bool:
    """What a Llama may repeat: the head of a tied one, and a function of its configuration."""
    return name == "lm_head.weight" or name.endswith("rotary_emb.inv_freq")


_Module = TypeVar("_Module", bound=nn.Module)


def load_module(
    make: Callable[[], _Module],
    weights: Mapping[str, Tensor],
    file: str,
    dtype: torch.dtype | None = torch.float32,
) -> _Module:
    """A module that consists of the given tensors, for inference. Nothing is initialised before.

    Args:
        make: the module's class, with its configuration.
        file: where the tensors are from, for messages.
        dtype: what floating-point tensors become; None: they stay what they are.

    Raises:
        CheckpointError: with every tensor that is missing, unexpected or misshapen.
    """
    with _WithoutInitialisation():
        module = make()
    expected = _layout(module.state_dict())
    faults = [*compare(expected, _layout(weights), file)]
    if faults:
        raise CheckpointError(faults)
    state = {name: converted(weights[name], dtype) for name in expected}
    shared = _shared_parameters(module)
    module.load_state_dict(state, strict=True, assign=True)
    for name, others in shared.items():
        for other in others:  # or each would be moved to the GPU by itself
            owner, _, attribute = other.rpartition(".")
            setattr(module.get_submodule(owner), attribute, module.get_parameter(name))
    return module.eval().requires_grad_(False)


def _shared_parameters(module: nn.Module) -> dict[str, list[str]]:
    """Names of parameters that are one and the same, by the first of them."""
    first: dict[int, str] = {}
    shared: dict[str, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            shared.setdefault(first[id(parameter)], []).append(name)
    return shared


class _WithoutInitialisation(TorchFunctionMode):
    """Leaves new parameters as they are: drawing numbers for a billion of them takes a minute."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def converted(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor in another floating-point type, unless it holds something else."""
    return tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor


# The bundle


class Bundle(Checkpoint):
    """What `glm_tts.convert` writes."""

    def __init__(self, folder: Path, *, mapped: bool = False) -> None:
        super().__init__(folder)
        self._mapped = mapped
        self._content = _read_json(self.path(BUNDLE), BUNDLE)
        if self._content.get("format") != BUNDLE_FORMAT:
            problem = f"has the format {self._content.get('format')!r}, not {BUNDLE_FORMAT}"
            raise CheckpointError([Fault(BUNDLE, problem, "convert the checkpoint again")])
        with _reported(BUNDLE_WEIGHTS):
            self._entries = tensor_file.read_header(self.path(BUNDLE_WEIGHTS)).entries

    def config(self, name: str) -> dict[str, Any]:
        try:
            return dict(self._content["configs"][name])
        except (KeyError, TypeError) as error:
            fault = Fault(BUNDLE, f"has no {name}", "convert the checkpoint again")
            raise CheckpointError([fault]) from error

    def layout(self, part: str) -> dict[str, Spec]:
        return {_inner(part, it.name): (it.dtype, it.shape) for it in self._part(part)}

    def stream(self, part: str) -> Iterator[tuple[str, Tensor]]:
        path = self.path(BUNDLE_WEIGHTS)
        with _reported(BUNDLE_WEIGHTS):
            tensors = tensor_file.read(path, self._part(part), mapped=self._mapped)
        for name, tensor in tensors.items():
            yield _inner(part, name), tensor

    def weights_file(self, part: str) -> str:
        return f"{BUNDLE_WEIGHTS}, {part}"

    def _part(self, part: str) -> list[tensor_file.Entry]:
        return [entry for entry in self._entries if entry.name.startswith(f"{part}/")]


def _inner(part: str, name: str) -> str:
    return name.removeprefix(f"{part}/")


def sha256(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
