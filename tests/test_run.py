"""A run on a store: what it cannot do without."""

from types import SimpleNamespace

import pytest
from scan_files import BALLS
from tiny_runs import tiny_config

from cyclesh.errors import UserError
from cyclesh.run import build_run


@pytest.mark.parametrize(("modality", "split"), [("ct", "val"), ("mr", "val"), ("mr", "test")])
def test_a_store_must_have_volumes_to_validate_and_to_test_on(tmp_path, modality, split):
    def select(m, s):
        return () if (m, s) == (modality, split) else (f"{m}_{s}",)

    store = SimpleNamespace(description=BALLS, root=tmp_path / "store", select=select)
    with pytest.raises(UserError, match=f"store: no {split} volumes of {modality}"):
        build_run(tiny_config("joint"), tmp_path, store)
