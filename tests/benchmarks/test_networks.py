"""The hand-written networks are what their papers and their docstrings say."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from benchmarks.networks.counting import count_macs, count_parameters
from benchmarks.networks.densenet import DenseNet
from benchmarks.networks.mobilenet import MobileNet
from benchmarks.networks.redraw import redraw
from benchmarks.networks.resnet import CifarResNet
from benchmarks.networks.rounding import kept_blocks, scaled
from benchmarks.networks.torchvision_twins import mobilenet_v2, resnet18, resnet50
from benchmarks.networks.vit import VisionTransformer
from benchmarks.networks.wrn import Shortcut, WideResNet

Make = Callable[..., nn.Module]


def _wrn_pad(**options: object) -> nn.Module:
    return WideResNet(shortcut="pad", **options)  # type: ignore[arg-type]


def _mobilenet_relu6(**options: object) -> nn.Module:
    return MobileNet(activation="relu6", **options)  # type: ignore[arg-type]


def _vit_multihead(**options: object) -> nn.Module:
    return VisionTransformer(attention="multihead", **options)  # type: ignore[arg-type]


# name: (constructor, a smaller depth, height and width of its images)
NETWORKS: dict[str, tuple[Make, tuple[int, ...], int]] = {
    "resnet20": (CifarResNet, (1, 3, 2), 32),
    "wrn-projection": (WideResNet, (1, 2, 1), 32),
    "wrn-pad": (_wrn_pad, (1, 2, 1), 32),
    "mobilenet-hardswish": (MobileNet, (1, 1, 2, 1), 32),
    "mobilenet-relu6": (_mobilenet_relu6, (1, 1, 2, 1), 32),
    "densenet": (DenseNet, (2, 4, 1), 32),
    "vit-qkv": (VisionTransformer, (2,), 32),
    "vit-multihead": (_vit_multihead, (2,), 32),
    "resnet18": (resnet18, (1, 2, 1, 2), 64),
    "resnet50": (resnet50, (1, 2, 1, 1), 64),
    "mobilenet_v2": (mobilenet_v2, (1, 1, 2, 1, 2, 1, 1), 64),
}
OWN = [name for name in NETWORKS if name not in ("resnet18", "resnet50", "mobilenet_v2")]


def _images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("channels", "width", "divisor", "unit", "expected"),
    [
        pytest.param(64, 0.5, 8, 1, 32, id="exact"),
        pytest.param(64, 0.3, 8, 1, 16, id="19.2 down to 16"),
        pytest.param(64, 0.35, 8, 1, 24, id="22.4 up to 24"),
        pytest.param(40, 0.3, 8, 1, 16, id="a half goes up"),
        pytest.param(64, 0.01, 8, 1, 8, id="at least one divisor"),
        pytest.param(4, 0.25, 8, 1, 4, id="at most all"),
        pytest.param(22, 0.99, 8, 1, 22, id="rounded beyond all"),
        pytest.param(10, 1.0, 8, 1, 10, id="width 1 is everything"),
        pytest.param(10, 0.99, 8, 1, 8, id="below width 1 the divisor holds"),
        pytest.param(64, 0.3, 1, 1, 19, id="divisor 1"),
        pytest.param(64, 0.3, 8, 16, 16, id="whole heads"),
        pytest.param(64, 0.375, 8, 16, 32, id="half a head goes up"),
        pytest.param(48, 0.5, 8, 12, 24, id="two units of 12 make a multiple of 8"),
        pytest.param(48, 0.2, 8, 12, 24, id="never one unit of 12"),
        pytest.param(36, 1 / 3, 16, 12, 36, id="a multiple beyond all units"),
    ],
)
def test_a_width_is_rounded_by_the_documented_rule(
    channels: int, width: float, divisor: int, unit: int, expected: int
) -> None:
    assert scaled(channels, width, divisor=divisor, unit=unit) == expected


@pytest.mark.parametrize(
    ("channels", "width", "unit", "message"),
    [
        (64, 0.0, 1, r"width must be in \(0, 1\], got 0.0"),
        (64, 1.5, 1, r"width must be in \(0, 1\], got 1.5"),
        (65, 0.5, 16, "channels must be a multiple of unit, got channels=65, unit=16"),
        (64, 0.1, 16, "width 0.1 leaves less than half a unit, channels=64, unit=16"),
    ],
)
def test_a_width_that_cannot_be_is_refused(
    channels: int, width: float, unit: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        scaled(channels, width, divisor=8, unit=unit)


@pytest.mark.parametrize("depth", [(3, 3), (0, 3, 3), (4, 3, 3)])
def test_a_depth_that_cannot_be_is_refused(depth: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="depth must keep between 1 and all blocks"):
        kept_blocks(depth, (3, 3, 3))


@pytest.mark.parametrize(
    ("layers", "widen", "pad", "projection"),
    [
        (32, 4, 7_380_276, 7_422_260),
        (14, 4, 2_730_036, 2_772_020),
        (32, 1, 470_004, 472_564),
        (14, 1, 178_356, 180_916),
        (14, 8, 10_841_652, 11_007_540),
        (32, 2, 1_856_436, 1_867_188),
    ],
)
def test_a_wide_resnet_has_the_parameters_of_its_paper(
    layers: int, widen: int, pad: int, projection: int
) -> None:
    expected: dict[Shortcut, int] = {"pad": pad, "projection": projection}
    for shortcut, count in expected.items():
        model = WideResNet(layers, widen, num_classes=100, shortcut=shortcut)
        assert count_parameters(model) == count


@pytest.mark.parametrize(
    ("name", "parameters", "macs", "size"),
    [
        ("resnet20", 269_722, 40_551_040, 32),
        ("resnet18", 11_689_512, 1_814_073_344, 224),
        ("resnet50", 25_557_032, 4_089_184_256, 224),
        ("mobilenet_v2", 3_504_872, 300_774_272, 224),
    ],
)
def test_a_known_network_has_its_known_counts(
    name: str, parameters: int, macs: int, size: int
) -> None:
    model = NETWORKS[name][0]().eval()
    assert count_parameters(model) == parameters
    assert count_macs(model, _images(size)[:1]) == macs


@pytest.mark.parametrize("name", ["mobilenet-hardswish", "densenet", "vit-qkv"])
def test_a_small_network_is_small(name: str) -> None:
    assert 100_000 < count_parameters(NETWORKS[name][0]()) < 200_000


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("width", [0.25, 0.6])
def test_a_narrower_shallower_network_runs_and_is_a_part_of_the_full_one(
    name: str, width: float
) -> None:
    make, depth, size = NETWORKS[name]
    small = make(width=width, depth=depth, num_classes=7).eval()
    full = make(num_classes=7).state_dict()
    with torch.no_grad():
        assert small(_images(size)).shape == (2, 7)
    for key, tensor in small.state_dict().items():
        assert tensor.ndim == full[key].ndim
        assert all(kept <= of for kept, of in zip(tensor.shape, full[key].shape, strict=True)), key


def test_the_parts_around_a_padded_shortcut_are_rounded_one_by_one() -> None:
    state = CifarResNet(width=0.25).state_dict()
    # 8 of 16; 8 + 8 + 8 of 8 + 16 + 8; 8 + 24 + 8 of 16 + 32 + 16.
    assert [len(state[f"layer{stage}.0.bn2.weight"]) for stage in (1, 2, 3)] == [8, 24, 40]
    assert [len(state[f"layer{stage}.0.bn1.weight"]) for stage in (1, 2, 3)] == [8, 8, 16]


def test_kept_blocks_keep_their_names() -> None:
    names = set(mobilenet_v2(depth=(1, 1, 1, 1, 1, 1, 1)).state_dict())
    kept = sorted({int(name.split(".")[1]) for name in names if name.startswith("features.")})
    assert kept == [0, 1, 2, 4, 7, 11, 14, 17, 18]


@pytest.mark.parametrize("name", NETWORKS)
def test_after_a_redraw_every_parameter_matters(name: str) -> None:
    make, _, size = NETWORKS[name]
    options = {} if name in OWN else {"width": 0.25}
    model, other = make(**options).eval(), make(**options)
    redraw(model, seed=0)
    redraw(other, seed=1)
    x = _images(size)
    with torch.no_grad():
        y = model(x)
        assert torch.isfinite(y).all()
        assert y.abs().max() > 0.1
        drawn = dict(other.named_parameters())
        for key, parameter in model.named_parameters():
            kept = parameter.clone()
            parameter.copy_(drawn[key])
            change = (model(x) - y).abs().max() / y.abs().max()
            parameter.copy_(kept)
            assert change > 1e-3, key
        assert torch.equal(model(x), y)


def test_a_redraw_follows_from_its_seed_and_leaves_counters() -> None:
    one, two = CifarResNet(), CifarResNet()
    redraw(one, seed=3)
    redraw(two, seed=3)
    for key, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[key]), key
    assert one.state_dict()["bn1.num_batches_tracked"] == 0


@pytest.mark.parametrize(
    "width",
    [
        pytest.param(0.5, id="torch's own attention"),
        pytest.param(0.375, id="heads and embedding part"),
    ],
)
def test_both_attentions_compute_and_cost_the_same(width: float) -> None:
    plain = VisionTransformer(width=width).eval()
    torchs = VisionTransformer(width=width, attention="multihead").eval()
    redraw(plain, seed=0)
    names = {".qkv.": ".attention.in_proj_", ".proj.": ".attention.out_proj."}
    renamed = {}
    for key, tensor in plain.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        renamed[key] = tensor
    torchs.load_state_dict(renamed)
    x = _images(32)
    with torch.no_grad():
        torch.testing.assert_close(torchs(x), plain(x))
    assert count_macs(torchs, x) == count_macs(plain, x) == 2 * count_macs(plain, x[:1])
