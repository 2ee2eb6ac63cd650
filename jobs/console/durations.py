"""Durations as people read them."""


def duration(seconds: float | None) -> str:
    """Hours and minutes, or minutes and seconds; empty where it is not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


def about(seconds: float) -> str:
    """`about 2 h 10 min`, in a sentence: rounded up, as nobody waits for seconds."""
    if seconds < 60:
        return "less than a minute"
    hours, minutes = divmod(-(-round(seconds) // 60), 60)
    return f"about {hours} h {minutes} min" if hours else f"about {minutes} min"
