"""
Reads the TensorBoard log of a training with TensorBoard's own reader and compares it with the JSON lines beside it.

    VENV/bin/python bench/peers/check_tensorboard.py RUN_DIR

RUN_DIR is the --run-dir of `flow-compress train`: it holds metrics.jsonl and tensorboard/. Prints one JSON object: how many points every
tag has. Exit codes: 0 all points agree, 1 they do not, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Tag by kind of line and field.
TAGS = {
    "step": {
        "train/loss": "loss",
        "train/learning_rate": "learningRate",
        "train/gradient_norm": "gradientNorm",
        "train/samples_per_second": "samplesPerSecond",
    },
    "epoch": {"val/score": "score", "train/epoch_loss": "loss"},
}


def expected_points(path: Path) -> dict[str, dict[int, float]]:
    points: dict[str, dict[int, float]] = {}
    for line in path.read_text().splitlines():
        event = json.loads(line)
        for tag, field in TAGS[event["kind"]].items():
            value = event[field]
            points.setdefault(tag, {})[event["step"]] = math.nan if value is None else value
    return points


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("run_dir", type=Path)
    run_dir = parser.parse_args().run_dir
    if not (run_dir / "metrics.jsonl").is_file():
        print(f"{run_dir} holds no metrics.jsonl", file=sys.stderr)
        return 2
    # 0: keep all points, where the default is a sample of them.
    log = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0})
    log.Reload()
    # A resumed training writes a second file; the later point of a step counts.
    found = {tag: {point.step: point.value for point in log.Scalars(tag)} for tag in log.Tags()["scalars"]}
    expected = expected_points(run_dir / "metrics.jsonl")
    differences = []
    for tag in sorted({*found, *expected}):
        left, right = found.get(tag, {}), expected.get(tag, {})
        if left.keys() != right.keys():
            differences.append(f"{tag}: steps {sorted(left.keys() ^ right.keys())[:5]} are in one of them only")
        for step in left.keys() & right.keys():
            same = math.isclose(left[step], right[step], rel_tol=1e-6, abs_tol=1e-30)
            if not same and not (math.isnan(left[step]) and math.isnan(right[step])):
                differences.append(f"{tag} at step {step}: {left[step]}, in the lines {right[step]}")
    print(json.dumps({"points": {tag: len(points) for tag, points in found.items()}, "differences": differences[:20]}))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
