"""The items and neutral texts of the layer surgery study as tables."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.studies.layer_surgery.data.neutral_texts import study_texts
from interpflow.studies.layer_surgery.data.task_items import study_items
from interpflow.tables.documents import write_document
from interpflow.tables.parquet import write_table
from interpflow.tables.provenance import Provenance

LOGGER = logging.getLogger(__name__)


def generate_items(
    settings: LayerSurgerySettings,
    seed: int,
    *,
    written_path: Path | str | None = None,
    items_path: Path | str,
    texts_path: Path | str,
    document_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the tables `surgery_items` and `surgery_texts`, and the document `surgery_data`.

    The document says by task how many items were found, taken and left out with what reason, the
    families in each split, and the same of the texts. Raises UserError as `study_items` and
    `study_texts` do; nothing is written then.
    """
    found = study_items(settings.tasks, seed, written_path)
    texts = study_texts(settings.texts, seed)
    write_table(items_path, "surgery_items", [item.to_row() for item in found.items], provenance)
    rows = [document.to_row() for document in texts.documents]
    write_table(texts_path, "surgery_texts", rows, provenance)
    used = Counter(document.use for document in texts.documents)
    document = {
        "tasks": found.counts,
        "n_items": len(found.items),
        "n_repeated": found.n_repeated,
        "questions": found.questions,
        "texts": {
            "source": settings.texts.source,
            "n_found": texts.n_found,
            "wanted": texts.wanted,
            "used": {use: used[use] for use in texts.wanted},
            "left_out": texts.left_out,
        },
    }
    write_document(document_path, "surgery_data", document, provenance)
    for use, n in texts.wanted.items():
        if used[use] < n:
            LOGGER.warning("%d documents for the use %s, %d were wanted", used[use], use, n)
    LOGGER.info("%d items of %d tasks, %d documents", len(found.items), len(found.counts),
                len(rows))  # fmt: skip
