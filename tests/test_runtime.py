from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors

import nestedge
from nestedge.artifact import Artifact
from nestedge.errors import (
    IntegrityError,
    MissingDependencyError,
    PlacementError,
    UsageError,
    VerificationError,
)
from nestedge.packaging.fetching import fetch
from nestedge.packaging.shipping import ship
from nestedge.plugins import Array
from nestedge.runtime import NestedRuntime
from tests.fakes import (
    DESCRIPTION,
    FakeRuntime,
    FakeSession,
    ProviderFake,
    declare_plugins,
    fake_artifact,
    linear,
)
from tests.packaging.builds import CELLS, change, verified_build

ROOT = Path(__file__).parents[1]
PIXELS = np.array([[0, 255], [51, 204]], np.uint8)
BATCH = ((PIXELS / 255 - 0.5) / 0.5).astype(np.float32)[None, None]


class LegacyRuntime(FakeRuntime):
    """Another runtime that opens the same files."""

    name = "fake-legacy"
    reads = "fake"

    def version(self) -> str:
        return "legacy 0.9"


class WrongSession(FakeSession):
    """Gives something else."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {name: np.zeros_like(array) for name, array in super().run(inputs).items()}


class WrongRuntime(LegacyRuntime):
    """Opens the same files, and computes something else."""

    name = "fake-wrong"

    def open(self, path: Path, *, threads: int = 1) -> WrongSession:
        return WrongSession(safetensors.load(path.read_bytes()))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build, and what a phone fetched of it."""
    folder = tmp_path_factory.mktemp("made")
    verified_build(folder / "dist")
    ship(folder / "dist", folder / "repo", devices=["phone"])
    fetch(str(folder / "repo"), device="phone", destination=folder / "net")
    return folder


@pytest.fixture
def net(made: Path, tmp_path: Path, fake_runtime: Path) -> Path:
    return shutil.copytree(made / "net", tmp_path / "net")


@pytest.fixture
def dist(made: Path, tmp_path: Path, fake_runtime: Path) -> Path:
    return shutil.copytree(made / "dist", tmp_path / "dist")


def _expected(artifact: Artifact, batch: Array = BATCH) -> list[list[float]]:
    tensors = safetensors.load(artifact.model_path.read_bytes())
    scores: list[list[float]] = linear(batch, tensors["weight"], tensors["bias"]).tolist()
    return scores


def test_a_shipment_runs_its_default_cell(net: Path) -> None:
    network = NestedRuntime(net)
    assert (network.cell, network.level) == ("full/fake-int8", "full")
    assert network.levels == ("small", "full")
    assert network.run(BATCH)["logits"].tolist() == _expected(network.artifact)


def test_a_build_runs_its_largest_level_in_the_tightest_tolerance(dist: Path) -> None:
    half = replace(DESCRIPTION, level="full", precision="fp16", tolerance=2e-3, parameters=30)
    fake_artifact(dist, half)
    assert NestedRuntime(str(dist)).cell == "full/fake-fp32"
    assert NestedRuntime(dist, level="small").cell == "small/fake-fp32"
    assert NestedRuntime(dist / "small").levels == ("small",)
    assert NestedRuntime(dist / CELLS[0]).cell == CELLS[0]


