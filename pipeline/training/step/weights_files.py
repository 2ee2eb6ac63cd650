"""Weights as people have them: what a file is by its content, and the named tensors in it.

safetensors, or what `torch.save` wrote, in either of its forms and under any suffix. A file of
torch's is read by its `weights_only` unpickler alone, which runs no code of the file; what that
refuses is refused here. How others name and arrange tensors is in `foreign_weights`.
"""

import os
import re
import warnings
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor

from pipeline.errors import InputError, first_line
from pipeline.storage import check_regular, regular_file
from pipeline.training.step.weights import read_tensors

HEAD_BYTES = 1024
MOST_HEADER = 100_000_000
"""Bytes of a safetensors file's header, by its own reader."""
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd", b"7z\xbc\xaf")
"""How gzip, bzip2, xz, zstd and 7-Zip begin."""
FOREMOST = ("", "state_dict", "model_state_dict", "model", "net")
"""Where a checkpoint's network is looked for first; '' is the file itself."""
DEEPEST = 2
"""Wrappers within each other."""


@dataclass(frozen=True)
class WeightsFile:
    """Named tensors (on the CPU) of a file, and what to say of how they were taken from it."""

    tensors: dict[str, Tensor]
    notes: list[str]
    header: dict[str, str] = field(default_factory=dict)
    """The metadata of a safetensors file."""
    safetensors: bytes | None = None
    """The file's bytes, where it is one."""


def read_file(file: Path, where: str) -> WeightsFile:
    """A file of weights; `where` names it in messages.

    Raises:
        InputError: it cannot be read, is something else, or holds more than tensors.
    """
    try:
        check_regular(file)  # torch opens it by its name, and to open a pipe waits for ever
        with file.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        if _is_safetensors(head):
            content = regular_file(file)
            tensors, header = read_tensors(content, where)
            return WeightsFile(tensors, [], header, content)
        _refuse_other_content(file, head, where)
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from error
    return _network_in(_torch_load(file, where), file.stat().st_size, where)


def _is_safetensors(head: bytes) -> bool:
    """Whether it begins as they do: the size of a JSON header in 8 bytes, and the header."""
    # By the whole size, as one in 32 of them begins with the byte that pickles begin with; what a
    # pickle begins with would be the size of a header beyond all bounds.
    size = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and size <= MOST_HEADER and not head.startswith(ZIP)


def _refuse_other_content(file: Path, head: bytes, where: str) -> None:
    """Refuse what is not of `torch.save`, each kind by what it is."""
    if not head:
        raise InputError(f"{where}: is empty; download it again")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(
            f"{where}: is a Git LFS pointer, not the weights; fetch them with `git lfs pull`"
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(
            f"{where}: is a web page, saved under the weights' name (an error of the download?); "
            "download it again"
        )
    if head.startswith(ARCHIVES) or head[257:262] == b"ustar":
        raise InputError(f"{where}: is an archive; unpack it, and name the file of weights in it")
    if head.startswith(ZIP):
        _refuse_other_zip(file, where)
    elif not head.startswith(PICKLE):
        start = head[:40].decode("ascii", "replace").split("\n")[0]
        begins = f" (it begins with {start!r})" if start.isascii() and start.isprintable() else ""
        raise InputError(
            f"{where}: is neither a safetensors file nor one of torch.save{begins}; download it "
            "again, or export it with one of the two"
        )


def _refuse_other_zip(file: Path, where: str) -> None:
    """Refuse a zip file that torch.save did not write, or that is not whole."""
    try:
        with ZipFile(file) as archive:
            entries = archive.infolist()
    except (BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{where}: is cut short or damaged ({first_line(error)}); download it again"
        ) from error
    names = {entry.filename.rpartition("/")[2] for entry in entries}
    if "constants.pkl" in names:
        raise InputError(
            f"{where}: is a TorchScript program; save its state_dict() with torch.save instead"
        )
    # torch.save compresses nothing: mapped into memory, an entry has to be what it says.
    if "data.pkl" not in names or any(entry.compress_type != ZIP_STORED for entry in entries):
        raise InputError(
            f"{where}: is a zip archive, not a file of torch.save; unpack it, and name the file of "
            "weights in it"
        )


def _torch_load(file: Path, where: str) -> Any:
    """What a file of torch.save holds, by torch's restricted unpickler and nothing else."""
    # Training scripts keep their options beside the weights, most often as argparse's plain object.
    try:
        with (
            file.open("rb") as stream,
            torch.serialization.safe_globals([Namespace]),
            warnings.catch_warnings(action="ignore"),
        ):
            # Mapped where it can be: an optimizer's state beside the weights is never read then.
            # torch goes by this one suffix, which says nothing here.
            mapped = stream.read(len(ZIP)) == ZIP and file.suffix != ".safetensors"
            stream.seek(0)
            source: Any = os.fspath(file) if mapped else stream
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    # Everything is caught, because a foreign file can make the reader raise anything; and little of
    # it is repeated, because torch's messages advise to turn its safety off.
    except Exception as error:
        holds = re.search(r"GLOBAL (\S{1,100}) was not an allowed", str(error))
        why = f"it holds a {holds[1]}" if holds else "it is damaged, or of a kind torch cannot read"
        raise InputError(
            f"{where}: is not named tensors alone ({why}), and nothing in it was run; save its "
            "network's state_dict() by itself with torch.save, where it was made"
        ) from error


def _network_in(content: Any, file_bytes: int, where: str) -> WeightsFile:
    """The named tensors of what torch loaded, out of the wrapper that training scripts put around.

    A wrapper's averaged weights are taken where it has no others.
    """
    found = _state_dicts(content)
    if not found:
        raise InputError(
            f"{where}: holds no convolution's weights under a name; save the network's "
            "state_dict() with torch.save"
        )

    def rank(path: str) -> tuple[bool, int]:
        return "ema" in path, FOREMOST.index(path) if path in FOREMOST else len(FOREMOST)

    taken, *others = sorted(found, key=rank)
    tensors = {name: tensor.detach() for name, tensor in found[taken].items()}
    # A view may state any shape over few numbers. Copied, each would take its memory.
    plain = all(t.layout == torch.strided and t.device.type == "cpu" for t in tensors.values())
    if not plain or sum(t.numel() * t.element_size() for t in tensors.values()) > file_bytes:
        raise InputError(f"{where}: its tensors are not plain numbers, each of which it holds")
    if not taken and not others:
        return WeightsFile(tensors, [])
    which = f'"{taken}" was taken' if taken else "the tensors outside of any wrapper were taken"
    left = ", ".join(f'"{path}"' for path in others[:4])
    return WeightsFile(tensors, [which + (f", not {left}" if others else "")])


def _state_dicts(content: Any, path: str = "") -> dict[str, dict[str, Tensor]]:
    """Named tensors by where they are in what was loaded, if convolution weights are among them."""
    if not isinstance(content, Mapping):
        return {}
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    found = {path: tensors} if any(tensor.ndim == 4 for tensor in tensors.values()) else {}
    for name, value in content.items():
        if isinstance(name, str) and path.count(".") < DEEPEST - 1:
            found |= _state_dicts(value, f"{path}.{name}" if path else name)
    return found
