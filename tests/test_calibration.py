from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from nestedge.calibration import (
    MOST_FILES,
    Calibration,
    calibration_sha256,
    read_calibration,
    sha256_of_arrays,
)
from nestedge.errors import FormatError, NestedgeError, UsageError
from nestedge.plugins import TensorInfo
from nestedge.preprocessing import Preprocessing

STEPS = Preprocessing("image", scale=1 / 255, mean=(0.5,) * 3, std=(0.25,) * 3)
IMAGE = TensorInfo("image", (1, 3, 2, 4), "float32")
PLACE = TensorInfo("place", (1,), "int64")
PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
BATCH = STEPS.apply(PIXELS, size=(2, 4))


def _read(
    folder: Path, *inputs: TensorInfo, steps: Preprocessing | None = STEPS
) -> dict[str, npt.NDArray[np.generic]]:
    return dict(read_calibration(folder, inputs or (IMAGE,), preprocessing=steps).inputs)


def _save(path: Path, array: npt.NDArray[np.generic] = BATCH) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def test_every_form_of_a_case_gives_the_same(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "1.png")
    Image.fromarray(PIXELS).save(tmp_path / "2.BMP")
    _save(tmp_path / "3.npy", PIXELS)
    _save(tmp_path / "4.npy", BATCH)
    _save(tmp_path / "5.npy", BATCH[0])
    np.savez(tmp_path / "6.npz", image=BATCH)
    np.savez(tmp_path / "7.npz", image=PIXELS)
    found = _read(tmp_path)
    assert found["image"].shape == (7, 1, 3, 2, 4)
    assert found["image"].dtype == np.float32
    assert np.array_equal(found["image"], np.stack([BATCH] * 7))


def test_several_inputs_come_from_one_file_by_their_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=PIXELS, place=np.array([3]))
    np.savez(tmp_path / "b.npz", place=np.array([5]), image=BATCH)
    found = _read(tmp_path, IMAGE, PLACE)
    assert found["place"].tolist() == [[3], [5]]
    assert found["image"].shape == (2, 1, 3, 2, 4)


