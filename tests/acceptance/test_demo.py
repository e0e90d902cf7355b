"""What a newcomer types first works: the demo runs to its end in time, and the separate check agrees with every log."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "scripts" / "demo"
RUN_SECONDS_MAX = 240


@pytest.mark.timeout(RUN_SECONDS_MAX + 120)
def test_the_demo_ends_in_under_four_minutes_and_its_check_agrees() -> None:
    folder = Path(tempfile.mkdtemp(prefix="leadline-demo-"))
    folder.chmod(0o755)  # the user of the embedded Postgres must be able to pass through
    directory = folder / "run"
    try:
        began = time.monotonic()
        demo = subprocess.run([DEMO, "--dir", directory], capture_output=True, text=True, check=False, cwd="/")
        seconds = time.monotonic() - began
        assert demo.returncode == 0, demo.stdout + demo.stderr
        assert seconds < RUN_SECONDS_MAX, f"it took {seconds:.0f} s"
        verified = subprocess.run([DEMO, "--verify", directory], capture_output=True, text=True, check=False, cwd="/")
        assert verified.returncode == 0, verified.stdout
        assert "all agree" in verified.stdout
    finally:
        shutil.rmtree(folder, ignore_errors=True)
