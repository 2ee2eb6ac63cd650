"""Everything that speaks to Ray: the only room that imports it, and torch inside functions alone.

`cluster` joins or starts Ray, `launch` starts the worker group of a run or a pack, `packs` says who
trains beside whom, `worker` is what runs on each worker, `drive` is runs with their publishers,
`tune` a grid of them; the rest scores networks, reads photographs, submits jobs, and asks nodes
what they are. Imports `jobs.tracking`, for drivers
publish. Begin with `launch`.
"""
