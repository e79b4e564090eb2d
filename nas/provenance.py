"""What a result was made with: commit, versions, machine. Plain text by name, for tags and reports."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("torch", "optuna", "ray", "fvcore", "mlflow", "lightning-fabric", "scikit-learn", "numpy")


def provenance() -> dict[str, str]:
    """Git commit of the working directory (with `+changes`), Python and package versions, machine."""
    facts = {"python": platform.python_version(), "platform": platform.platform(), "cores": str(os.cpu_count())}
    commit = _git("rev-parse", "HEAD")
    if commit:
        facts["commit"] = commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
