"""Durations as people read them."""


def duration(seconds: float | None) -> str:
    """Hours and minutes, or minutes and seconds; empty where it is not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"
