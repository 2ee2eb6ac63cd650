"""Ray Train's trainer with less to start and to end.

Ray Train starts some six processes one after another, and each imports Ray Train and Ray Data for
seconds. Those that do nothing for us are left out. On a Ray that a command started for itself, the
others are processes that Ray has started already, with their imports (`cluster.own_environment`).

Imports Ray Train: other modules import this one where they need it.
"""

import os
from collections.abc import Callable
from typing import Any

import ray
from ray._private.ray_constants import KV_NAMESPACE_DASHBOARD
from ray.experimental.internal_kv import _internal_kv_get
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from jobs.console.redaction import hide_secrets, hiding_secrets
from jobs.execution.cluster import OWN_RAY


class PlainWorkerGroup(WorkerGroup):
    """A worker group whose workers have the environment in which Ray was started, and no more."""

    def _start(self) -> None:
        try:
            super()._start()
        except Exception:
            # Ray Train (2.60) forgets a group whose worker dies just as it begins to train, and the
            # group would keep its GPU until the command ends.
            if self.has_started():
                self._worker_group_state.shutdown()
                self._clear_state()
            raise

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
        return custom_runtime_env


class PlainController(TrainController):
    """The controller of such a group."""

    worker_group_cls = PlainWorkerGroup


class NothingToScale(FixedScalingPolicy):
    """A fixed number of workers on a Ray that nothing scales.

    Ray Train tells a coordinator what it needs, for an autoscaler and for Ray Data. The coordinator
    is one more process, and the controller waits up to 5 s for it, at the start and at the end.
    """

    def _send_resource_request(self) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass

    def _cancel_resource_request(self) -> None:
        pass


class HiddenSecrets(ControllerCallback):
    """The beginning of a controller: what its process shows and logs has no password."""

    def after_controller_start(self, train_run_context: Any) -> None:
        hide_secrets()


class WorkerGroupTrainer(DataParallelTrainer):
    """A worker group without the processes that would do nothing for it."""

    def __init__(self, train_loop_per_worker: Callable[..., Any], **options: Any) -> None:
        super().__init__(hiding_secrets(train_loop_per_worker), **options)

    def _create_default_callbacks(self) -> list[Any]:
        # Workers read their data themselves, so there is nothing for Ray Data to hand out.
        needless: tuple[type, ...] = (DatasetsCallback,)
        # The cleaner frees the workers' place should the controller die. It asks the dashboard
        # whether the controller lives: without one it never knows, and the end of each run would
        # wait 12 s for the answer.
        if not has_dashboard():
            needless += (PlacementGroupCleanerCallback,)
        callbacks = [HiddenSecrets(), *super()._create_default_callbacks()]
        return [callback for callback in callbacks if not isinstance(callback, needless)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        if OWN_RAY not in os.environ:
            return super()._initialize_and_run_controller(**arguments)
        # Ray Train gives its processes the variables that the user has set, and Ray starts a new
        # process where any are given. Of our own Ray all processes have them.
        policy = arguments["scaling_policy"]
        if type(policy) is FixedScalingPolicy:
            arguments["scaling_policy"] = NothingToScale(policy.scaling_config)
        controller = ray.remote(num_cpus=0)(PlainController).remote(**arguments)
        ray.get(controller.run.remote())
        return ray.get(controller.get_result.remote())


def has_dashboard() -> bool:
    """Whether the cluster has one; a Ray that a command started for itself has not."""
    return bool(_internal_kv_get(b"webui:url", namespace=KV_NAMESPACE_DASHBOARD))
