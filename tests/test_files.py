"""Files written whole or not at all, on a disk that is full in the middle."""

import os
import stat
import subprocess
import sys

import pytest

from rvpo import ConfigError
from rvpo.files import replaced, write_whole

FULL = """
import resource, sys
from rvpo.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
sys.exit(main(sys.argv[1:]))
"""
"""A command on a disk with room for 4096 bytes a file; run with -B, or it leaves broken bytecode of ours there."""


@pytest.mark.parametrize("option", ["--html", "--json"])
def test_a_full_disk_leaves_the_report_of_before(tmp_path, option):
    report = tmp_path / "report"
    report.write_text("of before")
    words = ["audit", "--example", option, str(report)]
    ended = subprocess.run([sys.executable, "-B", "-c", FULL, *words], capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr == f"rvpo: error: cannot write {report}: File too large\n"
    assert report.read_text() == "of before"
    assert list(tmp_path.iterdir()) == [report]


def test_a_disk_that_is_full_is_one_error():
    with pytest.raises(ConfigError, match="cannot write /dev/full: No space left on device"):
        write_whole("/dev/full", "x")


def test_what_fails_in_the_middle_leaves_nothing(tmp_path):
    def rows():
        yield b"half"
        raise KeyError

    with pytest.raises(KeyError), replaced(tmp_path / "new" / "file") as stream:
        stream.writelines(rows())
    assert list((tmp_path / "new").iterdir()) == []


def test_the_file_that_a_link_names_is_replaced_and_keeps_its_mode(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("before")
    file.chmod(0o640)
    link.symlink_to(file)
    write_whole(link, "caf\u00e9")
    assert link.is_symlink()
    assert file.read_bytes() == "caf\u00e9".encode()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, b"abc")
    assert os.read(reader, 10) == b"abc"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_place_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "report.html"):
        with pytest.raises(ConfigError, match=f"cannot write {place}: "):
            write_whole(place, "x")