@pytest.mark.parametrize(
    ("wanted", "cell"),
    [
        ({"level": "small"}, "small/fake-int8"),
        ({"precision": "fp32"}, "full/fake-fp32"),
        ({"level": "small", "precision": "fp32", "runtime": "fake"}, "small/fake-fp32"),
    ],
    ids=["level", "precision", "all"],
)
def test_what_is_asked_for_is_opened(net: Path, wanted: dict[str, str], cell: str) -> None:
    assert NestedRuntime(net, **wanted).cell == cell  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"level": "smal"},
            r"no level 'smal'; there are \['small', 'full'\]; did you mean 'small'",
        ),
        ({"precision": "int4"}, r"level 'full': no precision 'int4'; .*; did you mean 'int8'\?"),
        ({"runtime": "fak"}, r"no runtime 'fak'; .*did you mean 'fake'\?"),
        ({"runtime": "onnx"}, r"level 'full': runtime 'onnx' opens no cell of it; there are"),
    ],
    ids=["level", "precision", "runtime", "other runtime"],
)
def test_what_is_not_there_is_refused(net: Path, wanted: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        NestedRuntime(net, **wanted)  # type: ignore[arg-type]


def test_a_folder_without_artifacts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no artifact at"):
        NestedRuntime(tmp_path / "none")
    with pytest.raises(UsageError, match="holds no artifact"):
        NestedRuntime(tmp_path)


@pytest.mark.parametrize(
    "inputs",
    [PIXELS, PIXELS[..., np.newaxis], BATCH, BATCH[0], {"input": BATCH}],
    ids=["grey", "one channel", "batch", "no batch axis", "by name"],
)
def test_an_image_and_its_arrays_give_the_same(net: Path, inputs: Any) -> None:
    network = NestedRuntime(net)
    assert network.run(inputs)["logits"].tolist() == _expected(network.artifact)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((3, 2), np.uint8), r"expected an image of uint8 and shape \(2, 2, 1\)"),
        (np.zeros((2, 2, 3), np.uint8), r"found uint8 and \(2, 2, 3\); resize or convert it"),
        (np.zeros((2, 2)), r"expected shape \(1, 1, 2, 2\) and dtype float32"),
        ({"x": BATCH}, "no input 'x'; inputs are"),
        ({}, "input 'input' is missing"),
    ],
    ids=["size", "colour", "dtype", "name", "none"],
)
def test_inputs_that_do_not_fit_are_refused(net: Path, inputs: Any, message: str) -> None:
    network = NestedRuntime(net)
    with pytest.raises(ValueError, match=message):
        network.run(inputs)
    assert network.run(BATCH)["logits"].shape == (1, 3)


def test_the_best_labels_come_first(net: Path) -> None:
    network = NestedRuntime(net)
    (scores,) = _expected(network.artifact)
    order = sorted(range(3), key=lambda index: -scores[index])
    found = network.classify(PIXELS)
    assert [label.label for label in found] == [("zero", "one", "two")[index] for index in order]
    assert [label.score for label in found] == [scores[index] for index in order]
    assert network.classify(PIXELS, top=1) == found[:1]
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        network.classify(PIXELS, top=0)


def test_without_labels_nothing_is_classified(tmp_path: Path, fake_runtime: Path) -> None:
    fake_artifact(tmp_path / "dist", replace(DESCRIPTION, labels=None))
    with pytest.raises(UsageError, match="small/fake-fp32: has no labels"):
        NestedRuntime(tmp_path / "dist").classify(PIXELS)


def test_levels_are_switched_in_the_same_precision(net: Path) -> None:
    document = json.loads((net / "shipment.json").read_text())
    (net / "shipment.json").write_text(json.dumps({**document, "default": "full/fake-fp32"}))
    network = NestedRuntime(net)
    full = network.run(BATCH)["logits"].tolist()
    network.switch("small")
    assert network.cell == "small/fake-fp32"
    assert network.run(BATCH)["logits"].tolist() == _expected(network.artifact) != full
    network.switch("small")
    network.switch("full")
    assert network.run(BATCH)["logits"].tolist() == full


def test_a_level_without_the_precision_is_switched_to_in_another(dist: Path) -> None:
    shutil.rmtree(dist / "small" / "fake-int8")
    network = NestedRuntime(dist / "full" / "fake-int8")
    assert network.levels == ("full",)
    shutil.rmtree(dist / "full" / "fake-fp32")
    network = NestedRuntime(dist)
    assert network.cell == "full/fake-int8"
    network.switch("small")
    assert network.cell == "small/fake-fp32"
    strict = NestedRuntime(dist, precision="int8")
    with pytest.raises(UsageError, match="level 'small': no precision 'int8'"):
        strict.switch("small")
    assert strict.cell == "full/fake-int8"


def test_an_unknown_level_gets_a_suggestion_and_the_old_one_stays(net: Path) -> None:
    network = NestedRuntime(net)
    with pytest.raises(UsageError, match=r"no level 'smal'; .*; did you mean 'small'\?"):
        network.switch("smal")
    assert network.level == "full"


