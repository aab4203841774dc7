from __future__ import annotations

import pytest

from deepstab.errors import DataError, one_line


def test_an_error_is_one_line_whatever_a_file_is_called(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught, one_line():
        raise DataError("a\nb \x1b[31m \udcff é.mp4: no video")
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: a\\nb \\x1b[31m \\udcff é.mp4: no video\n"
