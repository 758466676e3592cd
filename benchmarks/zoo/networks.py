"""Torchvision's networks with example inputs, by rules on what kind of network each is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

SIZES = (64, 96, 128, 160, 192, 224, 256, 299, 320, 384, 518)
FRAMES = (8, 16, 32)
IMAGES_OF = {"optical_flow": 2}
"""How many images a network of a category sees at once; one where it is not named."""


@dataclass(frozen=True)
class Entry:
    """One network of torchvision's list.

    Attributes:
        name: as `list_models` gives it.
        category: the part of torchvision.models that it is in: "resnet", "detection", "video".
        parameters: of its default weights.
        least_size: the smallest height and width that one of its weights' notes allows.
        least_frames: the same for the frames of a video; None where it is not said.
    """

    name: str
    category: str
    parameters: int
    least_size: int
    least_frames: int | None


@dataclass(frozen=True)
class Subject:
    """A network to nest.

    Attributes:
        module: in evaluation mode.
        inputs: positional, with a batch of 2.
        form: what of the network it is: "whole", or in which form.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    form: str


def with_cases(subject: Subject, cases: int, *, seed: int) -> Subject:
    """The same network with random cases behind its own, so that there are that many or more."""
    generator = torch.Generator().manual_seed(seed)
    added = [(max(0, cases - len(value)), *value.shape[1:]) for value in subject.inputs]
    others = [torch.randn(shape, generator=generator) for shape in added]
    inputs = tuple(map(torch.cat, zip(subject.inputs, others, strict=True)))
    return replace(subject, inputs=inputs)


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Networks that are made and run inside compute in one precision throughout.

    A network that makes coordinates or masks of its own makes them in that precision, and so does
    one that asks for single precision by `value.float()`: half in double, it could not run.
    """
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with mock.patch.object(Tensor, "float", lambda value: value.to(dtype)):
            yield
    finally:
        torch.set_default_dtype(usual)


def cast(subject: Subject, dtype: torch.dtype) -> Subject:
    """A network and its inputs in a precision; integers stay as they are."""
    inputs = tuple(value.to(dtype) for value in subject.inputs)
    return Subject(subject.module.to(dtype), inputs, subject.form)


def entries() -> list[Entry]:
    """Every network but the quantised ones, those of fewest parameters first."""
    models = import_module("torchvision.models")
    found = (_entry(models, name) for name in models.list_models())
    kept = (entry for entry in found if entry.category != "quantization")
    return sorted(kept, key=lambda entry: (entry.parameters, entry.name))


def _entry(models: Any, name: str) -> Entry:
    notes = [weights.meta for weights in models.get_model_weights(name)]
    frames = [meta["min_temporal_size"] for meta in notes if "min_temporal_size" in meta]
    return Entry(
        name,
        models.get_model_builder(name).__module__.split(".")[2],
        notes[0].get("num_params", 0),
        min(max(meta.get("min_size", (1, 1))) for meta in notes),
        min(frames, default=None),
    )


def make(name: str) -> nn.Module:
    """A network of torchvision in evaluation mode, without weights of anyone's training."""
    builder = import_module("torchvision.models").get_model_builder(name)
    backbone = "weights_backbone" in inspect.signature(builder).parameters
    options: dict[str, Any] = {"weights": None, **({"weights_backbone": None} if backbone else {})}
    try:
        # Only some take it, among their keyword arguments; drawing the weights takes them minutes.
        module: nn.Module = builder(**options, init_weights=False)
    except TypeError:
        module = builder(**options)
    # Some make tables in single precision, whatever precision is the default.
    return module.eval().to(torch.get_default_dtype())


def subjects(entry: Entry) -> Iterator[Callable[[], Subject]]:
    """The forms in which a network may be nested, the whole one first."""
    yield lambda: _whole(entry, make(entry.name), "whole", seed=1)
    if entry.category == "detection":
        yield lambda: _whole(entry, Heads(make(entry.name)), "backbone and heads", seed=1)
    else:
        yield lambda: _whole(entry, Outputs(make(entry.name)), "outputs as a tuple", seed=1)


def _whole(entry: Entry, module: nn.Module, form: str, *, seed: int) -> Subject:
    module.eval()
    if entry.category == "detection" and form == "whole":
        # Its input is a list of images of any sizes.
        return Subject(module, tuple(_inputs(entry, SIZES[0], FRAMES[0], seed=seed)), form)
    return Subject(module, _smallest(entry, module, seed=seed), form)


def _smallest(entry: Entry, module: nn.Module, *, seed: int) -> tuple[Tensor, ...]:
    """The smallest inputs that a network takes.

    Raises:
        ValueError: it takes none.
    """
    reason = "no size was tried"
    for frames in (f for f in FRAMES if f >= (entry.least_frames or 0)):
        for size in (s for s in SIZES if s >= entry.least_size):
            inputs = tuple(_inputs(entry, size, frames, seed=seed))
            try:
                with torch.no_grad():
                    module(*(value[:1] for value in inputs))
            except (RuntimeError, ValueError, AssertionError) as error:
                reason = str(error)
                continue
            return inputs
    raise ValueError(f"{entry.name} takes no image of {entry.least_size} to {SIZES[-1]}: {reason}")


def _inputs(entry: Entry, size: int, frames: int, *, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    time = (frames,) if entry.category == "video" else ()
    for _ in range(IMAGES_OF.get(entry.category, 1)):
        yield torch.randn(2, 3, *time, size, size, generator=generator)


class Outputs(nn.Module):
    """A network that gives its output tensors as a tuple, whatever it nests them in."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, first: Tensor, second: Tensor | None = None) -> tuple[Tensor, ...]:
        """The output tensors of the network."""
        given = self.network(first) if second is None else self.network(first, second)
        return tensors_of(given)


class Heads(nn.Module):
    """What of a detector has weights: its backbone, and its heads on all of the feature maps.

    Heads for regions see every feature map as a single region, resampled to the size that they
    are made for: which regions there are depends on data, which torch.export cannot follow.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone = network.get_submodule("backbone")
        parts = dict(network.named_children())
        self.heads = nn.ModuleDict({"head": parts["head"]} if "head" in parts else {})
        if "rpn" in parts:
            self.heads["rpn"] = parts["rpn"].get_submodule("head")
        self.regions = nn.ModuleDict()
        self.sizes: dict[str, Sequence[int]] = {}
        regions = dict(parts["roi_heads"].named_children()) if "roi_heads" in parts else {}
        for name, pool in regions.items():
            if name.endswith("_roi_pool"):
                kind = name.removesuffix("_roi_pool")
                stages = (regions[f"{kind}_{s}"] for s in ("head", "predictor"))
                self.regions[kind] = nn.Sequential(*stages)
                size: Any = pool.output_size
                self.sizes[kind] = size

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """What all heads give."""
        maps = list(tensors_of(self.backbone(images)))
        found = [tensor for head in self.heads.values() for tensor in tensors_of(head(maps))]
        for kind, head in self.regions.items():
            for features in maps:
                region = functional.interpolate(features, self.sizes[kind], mode="bilinear")
                found += tensors_of(head(region))
        return tuple(found)


def tensors_of(value: Any) -> tuple[Tensor, ...]:
    """The tensors of a nested value, in order."""
    return tuple(leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))
