"""A file that was changed since it was read is told as such, whatever it holds now."""

import pytest

from finfluence.errors import DataError
from finfluence.ingest import read, reread
from four_parts import assert_parts


@pytest.mark.parametrize("added", ["5,a\n", "1,2,3,4\n", '"never closed'])
def test_a_changed_file_is_told_before_it_is_read(added, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,label\n" + "1,a\n2,b\n" * 5)
    source = read(path, target="label").source
    path.write_text(path.read_text() + added)
    with pytest.raises(DataError) as caught:
        reread(source)
    assert_parts(caught.value, "with the content it had", "SHA-256", "changed since", "restore the file")
