"""The page of all config fields is that of today's configs/default.py."""

import pytest

from configs import default
from cyclesh import settings
from docs import configuration


def test_the_page_is_up_to_date():
    found = configuration.PAGE.read_text(encoding="utf-8")
    assert found == configuration.page(), "run `python -m docs.configuration`"


def test_every_field_is_in_a_table_once_with_its_default():
    lines = configuration.PAGE.read_text(encoding="utf-8").partition("## Presets")[0].splitlines()
    for field, value in settings.flat(default.fields().to_dict()).items():
        rows = [line for line in lines if line.startswith(f"| `{field}` |")]
        assert len(rows) == 1, field
        assert f"| `{value!r}` |" in rows[0] or value == 1 / 3 or "(" in str(value), rows


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("loss.cycle", "| `10.0` | lambda (3.6) |"),
        ("data.real", "a float a share (Table 2: 0.14)"),  # above it,
        ("data.real", "modalities not named keep all |"),  # and beside it
        ("optim.seg.b1", "| `0.9` |"),
        (
            "optim.gen.pretrain_rate",
            "| `0.0` | in the pre-training phases; 0: the same rate (ours) |",
        ),
        ("optim.gen.rate", "| `0.0002` |  |"),
        ("init.gen", "| `''` |  |"),
    ],
)
def test_comments_stand_beside_their_fields(field, said):
    (row,) = [
        line
        for line in configuration.page().partition("## Presets")[0].splitlines()
        if line.startswith(f"| `{field}` |")
    ]
    assert said in row
