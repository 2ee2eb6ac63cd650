"""Which dataset is meant where a command names none: the paper's own data for its experiments.

Earlier versions took digits instead. A command that was begun with one of them is never taken for
another without a word.
"""

from collections.abc import Iterable

from jobs.requests.storage_failures import failures_in_one_line
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.runs.run import recipe_folder
from pipeline.storage import Storage

EARLIER = "digits"
"""What versions up to 0.2 trained on where no dataset was named."""


def check_earlier_default(
    storage: Storage, experiments: Iterable[Experiment], seeds: Iterable[int]
) -> None:
    """Refuse a command that names no dataset where its runs may be those of an earlier version.

    That is: the storage has runs of these experiments and seeds on digits, and none on the paper's
    data for them.

    Raises:
        InputError: says which two commands may be meant.
    """
    folders, found = {f"seed-{seed}" for seed in seeds}, set[str]()
    with failures_in_one_line(storage.uri):
        for experiment in experiments:
            own, place = experiment.dataset, recipe_folder(experiment)
            for dataset in storage.names(place):
                # A folder is named by the dataset's name and the beginning of its id.
                name = dataset.rpartition("-")[0]
                if name in (own, EARLIER) and folders & {*storage.names(f"{place}/{dataset}")}:
                    found.add(name)
    if found == {EARLIER}:
        raise InputError(
            f"--data: is now {own} where none is named; {storage.uri} has runs of this command on "
            f"{EARLIER}, the default of earlier versions: --data {EARLIER} goes on with them, "
            f"--data {own} trains others"
        )
