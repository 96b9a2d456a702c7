"""Measured values (satellites, microscopes) as grey levels: there is no white in them, only what is rarely exceeded."""

import numpy as np

_DARK, _BRIGHT = 0.5, 99.5  # percentiles that become black and white


def black_and_white(values: np.ndarray) -> tuple[float, float]:
    """The values that become black and white; white is above black even where all values are one."""
    low, high = np.percentile(values, (_DARK, _BRIGHT))
    return float(low), float(max(high, low + 1e-12 * max(1.0, abs(low))))
