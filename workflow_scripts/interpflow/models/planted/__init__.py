"""Models whose inner workings are known because they were written down, to test methods against."""

from interpflow.models.planted.edge_truth import PlantedEdge, roles_of_edges
from interpflow.models.planted.models import PlantedModel, planted_gpt2, planted_llama
from interpflow.models.planted.pairs import PlantedPair
from interpflow.models.planted.scoring import (
    NullCalibration,
    TruthScore,
    effects_at_span,
    null_calibration,
    score_against_truth,
    score_directions,
)
from interpflow.models.planted.truth import TASKS, PlantedSite, Role, Task, roles_of

__all__ = [
    "TASKS",
    "NullCalibration",
    "PlantedEdge",
    "PlantedModel",
    "PlantedPair",
    "PlantedSite",
    "Role",
    "Task",
    "TruthScore",
    "effects_at_span",
    "null_calibration",
    "planted_gpt2",
    "planted_llama",
    "roles_of",
    "roles_of_edges",
    "score_against_truth",
    "score_directions",
]
