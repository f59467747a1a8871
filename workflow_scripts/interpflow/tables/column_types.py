"""Types of columns, and the groups of columns that several tables share."""

from __future__ import annotations

import pyarrow as pa

TEXT, INT, REAL, FLAG = pa.string(), pa.int32(), pa.float64(), pa.bool_()
WORDS, FLAGS, INTS, REALS = (
    pa.list_(pa.string()),
    pa.list_(pa.bool_()),
    pa.list_(pa.int32()),
    pa.list_(pa.float64()),
)
# Text that repeats from row to row: kept once, in memory too.
REPEATED = pa.dictionary(pa.int32(), pa.string())

# The result record: what every statistic is stored as. Undefined numbers are null with a flag.
RESULT_COLUMNS = {
    "quantity": TEXT,
    "estimate": REAL,
    "ci_low": REAL,
    "ci_high": REAL,
    "ci_level": REAL,
    "p_value": REAL,
    "p_adjusted": REAL,
    "test": TEXT,
    "n_units": INT,
    "n_clusters": INT,
    "n_dropped": INT,
    "n_resamples": INT,
    "seed": pa.int64(),
    "family": TEXT,
    "flags": TEXT,
}

# A place in a model; layer −1 is the embedding, head −1 stands for all heads.
SITE_COLUMNS = {"component": TEXT, "layer": INT, "head": INT}
