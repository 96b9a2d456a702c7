"""Lists of pairs, and matching them: in one process, or on many machines by Ray Data; results as Parquet."""
