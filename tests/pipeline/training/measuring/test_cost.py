"""What a run costs: shares of a device that several train on, attempts that add up, no counter."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.runs.checkpoint import newest_history
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.history import History
from pipeline.runs.run import start_run
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.measuring.cost import Cost, DeviceMeter
from pipeline.training.measuring.energy_counter import counter_of, energy_counter
from pipeline.training.packs import train_pack
from pipeline.training.step.process_group import single_process
from pipeline.training.verify import examine
from tests.pipeline.training.small_runs import digits_once, small_run

GPU = Execution(use_gpu=True)
FIELDS = ("device_seconds", "joules")


class Device:
    """A device of 100 watts, and the clock beside it: both go on when told."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.joules: Any = 5000.0
        self.meter = DeviceMeter(energy=lambda: self.joules, now=lambda: self.seconds)

    def passes(self, seconds: float) -> None:
        self.seconds, self.joules = self.seconds + seconds, self.joules + 100 * seconds


def recorded(cost: Cost) -> dict[str, Any]:
    history = History(attempts=[{"from_iteration": 0}])
    cost.record(history)
    return {key: value for key, value in history.attempts[-1].items() if key != "from_iteration"}


def test_three_runs_that_end_at_different_times_share_each_span() -> None:
    device = Device()
    device.passes(7)  # setting up is nobody's
    costs = [Cost(device.meter, GPU, 1) for _ in range(3)]
    with ExitStack() as first, ExitStack() as second, ExitStack() as third:
        for held, cost in zip((first, second, third), costs, strict=True):
            held.enter_context(cost)
        device.passes(6)  # three of them: 2 s each
        assert recorded(costs[1]) == {"device_seconds": 2, "joules": 200}
        first_cost = recorded(costs[0])
        first.close()
        device.passes(4)  # two of them: 2 s each
        second_cost = recorded(costs[1])
        second.close()
        device.passes(5)
        third_cost = recorded(costs[2])
    assert first_cost == {"device_seconds": 2, "joules": 200}
    assert second_cost == {"device_seconds": 4, "joules": 400}
    assert third_cost == {"device_seconds": 9, "joules": 900}
    # Together they cost what the device did from the first's start to the last's end.
    assert sum(cost["joules"] for cost in (first_cost, second_cost, third_cost)) == 100 * 15


@pytest.mark.parametrize(
    ("execution", "world_size", "cost"),
    [
        (Execution(), 1, {"device_seconds": 8, "joules": 800}),
        (GPU, 4, {"device_seconds": 32}),
        (Execution(use_gpu=True, gpus=0.25), 1, {"device_seconds": 2}),
        (Execution(use_gpu=True, gpus=0.25), 4, {"device_seconds": 8}),
    ],
)
def test_devices_held_are_counted_and_joules_only_of_one_that_is_its_own(
    execution: Execution, world_size: int, cost: dict[str, float]
) -> None:
    device = Device()
    with Cost(device.meter, execution, world_size) as counted:
        device.passes(8)
        assert recorded(counted) == cost


@pytest.mark.parametrize("reading", [None, 3.0])
def test_a_counter_that_fails_or_begins_anew_leaves_no_joules(reading: Any) -> None:
    device, history = Device(), History(attempts=[{}])
    with Cost(device.meter, GPU, 1) as cost:
        device.passes(1)
        cost.record(history)
        assert history.attempts == [{"device_seconds": 1, "joules": 100}]
        device.joules = reading
        cost.record(history)
        assert history.attempts == [{"device_seconds": 1}]
        device.joules = 9000
        device.passes(1)
        cost.record(history)
        assert history.attempts == [{"device_seconds": 2}]


