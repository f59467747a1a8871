"""Where the project's own files lie, found from this file so that any working directory will do."""

from __future__ import annotations

from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parents[2]
RESOURCES_DIR = PROJECT_DIR / "resources"