def test_a_level_that_was_changed_is_not_switched_to(net: Path) -> None:
    network = NestedRuntime(net)
    change(net / "small" / "fake-int8" / "model.fake")
    expected = (
        r"^small/fake-int8: model\.fake: expected sha256 .*, found .*; build or fetch it again"
    )
    with pytest.raises(IntegrityError, match=expected):
        network.switch("small")
    assert network.level == "full"
    assert network.run(BATCH)["logits"].tolist() == _expected(network.artifact)


@pytest.mark.parametrize("name", ["artifact.json", "model.fake", "reference.safetensors"])
@pytest.mark.parametrize("damage", [change, Path.unlink], ids=["changed", "missing"])
def test_a_changed_file_is_not_opened(net: Path, name: str, damage: Any) -> None:
    damage(net / "full" / "fake-int8" / name)
    with pytest.raises(IntegrityError, match=rf"^full/fake-int8: {re.escape(name)}: "):
        NestedRuntime(net)


def test_another_artifact_in_the_place_of_one_is_not_opened(net: Path) -> None:
    shutil.rmtree(net / "full" / "fake-int8")
    shutil.copytree(net / "small" / "fake-int8", net / "full" / "fake-int8")
    with pytest.raises(IntegrityError, match=r"^full/fake-int8: artifact\.json: expected sha256"):
        NestedRuntime(net)


def test_another_runtime_is_used_once_it_has_run_the_reference(net: Path, site: Path) -> None:
    entry = {"fake-legacy": "tests.test_runtime:LegacyRuntime"}
    declare_plugins(site, group="nestedge.runtimes", entries=entry)
    network = NestedRuntime(net, runtime="fake-legacy")
    assert network.run(BATCH)["logits"].tolist() == _expected(network.artifact)
    network.switch("small")
    assert network.cell == "small/fake-int8"


def test_another_runtime_that_computes_something_else_is_refused(net: Path, site: Path) -> None:
    entry = {"fake-wrong": "tests.test_runtime:WrongRuntime"}
    declare_plugins(site, group="nestedge.runtimes", entries=entry)
    expected = (
        r"^full/fake-int8: runtime 'fake-wrong', legacy 0\.9, does not give what the level gives: "
        r"error .* is above 0\.1 \(int8: .*\)$"
    )
    with pytest.raises(VerificationError, match=expected) as caught:
        NestedRuntime(net, runtime="fake-wrong")
    assert caught.value.exit_code == 3


class WrongProvider(ProviderFake):
    """Computes something else on its provider."""

    def on_provider(self, name: str) -> WrongProvider:
        return WrongProvider(name)

    def open(self, path: Path, *, threads: int = 1) -> FakeSession:
        tensors = safetensors.load(path.read_bytes())
        return (WrongSession if self._provider else FakeSession)(tensors)


def test_a_provider_is_used_once_it_has_run_the_reference(
    tmp_path: Path, provider_runtime: Path
) -> None:
    artifact = fake_artifact(tmp_path)
    network = NestedRuntime(tmp_path, provider="npu")
    assert network.run(BATCH)["logits"].tolist() == _expected(artifact)
    with pytest.raises(PlacementError, match="fake could not start dead"):
        NestedRuntime(tmp_path, provider="dead")
    with pytest.raises(UsageError, match="fake has no provider 'gpu' here"):
        NestedRuntime(tmp_path, provider="gpu")


def test_a_provider_that_computes_something_else_is_refused(tmp_path: Path, site: Path) -> None:
    entry = {"fake": "tests.test_runtime:WrongProvider"}
    declare_plugins(site, group="nestedge.runtimes", entries=entry)
    fake_artifact(tmp_path)
    assert NestedRuntime(tmp_path).cell == "small/fake-fp32"
    expected = r"runtime 'fake', fake 1\.0 \(npu\), does not give what the level gives"
    with pytest.raises(VerificationError, match=expected):
        NestedRuntime(tmp_path, provider="npu")


def _other_runtimes(folder: Path) -> None:
    """Copies a build's cells, for runtimes that are not installed, or need an engine."""
    for runtime, checked_by in (("absent", "absent"), ("tensorrt", "onnx")):
        fake_artifact(folder, replace(DESCRIPTION, runtime=runtime, checked_by=checked_by))