class Ticking(Device):
    """A device whose clock goes on by a second whenever it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.meter = DeviceMeter(energy=lambda: self.joules, now=self.tick)

    def tick(self) -> float:
        self.passes(1)
        return self.seconds


def test_a_continued_run_adds_up_and_one_that_is_killed_loses_what_was_not_saved(
    tmp_path: Path,
) -> None:
    storage, run = Storage(str(tmp_path)), small_run()
    start_run(storage, run, 1)
    rarely, group = Execution(checkpoint_seconds=1e9, until=15), single_process()
    train(run, digits_once(), storage, group, rarely, None, Ticking().meter)
    stopped = newest_history(storage, run)
    # Saved at iteration 15 alone, where the learning rate drops: the second reading of the clock.
    assert stopped is not None and [stopped.attempts[0][key] for key in FIELDS] == [1, 100]

    # Killed after its milestone at 23, where it had been read once.
    class Killed(Ticking):
        def tick(self) -> float:
            if self.seconds == 3:
                raise KeyboardInterrupt
            return super().tick()

    with pytest.raises(KeyboardInterrupt):
        train(run, digits_once(), storage, group, Execution(), None, Killed().meter)
    result = train(run, digits_once(), storage, group, Execution(), None, Ticking().meter)

    # The last one: read at 30, and once all was written.
    assert [[attempt[key] for key in FIELDS] for attempt in result["attempts"]] == [
        [1, 100],
        [1, 100],
        [2, 200],
    ]
    # Its last checkpoint knows of the time until then alone, which is no contradiction.
    last = newest_history(storage, run)
    assert last is not None and last.attempts[-1]["device_seconds"] == 1
    assert "history" in {check.what for check in examine(storage, run) if check.good}


def test_a_pack_has_one_meter_for_all_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[Ticking] = []

    def of(device: torch.device) -> DeviceMeter:
        assert device.type == "cpu"
        devices.append(Ticking())
        return devices[-1].meter

    monkeypatch.setattr(DeviceMeter, "of", of)
    given = {small_run(seed): Attempt() for seed in range(3)}
    storage, cpu = Storage(str(tmp_path)), torch.device("cpu")
    answers = train_pack(given, digits_once(), storage, cpu, Execution()).values()
    costs = [answer["attempts"][-1]["device_seconds"] for answer in answers]
    (device,) = devices
    assert min(costs) > 0 and sum(costs) < device.seconds


class Driver:
    """NVML with one card that has used 12,345,678 mJ, or without some part of that."""

    def __init__(self, lacks: str = "", mig: int = 0) -> None:
        self._lacks, self._mig = lacks, mig

    def __getattr__(self, name: str) -> Any:
        if name == self._lacks:
            raise AttributeError(name)
        return partial(self._answer, name)

    def _answer(self, function: str, *given: Any) -> int:
        if self._lacks == f"{function} answers":
            return 3  # NVML_ERROR_NOT_SUPPORTED
        if function == "nvmlDeviceGetHandleByUUID":
            if given[0] != b"GPU-1234-ab":
                return 6  # NVML_ERROR_NOT_FOUND
            given[1]._obj.value = 77
        elif function != "nvmlInit_v2":
            assert given[0].value == 77
            result = {"nvmlDeviceGetMigMode": self._mig}.get(function, 12_345_678)
            given[1]._obj.value = result
        return 0


def test_the_cards_counter_is_read_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(uuid="1234-ab")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    opened: list[str] = []

    def load(name: str) -> Driver:
        opened.append(name)
        return Driver()

    read = energy_counter(torch.device("cuda", 1), load)
    assert (read(), opened) == (12_345.678, ["libnvidia-ml.so.1"])
    # A card that cannot be divided says so, and is whole.
    assert counter_of("1234-ab", lambda _: Driver("nvmlDeviceGetMigMode answers"))() is not None


def missing(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


@pytest.mark.parametrize(
    "load",
    [
        missing,
        lambda _: Driver("nvmlInit_v2 answers"),
        lambda _: Driver("nvmlDeviceGetTotalEnergyConsumption"),
        lambda _: Driver("nvmlDeviceGetTotalEnergyConsumption answers"),
        lambda _: Driver(mig=1),
    ],
)
def test_without_a_library_or_counter_nothing_is_read(load: Callable[[str], Any]) -> None:
    assert counter_of("1234-ab", load)() is None


def test_an_unknown_card_and_a_cpu_have_no_counter() -> None:
    assert counter_of("5678", lambda _: Driver())() is None
    assert counter_of("no such card")() is None  # with this machine's own library, if it has one
    assert energy_counter(torch.device("cpu"), missing)() is None


def test_a_run_on_a_cpu_records_its_seconds_alone(tmp_path: Path) -> None:
    run = small_run(iterations=8, lr_drops=(4, 6), eval_every=8)
    result = train(run, digits_once(), Storage(str(tmp_path)), single_process())
    (attempt,) = result["attempts"]
    assert attempt["device_seconds"] > 0 and "joules" not in attempt
