"""Whose a workdir is: which runs may go on in it."""

from contextlib import nullcontext

import pytest
from tiny_runs import tiny_config

from cyclesh.claims import check_workdir, claim_workdir
from cyclesh.errors import UserError


@pytest.mark.parametrize(
    ("parent", "taken"),
    [("there/runs/seg", True), ("there/runs/other", False), ("here/runs/seg", False), ("", False)],
)
def test_a_folder_of_runs_that_were_moved_together_is_gone_on_with(tmp_path, parent, taken):
    config = tiny_config("joint")
    config.init.seg = "before/runs/seg"
    arm = tmp_path / "there" / "runs" / "arm"
    claim_workdir(config, arm)
    config.init.seg = str(tmp_path / parent) if parent else ""
    with nullcontext() if taken else pytest.raises(UserError, match="another init.seg"):
        check_workdir(config, arm)
