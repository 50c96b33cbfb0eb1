"""Measures a peer: resident memory of this process, and top-1 accuracy of the file it wrote."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from peer_data import BadInput

STATUS = Path("/proc/self/status")


def _status_bytes(key: str) -> int | None:
    if not STATUS.exists():
        return None
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


def reset_peak_rss() -> None:
    """Makes the peak start again from the present value (Linux; elsewhere the peak stays that of the whole process)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def rss_bytes() -> int | None:
    """Resident memory now, bytes; None where the system does not say."""
    return _status_bytes("VmRSS")


def peak_rss_bytes() -> int:
    """Peak resident memory, bytes. On Linux VmHWM, since ru_maxrss may carry over the peak of the process that started this one."""
    peak = _status_bytes("VmHWM")
    if peak is not None:
        return peak
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def top1(model: Path, batches: Iterable[tuple[np.ndarray, np.ndarray]], threads: int) -> tuple[float, int]:
    """Share of samples whose largest logit is at the label, and their number. The model has one input and gives logits [N, classes] first."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    right = total = 0
    for inputs, labels in batches:
        logits = session.run(None, {name: inputs})[0]
        if logits.ndim != 2 or len(logits) != len(labels):
            raise BadInput(f"{model}: first output has shape {list(logits.shape)}, logits [{len(labels)}, classes] needed for top-1; leave --test out.")
        right += int((logits.argmax(axis=1) == labels).sum())
        total += len(labels)
    return right / total, total
