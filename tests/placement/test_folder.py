from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nestedge.artifact import Artifact
from nestedge.errors import IntegrityError, PlacementError, UsageError
from nestedge.placement import (
    Operator,
    Placed,
    Placement,
    Placements,
    check_share,
    place_folder,
    placement_from_log,
    placement_of,
)
from tests.fakes import DESCRIPTION, FakeRuntime, declare_plugins, fake_artifact, fake_build

OPERATORS = (Operator("CONV_2D", "a", 900), Operator("FULLY_CONNECTED", "b", 100))
LOG = "Replacing 2 out of 2 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partitions"


class PlacingRuntime(FakeRuntime):
    """A fake runtime that says of every file that its last operator runs on the processor."""

    def placement(
        self, path: Path, *, accelerator: str | None = None, threads: int = 1
    ) -> Placement:
        asked = accelerator or "NPU"
        placed = [Placed(op.kind, op.name, asked, op.macs) for op in OPERATORS[:-1]]
        placed.append(Placed(OPERATORS[-1].kind, "b", "CPU", 100))
        return Placement(asked, tuple(placed), threads, f"fake of {path.name}")

    def operators(self, path: Path) -> tuple[Operator, ...]:
        return OPERATORS


@pytest.fixture
def placing(site: Path) -> None:
    """Declares the runtime "fake", which says where it runs operators."""
    declare_plugins(
        site,
        group="nestedge.runtimes",
        entries={"fake": f"{__name__}:PlacingRuntime", "mute": "tests.fakes:FakeRuntime"},
    )


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """An artifact that the runtime "fake" opens."""
    return fake_artifact(tmp_path / "dist")


def test_each_artifact_is_placed_by_its_runtime(tmp_path: Path, placing: None) -> None:
    fake_build(tmp_path)
    found = place_folder(tmp_path, threads=3)
    assert list(found.found) == ["full/fake-fp32", "small/fake-fp32"]
    assert found.untold == {}
    placement = found.found["small/fake-fp32"]
    assert (placement.share, placement.partitions) == (0.9, 3)
    assert placement.source == "fake of model.fake"


def test_another_accelerator_may_be_asked_for(artifact: Artifact) -> None:
    assert placement_of(artifact, PlacingRuntime(), accelerator="DSP").accelerator == "DSP"


def test_a_runtime_that_does_not_say_is_told_of(tmp_path: Path, fake_runtime: Path) -> None:
    (artifact,) = fake_build(tmp_path, ["small"])
    reason = "runtime 'fake' does not say where its operators run"
    assert place_folder(tmp_path) == Placements({}, {"small/fake-fp32": reason})
    with pytest.raises(UsageError, match=f"small/fake-fp32: {reason}"):
        placement_of(artifact, FakeRuntime())


def test_an_engine_that_is_not_built_is_not_placed_by_what_checks_it(
    tmp_path: Path, placing: None
) -> None:
    fake_artifact(tmp_path, replace(DESCRIPTION, runtime="engine"))
    found = place_folder(tmp_path)
    assert found.found == {}
    assert found.untold["small/engine-fp32"].startswith("its engine is built on the device: give")


def test_only_what_a_runtime_opens_is_placed_by_it(tmp_path: Path, placing: None) -> None:
    fake_build(tmp_path)
    fake_artifact(tmp_path, replace(DESCRIPTION, runtime="other", checked_by="other"))
    assert len(place_folder(tmp_path, runtime="fake").found) == 2
    with pytest.raises(UsageError, match="runtime 'mute' opens artifacts of 'fake'; these are of"):
        place_folder(tmp_path / "small" / "other-fp32", runtime="mute")


def test_a_changed_file_is_not_placed(tmp_path: Path, placing: None) -> None:
    (artifact,) = fake_build(tmp_path, ["small"])
    artifact.model_path.write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"model\.fake"):
        place_folder(tmp_path)


def test_a_log_is_joined_with_the_operators_of_the_file(tmp_path: Path, artifact: Artifact) -> None:
    log = tmp_path / "phone.log"
    log.write_bytes(b"\xff\xfe garbage\n" + LOG.encode())
    placement = placement_from_log(artifact, PlacingRuntime(), log)
    assert (placement.accelerator, placement.unit) == ("GPU", "MACs")
    assert [operator.kind for operator in placement.operators] == ["CONV_2D", "FULLY_CONNECTED"]
    assert placement.source == str(log)
    # Of a runtime that cannot say what is in a file, only the numbers in the log are known.
    assert placement_from_log(artifact, FakeRuntime(), log).unit == "operators"


def test_a_missing_log_is_an_error_of_use(tmp_path: Path, artifact: Artifact) -> None:
    with pytest.raises(UsageError, match=r"none\.log: no such file"):
        placement_from_log(artifact, PlacingRuntime(), tmp_path / "none.log")


def _placements(untold: dict[str, str], **shares: Sequence[int]) -> Placements:
    """Placements of artifacts with so many MACs on the accelerator, and so many elsewhere."""
    found = {
        cell: Placement(
            "NPU",
            (Placed("CONV_2D", "a", "NPU", there), Placed("TOPK_V2", "b", "CPU", elsewhere)),
            1,
            "a test",
        )
        for cell, (there, elsewhere) in shares.items()
    }
    return Placements(found, untold)


def test_enough_on_the_accelerator_is_accepted() -> None:
    check_share(_placements({}, a=(98, 2), b=(100, 0)), 0.98)


def test_too_little_on_the_accelerator_exits_4_with_what_is_elsewhere() -> None:
    message = (
        r"^not everything has 98\.0% on its accelerator: b: 97\.0% of MACs on NPU, elsewhere "
        r"1 TOPK_V2; build them in another precision, .*: see docs/placement\.md$"
    )
    with pytest.raises(PlacementError, match=message) as caught:
        check_share(_placements({}, a=(98, 2), b=(97, 3)), 0.98)
    assert caught.value.exit_code == 4


def test_what_nobody_knows_is_not_enough() -> None:
    untold = {"c": "it is mute", "d": "it is mute", "e": "no engine"}
    with pytest.raises(PlacementError, match="accelerator: c, d: it is mute; e: no engine; build"):
        check_share(_placements(untold, a=(98, 2)), 0.5)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_0_to_1(share: float) -> None:
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got"):
        check_share(Placements({}, {}), share)
