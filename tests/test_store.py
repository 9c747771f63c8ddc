import dataclasses
import json
import shutil

import numpy as np
import pytest
from scan_files import BALLS, prepared, write_raw

from cyclesh.data.store import Store, decode, encode, is_store, normalise, restore
from cyclesh.errors import UserError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    prepared(write_raw(root / "raw"), root / "s")
    return root / "s"


@pytest.fixture
def store(finished):
    return Store.open(finished)


def test_encode_by_hand():
    # A window of -800..800: -800 -> -1, 0 -> 0, 400 -> 0.5, beyond is clipped.
    stored = encode(np.array([-2000.0, -800, 0, 400, 800, 3000]), (-800, 800))
    assert stored.dtype == np.int16
    np.testing.assert_array_equal(stored, [-32767, -32767, 0, 16384, 32767, 32767])
    np.testing.assert_allclose(decode(stored), [-1, -1, 0, 0.5, 1, 1], atol=2e-5)


def test_encoding_costs_less_than_half_a_step():
    hu = np.linspace(-800, 800, 5001)
    back = restore(decode(encode(hu, (-800, 800))), (-800, 800))
    assert np.abs(back - hu).max() <= 1600 / 65534 * 1.01
    np.testing.assert_allclose(restore(normalise(hu, (-800, 800)), (-800, 800)), hu, atol=1e-3)


def test_reads_what_it_says(store):
    volume = store.volumes[0]
    image, label = store.image(volume), store.label(volume)
    assert image.shape == label.shape == BALLS.shape == store.description.shape
    assert image.dtype == np.float32 and label.dtype == np.uint8
    assert -1 <= image.min() < image.max() <= 1 and set(np.unique(label)) == {0, 1, 2}


def test_select_is_in_manifest_order_and_complete(store):
    parts = [store.select(m, s) for m in ("ct", "mr") for s in ("train", "val", "test")]
    assert [len(part) for part in parts] == [2, 1, 1] * 2
    assert sorted(v.id for part in parts for v in part) == [v.id for v in store.volumes]
    assert store.select("ct", "extra") == ()


def test_window_is_the_median_of_train(store):
    train = store.select("mr", "train")
    expected = np.median([v.window for v in train], axis=0)
    assert store.window("mr") == tuple(expected)
    assert store.window("ct") == (-500, 500)
    with pytest.raises(UserError, match="pet"):
        store.window("pet")


def test_quantiles_are_those_of_all_training_voxels_together(store):
    for modality in store.description.modalities:
        images = [store.image(volume).ravel() for volume in store.select(modality, "train")]
        wanted = np.quantile(np.concatenate(images), np.linspace(0, 1, 257))
        np.testing.assert_allclose(store.quantiles(modality), wanted, rtol=0, atol=1e-7)


def test_volumes_round_trip_and_hash(store):
    volume = store.volumes[0]
    assert type(volume).from_json(json.loads(json.dumps(volume.to_json()))) == volume
    assert len(set(store.volumes)) == len(store.volumes)


def test_sha256_identifies_the_data(finished, store, tmp_path):
    def edited(change):
        manifest = json.loads((finished / "manifest.json").read_text())
        change(manifest)
        return Store(tmp_path, manifest).sha256

    assert edited(lambda m: None) == store.sha256
    assert edited(lambda m: m["volumes"][0].update(split="extra")) != store.sha256
    assert edited(lambda m: m["volumes"][0].update(window=[0, 1])) != store.sha256
    assert edited(lambda m: m["volumes"][0]["source"].update(sha256_image="0")) != store.sha256

    def swap_classes(manifest):
        structures = manifest["description"]["structures"]
        manifest["description"]["structures"] = dict(reversed(structures.items()))

    assert edited(swap_classes) != store.sha256


def test_source_grid_is_the_files(store):
    volume = store.volumes[0]
    assert volume.source.shape_xyz == (20, 18, 16)
    np.testing.assert_array_equal(volume.source.affine, np.diag([-2.0, -2, 2, 1]))


def test_what_is_no_store(finished, tmp_path):
    assert is_store(finished) and not is_store(tmp_path)
    with pytest.raises(UserError, match="no prepared store"):
        Store.open(tmp_path)
    manifest = json.loads((finished / "manifest.json").read_text())
    for content, says in (
        ("{", "damaged"),
        (json.dumps({**manifest, "format": 99}), "format 99"),
        (json.dumps({k: v for k, v in manifest.items() if k != "volumes"}), "damaged.*volumes"),
        (json.dumps(manifest), "missing from the store"),
    ):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(UserError, match=says):
            Store.open(tmp_path)


def test_a_volume_of_another_shape_is_refused(store):
    store.description = dataclasses.replace(BALLS, shape=(8, 8, 8))
    with pytest.raises(UserError, match="shape"):
        store.image(store.volumes[0])


@pytest.mark.parametrize("size", [None, 0, 100, 1000])
def test_a_volume_that_vanished_or_was_cut_is_named(finished, tmp_path, size):
    folder = shutil.copytree(finished, tmp_path / "store")
    store = Store.open(folder)
    volume = store.volumes[0]
    for name, read in (("image", store.image), ("label", store.label)):
        path = folder / "volumes" / f"{volume.id}.{name}.npy"
        whole = path.read_bytes()
        path.unlink() if size is None else path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=f"{path}: cannot be read .*; bring the store back"):
            read(volume)
