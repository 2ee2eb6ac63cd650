"""How a run is carried out: the one struct that travels from a command's options to the workers.

Nothing in it is part of a run's identity. What it can change of a result is at most the last bits,
and those fields are recorded with the attempt: device, `threads`, `one_pass`, `compiled`,
`allow_drift` and `deterministic`. Torch-free, and free of Ray.

`jobs.cli.train` and `jobs.cli.grid` make an `Execution` of their options, and
`pipeline.training.loop` reads it. What decides a result is a field of the row instead.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from pipeline.runs.provenance import source_digest


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What a user chooses about how and where runs are carried out."""

    storage: str = ""
    """URI of the storage that holds the run's folder."""
    tracking: str = ""
    """URI of the MLflow tracking store; empty where nothing is published."""
    datasets: str = ""
    """URI of the storage that holds the dataset; empty where that is `storage`."""

    workers: int = 1
    most_workers: int | None = None
    """Where more than `workers`: a run takes as many as there is room for, up to this number."""
    threads: int = 1
    """CPU threads of each worker. A run keeps those of its first start for its whole life."""
    use_gpu: bool = False
    gpus: float = 1.0
    """GPUs of each worker where `use_gpu`; several runs share a GPU where it is a fraction."""

    checkpoint_seconds: float = 30.0
    """Seconds between checkpoints; 0 saves after each iteration, and training waits for it."""
    until: int | None = None
    """Stop after this iteration, saved; None trains to the end."""

    one_pass: bool = False
    """All batch-norm groups of a worker in one pass (`pipeline.training.step.train_state`)."""
    compiled: bool = False
    """Kernels fused by torch's compiler: the same up to rounding."""
    allow_drift: bool = False
    """Continue under another commit, version or kind of hardware than the attempt before."""
    deterministic: bool = True
    """On GPUs: only kernels that give the same bytes each time."""

    source: str = field(default_factory=source_digest)
    """The digest of the command's code, which its workers have to have too."""

    @property
    def dataset_storage(self) -> str:
        """URI of the storage that datasets are read from."""
        return self.datasets or self.storage

    @property
    def deterministic_kernels(self) -> bool:
        """Whether kernels are chosen so; on a CPU there is nothing to choose."""
        return self.use_gpu and self.deterministic

    @property
    def each_worker(self) -> dict[str, float]:
        """What each worker takes of the cluster, in Ray's words."""
        return {"CPU": 1, "GPU": self.gpus} if self.use_gpu else {"CPU": self.threads}


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What a worker adds to that once it knows where it runs: one attempt at a run."""

    holder: str = ""
    """The lease under which rank 0 writes (`pipeline.runs.lease`); empty: nobody else is there."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What this attempt is made with: commit, versions, threads, hardware."""
    decoders: int = 1
    """Threads, or processes where they are many, that decode photographs for this worker."""
    preempted: Callable[[], bool] = bool
    """Whether the cluster is about to take this worker away; by default no (`bool()` is False)."""
    setting_up: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered to set up: with several runs in one process, one at a time (a `StartLine`)."""
