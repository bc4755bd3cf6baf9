"""Data: records on disk -> examples -> token rows -> a deterministic, sharded, resumable stream of batches.

Read in this order: `formats` (JSONL, Parquet, TFDS), `tokenizers`, `rows` (the batch layout), `pipeline` (grain),
`corpus` (a generated corpus with a known gold reward), `builder` (TFDS from JSONL), `recipes` (data made from data).
"""

from alignment.data.formats import DataError as DataError