def test_the_runtime_that_is_installed_is_used(tmp_path: Path, site: Path) -> None:
    declare_plugins(site, group="nestedge.runtimes", entries={"absent": "no_such_module:Runtime"})
    _other_runtimes(tmp_path / "dist")
    expected = "^runtime 'absent' is declared, but no_such_module is missing: reinstall"
    with pytest.raises(MissingDependencyError, match=expected):
        NestedRuntime(tmp_path / "dist")
    entries = {"fake": "tests.fakes:FakeRuntime"}
    declare_plugins(site, group="nestedge.runtimes", entries=entries)
    fake_artifact(tmp_path / "dist", replace(DESCRIPTION, precision="int8", tolerance=0.1))
    assert NestedRuntime(tmp_path / "dist").cell == "small/fake-int8"


def test_an_engine_that_the_user_builds_is_not_opened(tmp_path: Path) -> None:
    _other_runtimes(tmp_path / "dist")
    expected = r"^small/tensorrt-fp32: NestedRuntime does not open it; .* see docs/shipping\.md$"
    with pytest.raises(UsageError, match=expected):
        NestedRuntime(tmp_path / "dist", runtime="tensorrt")
    shutil.rmtree(tmp_path / "dist" / "small" / "absent-fp32")
    for runtime in (None, "onnx"):
        with pytest.raises(UsageError, match=expected):
            NestedRuntime(tmp_path / "dist", runtime=runtime)


def test_runs_and_switches_of_several_threads_do_not_mix_levels(net: Path) -> None:
    network = NestedRuntime(net)
    expected = {}
    for level in network.levels:
        network.switch(level)
        expected[level] = _expected(network.artifact)
    seen: list[object] = []

    def run() -> None:
        seen.extend(network.run(BATCH)["logits"].tolist() in expected.values() for _ in range(50))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for index in range(20):
        network.switch(network.levels[index % 2])
    for thread in threads:
        thread.join()
    assert seen == [True] * 150
    assert network.run(BATCH)["logits"].tolist() == expected[network.level]


def test_the_old_level_runs_while_the_new_one_is_opened(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = NestedRuntime(net)
    full, opened = _expected(network.artifact), FakeRuntime.open
    during: list[object] = []

    def open_slowly(self: FakeRuntime, path: Path, *, threads: int = 1) -> FakeSession:
        other = threading.Thread(
            target=lambda: during.append(network.run(BATCH)["logits"].tolist())
        )
        other.start()
        other.join(timeout=10)
        return opened(self, path, threads=threads)

    monkeypatch.setattr(FakeRuntime, "open", open_slowly)
    network.switch("small")
    assert during == [full]


def test_shipping_fetching_and_running_import_no_torch(made: Path, tmp_path: Path) -> None:
    declare_plugins(
        tmp_path, group="nestedge.runtimes", entries={"fake": "tests.fakes:FakeRuntime"}
    )
    code = f"""
import sys
sys.modules["torch"] = None  # an import of it fails
sys.path.insert(0, {str(tmp_path)!r})
import numpy as np
from pathlib import Path
from nestedge import NestedRuntime
from nestedge.packaging.fetching import fetch
from nestedge.packaging.shipping import ship
import nestedge.cli.fetch, nestedge.cli.run, nestedge.cli.ship
ship(Path({str(made / "dist")!r}), Path({str(tmp_path / "repo")!r}), devices=["phone"])
fetch({str(tmp_path / "repo")!r}, device="phone", destination=Path({str(tmp_path / "net")!r}))
network = NestedRuntime({str(tmp_path / "net")!r})
network.switch("small")
print(len(network.classify(np.zeros((2, 2), np.uint8))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("3", "")


def test_the_python_of_the_documentation_runs(
    net: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "shipping.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(net.parent)
    exec(compile(code, "docs/shipping.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "('small', 'full') full/fake-int8"
    assert {line.split()[0] for line in lines[1:]} == {"zero", "one", "two"}


def test_nested_runtime_is_a_name_of_the_package() -> None:
    assert nestedge.NestedRuntime is NestedRuntime


def test_what_an_older_network_left_in_a_build_folder_is_not_run(dist: Path) -> None:
    fake_artifact(dist, replace(DESCRIPTION, level="huge", parameters=10**9))
    assert NestedRuntime(dist).levels == ("small", "full")
    for cell in CELLS:
        shutil.rmtree(dist / cell)
    with pytest.raises(UsageError, match="holds no artifact of its last build"):
        NestedRuntime(dist)
