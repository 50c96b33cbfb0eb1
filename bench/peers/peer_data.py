"""Reads calibration and test samples for the peers: .npz arrays row by row (nothing but the wanted rows is held), or a folder of images."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


class BadInput(Exception):
    """The user's arguments or files are wrong; the message says which, why and what to do."""


@dataclass(frozen=True)
class Preprocess:
    """x -> (x / 255 - mean) / std per channel; `size`: side of the square cut from the centre of image files, pixels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, C] -> float32 [N, C, H, W]."""
        channels = pixels.shape[-1]
        if len(self.mean) not in (1, channels) or len(self.std) not in (1, channels):
            raise BadInput(f"--mean and --std have {len(self.mean)} and {len(self.std)} values, the images {channels} channels; give 1 or {channels} of each.")
        scaled = pixels.astype(np.float32) / np.float32(255)
        normalized = (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normalized.transpose(0, 3, 1, 2))


class NpzArray:
    """One array of an .npz file, read by rows of its first axis without loading the rest."""

    def __init__(self, path: Path, member: str) -> None:
        self.name = member
        self._stream = zipfile.ZipFile(path).open(f"{member}.npy")
        version = np.lib.format.read_magic(self._stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, fortran, self.dtype = read_header(self._stream)
        if fortran or self.dtype.hasobject or not self.shape:
            raise BadInput(f"{path}: array '{member}' must be a C-ordered numeric array with samples on its first axis; save it again with numpy.savez.")
        self._start = self._stream.tell()
        self._row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:]))

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """The rows `ids` (ascending), shape [len(ids), ...]."""
        out = np.empty((len(ids), *self.shape[1:]), self.dtype)
        for to, row in enumerate(ids):
            self._stream.seek(self._start + int(row) * self._row_bytes)
            raw = self._stream.read(self._row_bytes)
            if len(raw) != self._row_bytes:
                raise BadInput(f"array '{self.name}' ends inside row {row}; the .npz file is truncated.")
            out[to] = np.frombuffer(raw, self.dtype).reshape(self.shape[1:])
        return out


def open_npz(path: Path, input_name: str) -> tuple[NpzArray, NpzArray | None]:
    """The samples (the array named as the model's input, or the only one that is not `labels`) and the labels, if there are any."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except zipfile.BadZipFile as error:
        raise BadInput(f"{path}: not a readable .npz file ({error}).") from error
    candidates = [name for name in members if name != "labels"]
    if input_name in candidates:
        chosen = input_name
    elif len(candidates) == 1:
        chosen = candidates[0]
    else:
        raise BadInput(f"{path}: arrays {candidates}, none named '{input_name}' as the model's input; rename one.")
    samples = NpzArray(path, chosen)
    labels = NpzArray(path, "labels") if "labels" in members else None
    if labels is not None and labels.shape[0] != samples.shape[0]:
        raise BadInput(f"{path}: {samples.shape[0]} samples and {labels.shape[0]} labels; the counts must be equal.")
    return samples, labels


def to_input(rows: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """uint8 images [N, H, W, C] go through the preprocessing; float arrays are fed as they are, as float32."""
    if rows.dtype == np.uint8 and rows.ndim == 4:
        return preprocess.images(rows)
    if rows.dtype.kind == "f":
        return rows.astype(np.float32, copy=False)
    raise BadInput(f"samples of dtype {rows.dtype} and rank {rows.ndim}; give uint8 [N, H, W, C] images or float arrays.")


def choose(total: int, count: int, seed: int) -> np.ndarray:
    """`count` distinct sample ids below `total`, ascending, by seed."""
    if total < count:
        raise BadInput(f"{count} calibration samples asked for, {total} there; lower --calib.")
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False))


def read_image(path: Path, size: int) -> np.ndarray:
    """RGB uint8 [size, size, 3]: enlarged only if the short side is below `size`, then cut from the centre."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except OSError as error:
        raise BadInput(f"{path}: not a readable image ({error}); remove it or replace it.") from error
    short = min(image.size)
    if short < size:
        image = image.resize(tuple(round(side * size / short) for side in image.size), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def calibration_samples(data: Path, input_name: str, count: int, seed: int, preprocess: Preprocess) -> np.ndarray:
    """float32 [count, ...] in the model's input layout, from an .npz file or a folder of images (searched recursively)."""
    if data.is_dir():
        if preprocess.size is None:
            raise BadInput(f"{data}: a folder of images needs --size.")
        files = sorted(file for file in data.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        chosen = choose(len(files), count, seed)
        return preprocess.images(np.stack([read_image(files[i], preprocess.size) for i in chosen]))
    samples, _ = open_npz(data, input_name)
    return to_input(samples.rows(choose(samples.shape[0], count, seed)), preprocess)


def labelled_batches(test: Path, input_name: str, batch: int, preprocess: Preprocess) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(inputs, labels) over the whole of `test` in file order."""
    samples, labels = open_npz(test, input_name)
    if labels is None:
        raise BadInput(f"{test}: top-1 needs an array 'labels'.")
    for start in range(0, samples.shape[0], batch):
        ids = np.arange(start, min(start + batch, samples.shape[0]))
        yield to_input(samples.rows(ids), preprocess), labels.rows(ids)
