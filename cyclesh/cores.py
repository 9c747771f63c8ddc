"""How many cores there are for this process: below all that shares work among them."""

import os


def available_cores() -> int:
    """Cores that this process may use, which a cluster's scheduler may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
