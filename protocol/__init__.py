"""The shared language of all parts: ids, limits, errors, messages and sealed formats; it knows no service."""
