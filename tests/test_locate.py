"""Where a config's volumes are found."""

import os

import pytest
from scan_files import BALLS, write_raw
from tiny_store import DESCRIPTION

from configs import default
from cyclesh.data.locate import foresee, open_store, survey
from cyclesh.data.store import is_store
from cyclesh.errors import UserError


@pytest.mark.parametrize("find", [open_store, foresee, survey])
@pytest.mark.parametrize("key", ["shape=16x16x24", "spacing=4"])
def test_a_store_of_another_grid_is_refused_before_and_in_training(store, find, key):
    with pytest.raises(UserError, match="this store has .* the config asks for"):
        find(default.build(f"mmwhs,data={store},{key}", "joint"))


@pytest.mark.parametrize("key", ["", ",shape=16x16x16,spacing=8"])
def test_a_store_decides_the_grid_that_a_config_does_not_ask_for(store, key):
    config = default.build(f"mmwhs,data={store}{key}", "joint")
    assert open_store(config).description == DESCRIPTION
    assert foresee(config) == (f"the store {store}", DESCRIPTION)
    described, subjects = survey(config)
    assert described == DESCRIPTION and subjects["ct", "train"] == 3


def test_the_phantom_is_cut_on_the_grid_that_a_config_says():
    """Its own dataset.json does not decide, as a user's would."""
    asked = "mmwhs,shape=16x16x16,spacing=8"
    config = default.build(asked, "joint")
    config.phantom.subjects = 4
    config.data.override = ()
    _, foreseen = foresee(config)
    assert (foreseen.shape, foreseen.spacing_mm) == ((16, 16, 16), (8.0, 8.0, 8.0))
    assert open_store(config, progress=False).description == foreseen == survey(config)[0]


@pytest.mark.parametrize("find", [open_store, foresee, survey])
def test_other_structures_than_the_phantom_s_need_data(find):
    with pytest.raises(UserError, match="liver, .* need data of your own; give data=FOLDER"):
        find(default.build("abdomen", "joint"))


@pytest.mark.parametrize("find", [open_store, foresee])
def test_a_grid_too_small_for_the_networks_is_refused_before_anything_is_made(store, find):
    config = default.build(f"mmwhs,data={store}", "joint")
    config.model.depth = 4
    with pytest.raises(UserError, match=r"shape is \(16, 16, 16\); 4 downsamplings need 32"):
        find(config)


def test_a_store_is_of_what_lies_behind_links(tmp_path):
    """Two studies whose folders are links, and one that was edited, share no store."""
    stores = []
    for name in ("one", "two"):
        write_raw(tmp_path / name)
        links = tmp_path / f"links-{name}"
        links.mkdir()
        for part in (tmp_path / name).iterdir():
            (links / part.name).symlink_to(part)
    image = tmp_path / "two/ct_train/ct_train_1_image.nii.gz"
    for name in ("one", "two", "two"):
        edited = image.stat().st_mtime_ns + 10**9 * (len(stores) == 2)
        os.utime(image, ns=(edited, edited))
        config = default.build(f"tiny,data={tmp_path / f'links-{name}'}", "joint")
        config.data.processes = 1
        config.data.structures, config.data.aliases = BALLS.structures, BALLS.aliases
        config.data.spacing_mm, config.data.shape = BALLS.spacing_mm, (16, 16, 16)
        stores.append(open_store(config, progress=False).root)
    assert len(set(stores)) == 3


def test_a_manifest_of_others_makes_no_store(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    assert not is_store(tmp_path)