def test_files_are_taken_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for number, name in enumerate(["a/b.npy", "a/z.npy", "b.npy", "c/d/e.npy", "é.npy"]):
        _save(tmp_path / name, np.full_like(BATCH, number))
    assert _read(tmp_path)["image"][:, 0, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / ".hidden above" / "data"
    _save(folder / "x.npy")
    _save(folder / ".y.npy", np.zeros(1))
    _save(folder / ".cache" / "deep" / "z.npy", np.zeros(1))
    (folder / "labels.txt").write_text("cat")
    (folder / "folder.png").mkdir()
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    assert len(_read(folder)["image"]) == 1


def test_many_files_are_taken_spread_evenly(tmp_path: Path) -> None:
    scalar = TensorInfo("x", (1,), "int64")
    for number in range(2 * MOST_FILES + 1):
        np.save(tmp_path / f"{number:04}.npy", np.array([number]))
    found = _read(tmp_path, scalar)["x"][:, 0]
    assert len(found) == MOST_FILES
    assert found[0] == 0
    assert set(np.diff(found.astype(np.int64))) <= {2, 3}
    assert found[-1] >= 2 * MOST_FILES - 2
    # Another file that is not taken leaves the hash, which is of what is.
    before = calibration_sha256(tmp_path)
    np.save(tmp_path / "0001.npy", np.array([7]))
    assert calibration_sha256(tmp_path) == before


def _png(mode: str, width: int, height: int) -> Callable[[Path], None]:
    return lambda folder: Image.new(mode, (width, height)).save(folder / "x.png")


def _npy(array: npt.NDArray[np.generic]) -> Callable[[Path], None]:
    return lambda folder: _save(folder / "x.npy", array)


def _npz(**arrays: npt.NDArray[np.generic]) -> Callable[[Path], None]:
    return lambda folder: np.savez(folder / "x.npz", **arrays)


def _bytes(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


_NAN = BATCH.copy()
_NAN[0, 2, 1, 3] = np.nan

BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "image of another size": (
        _png("RGB", 5, 2),
        r"x\.png: expected an image of uint8 and shape \(2, 4, 3\) .*found uint8 and \(2, 5, 3\)",
    ),
    "image of another mode": (_png("RGBA", 4, 2), r"x\.png: expected an image of mode RGB, found"),
    "no image": (_bytes("x.jpg", b"no"), r"x\.jpg: not an image"),
    "no array": (_bytes("x.npy", b"no"), r"x\.npy: not a \.npy or \.npz of plain arrays"),
    "another shape": (
        _npy(np.zeros((1, 3, 4, 2), np.float32)),
        r"x\.npy: input 'image': expected shape \(1, 3, 2, 4\) and .*, found \(1, 3, 4, 2\)",
    ),
    "many cases": (
        _npy(np.zeros((5, 3, 2, 4), np.float32)),
        r"x\.npy: input 'image': .* found \(5, 3, 2, 4\)",
    ),
    "another dtype": (
        _npy(BATCH.astype(np.float64)),
        r"x\.npy: input 'image': .* dtype float32, found \(1, 3, 2, 4\) and float64",
    ),
    "text": (_npy(np.full((1, 3, 2, 4), "a")), r"x\.npy: input 'image': .* and str"),
    "unknown name": (
        _npz(imag=BATCH),
        r"x\.npz: no input 'imag'; inputs are \['image'\]; did you mean 'image'\?",
    ),
    "an entry without a name": (_npz(**{"": BATCH, "image": BATCH}), r"x\.npz: no input ''"),
    "no entry": (_npz(), r"x\.npz: input 'image' is missing; given are \[\]"),
    "NaN": (_npy(_NAN), r"x\.npy: input 'image': expected finite.*, found nan at \[0, 2, 1, 3\]"),
    "infinity": (_npy(np.full_like(BATCH, np.inf)), r"x\.npy: .*found inf at \[0, 0, 0, 0\]"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_a_file_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    _save(tmp_path / "good.npy")
    make(tmp_path)
    with pytest.raises((UsageError, FormatError), match=message) as caught:
        _read(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_file_without_names_is_refused_for_several_inputs(tmp_path: Path) -> None:
    _save(tmp_path / "x.npy")
    expected = r"x\.npy: the network has inputs \['image', 'place'\]; give a \.npz with these names"
    with pytest.raises(UsageError, match=expected):
        _read(tmp_path, IMAGE, PLACE)


def test_an_image_is_refused_without_preprocessing(tmp_path: Path) -> None:
    _png("RGB", 4, 2)(tmp_path)
    with pytest.raises(UsageError, match=r"x\.png: the network says no preprocessing for images"):
        _read(tmp_path, steps=None)


def test_an_image_for_an_input_of_another_shape_is_refused(tmp_path: Path) -> None:
    _png("RGB", 4, 2)(tmp_path)
    expected = r"x\.png: input 'image' of shape \(1, 8\) takes no NCHW image of 3 channels"
    with pytest.raises(UsageError, match=expected):
        _read(tmp_path, TensorInfo("image", (1, 8), "float32"))


@pytest.mark.parametrize("read", [_read, calibration_sha256])
def test_a_folder_with_nothing_in_it_is_refused(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError, match=r"^calibration: .*: holds no image, \.npy or \.npz$"):
        read(tmp_path)
    for path in (tmp_path / "none", tmp_path / "notes.txt"):
        with pytest.raises(UsageError, match=r"^calibration: .*: no such folder$"):
            read(path)


def _renamed(folder: Path) -> None:
    (folder / "b.npy").rename(folder / "c.npy")


def _swapped(folder: Path) -> None:
    a, b = ((folder / name).read_bytes() for name in ("a.npy", "b.npy"))
    (folder / "a.npy").write_bytes(b)
    (folder / "b.npy").write_bytes(a)


CHANGES: dict[str, Callable[[Path], object]] = {
    "another file": lambda folder: _save(folder / "c.npy"),
    "a file less": lambda folder: (folder / "b.npy").unlink(),
    "another name": _renamed,
    "another content": lambda folder: _save(folder / "b.npy", 2 * BATCH),
    "contents swapped": _swapped,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_hash_changes_with_names_and_contents(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    _save(tmp_path / "a.npy", BATCH)
    _save(tmp_path / "b.npy", BATCH + 1)
    before = calibration_sha256(tmp_path)
    change(tmp_path)
    assert calibration_sha256(tmp_path) != before


def test_the_hash_is_the_same_read_or_not_and_wherever_the_folder_is(tmp_path: Path) -> None:
    for folder in ("here", "there/deep"):
        _save(tmp_path / folder / "sub" / "a.npy")
        (tmp_path / folder / "notes.txt").write_text(folder)
    found = read_calibration(tmp_path / "here", (IMAGE,), preprocessing=None)
    assert found.sha256 == calibration_sha256(tmp_path / "here")
    assert found.sha256 == calibration_sha256(tmp_path / "there" / "deep")


def test_the_hash_needs_no_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "x.png").write_bytes(b"no image")
    assert len(calibration_sha256(tmp_path)) == 64
    with pytest.raises(NestedgeError):
        _read(tmp_path)


def test_the_hash_of_arrays_depends_on_all_of_them_and_not_on_their_order() -> None:
    arrays: dict[str, npt.NDArray[np.generic]] = {"a": np.zeros(4, np.int32), "b": np.ones(2)}
    changes: list[dict[str, npt.NDArray[np.generic]]] = [
        {**arrays, "a": np.zeros(4, np.float32)},
        {**arrays, "a": np.zeros((2, 2), np.int32)},
        {**arrays, "a": np.array([0, 0, 0, 1], np.int32)},
        {"c": arrays["a"], "b": arrays["b"]},
        {"a": arrays["a"]},
    ]
    hashes = {sha256_of_arrays(changed) for changed in [arrays, *changes]}
    assert len(hashes) == 1 + len(changes)
    assert sha256_of_arrays(dict(reversed(arrays.items()))) == sha256_of_arrays(arrays)


def test_the_cases_are_counted() -> None:
    assert Calibration({"image": np.zeros((5, 1, 2))}, "").cases == 5
