"""Data sets in their official formats, windows, folds by subject, scaling, and the scan for leaks.

A data set is one module with ``TITLE``, ``HOMEPAGE``, ``LICENCE``, ``files(root)`` and ``load(root, **options)``, and
one line here.
"""

from types import ModuleType

from hcqsfl.registry import load_object, lookup

DATASETS = {
    "csv_table": "hcqsfl.data.csv_table",
    "mimic_waveform": "hcqsfl.data.mimic_waveform",
    "pamap2": "hcqsfl.data.pamap2",
    "ton_iot": "hcqsfl.data.ton_iot",
    "wesad": "hcqsfl.data.wesad",
}


def dataset(name: str) -> ModuleType:
    """Return the module that reads the data set called ``name``.

    Raises:
        ValueError: there is no such data set.
    """
    module: ModuleType = load_object(lookup("data set", DATASETS, name))
    return module
