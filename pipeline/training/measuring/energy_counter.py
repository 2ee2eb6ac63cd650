"""The energy counter of an NVIDIA card, as its driver's library (NVML) reads it.

Read through `ctypes`: NVML comes with the driver, so nothing needs to be installed. What lacks a
part of it (the library, the card, the counter) has no counter here: that is no error.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import torch

LIBRARY = "libnvidia-ml.so.1"
SUCCESS = 0
"""What every function of NVML returns unless it fails (`NVML_SUCCESS`)."""


def no_counter() -> None:
    """The reading of a device that has no counter."""
    return None


def energy_counter(
    device: torch.device, load: Callable[[str], Any] = ctypes.CDLL
) -> Callable[[], float | None]:
    """A function that reads the joules a card has used since its driver was loaded.

    It returns None where they cannot be read. It asks the driver and waits for no kernel.
    """
    if device.type != "cuda":
        return no_counter
    # As CUDA counts devices, not as NVML does: the name that both have for a card is its UUID.
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return counter_of(uuid, load)


def counter_of(uuid: str, load: Callable[[str], Any] = ctypes.CDLL) -> Callable[[], float | None]:
    """As `energy_counter`, of the card with this UUID; `load` opens a shared library."""
    try:
        library = load(LIBRARY)
        handle = _whole_card(library, f"GPU-{uuid.removeprefix('GPU-')}")
        read = library.nvmlDeviceGetTotalEnergyConsumption
    except (OSError, AttributeError):
        return no_counter
    if handle is None:
        return no_counter

    def joules() -> float | None:
        millijoules = ctypes.c_ulonglong()
        if read(handle, ctypes.byref(millijoules)) != SUCCESS:
            return None
        return millijoules.value / 1000

    return joules


def _whole_card(library: Any, uuid: str) -> ctypes.c_void_p | None:
    """NVML's handle of a card; None where it knows none, or where the card is divided (MIG)."""
    handle = ctypes.c_void_p()
    if library.nvmlInit_v2() != SUCCESS:
        return None
    if library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) != SUCCESS:
        return None
    # The counter is the whole card's, so it says nothing of one of its instances. A card that
    # cannot be divided fails to answer, and leaves the 0.
    divided, pending = ctypes.c_uint(0), ctypes.c_uint(0)
    library.nvmlDeviceGetMigMode(handle, ctypes.byref(divided), ctypes.byref(pending))
    return None if divided.value else handle
