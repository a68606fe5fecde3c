from __future__ import annotations

from tagseg.formats.folders.class_folders import rows_of_class_folders


def test_the_first_folder_is_the_tag():
    rows = rows_of_class_folders(["cat/a", "dog/more/a", "loose"])
    assert [(row.image, row.tags) for row in rows] == [
        ("cat/a", ("cat",)),
        ("dog/more/a", ("dog",)),
        ("loose", ()),
    ]
    assert not any(row.complete for row in rows)
