"""Everything that speaks to Ray: the only room that imports it, and torch inside functions alone.

`cluster` joins or starts Ray, `launch` starts a run's worker group, `worker` is what runs on each
worker, `drive` is a run with its publisher, `tune` a grid of them; the rest scores networks, reads
photographs, submits jobs, and asks nodes what they are. Imports `jobs.tracking`, for drivers
publish. Begin with `launch`.
"""
