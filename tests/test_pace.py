"""The script that measures prepare and the loader, at its smallest."""

import json
import os
import subprocess
import sys

import pytest
from command_line import ROOT


@pytest.mark.slow
def test_it_tells_time_and_memory_of_each_count_and_the_loaders_pace(tmp_path):
    words = ["--subjects=4,5", "--shape=16x24x24", "--spacing=8", "--steps=3", "--batch=2"]
    done = subprocess.run(
        [sys.executable, "launch/pace.py", *words, f"--folder={tmp_path}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    small, large, loader = (json.loads(line) for line in done.stdout.splitlines())
    assert small["volumes"] < large["volumes"]
    for row in (small, large):
        assert row["prepare_s"] > 0 and row["own_peak_mb"] > 10 and row["worker_peak_mb"] > 10
        voxels = 3 * 16 * 24 * 24 * row["volumes"]  # two bytes an intensity, one a label
        assert voxels < row["store_mb"] * 2**20 < 1.2 * voxels
    assert loader["loader_volumes_per_s"] > 0
