import json
import os
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest

from mergelib.fingerprints import file_digest


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "not" / "there" / "yet"


def truth(path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def remembered(cache):
    return list((cache / "fingerprints").iterdir())


def poison(cache) -> None:
    """Have the cache remember what is not so: whoever returns it has not read the file."""
    (note,) = remembered(cache)
    note.write_text(json.dumps(json.loads(note.read_text()) | {"sha256": "remembered"}))


def test_without_a_cache_nothing_is_written(file):
    assert file_digest(file) == truth(file)
    assert list(file.parent.iterdir()) == [file]


def test_a_file_is_read_once(file, cache):
    assert file_digest(file, cache) == truth(file)
    poison(cache)
    assert file_digest(file, cache) == "remembered"
    assert list(file.parent.iterdir()) == [file]


def test_a_link_is_the_file_that_it_leads_to(file, cache, tmp_path):
    """The hub's folders are links into a store."""
    link = tmp_path / "link.safetensors"
    link.symlink_to(file)
    file_digest(file, cache)
    poison(cache)
    assert file_digest(link, cache) == "remembered"


@pytest.mark.parametrize("change", ["size", "mtime_ns", "inode"])
def test_a_changed_file_is_read_again(change, file, cache):
    file_digest(file, cache)
    poison(cache)
    before = file.stat()
    match change:
        case "size":
            file.write_bytes(b"more weights")
        case "mtime_ns":
            file.write_bytes(b"WEIGHTS")
        case "inode":
            other = file.with_name("other")
            other.write_bytes(b"WEIGHTS")
            other.replace(file)
    later = before.st_mtime_ns + (1 if change == "mtime_ns" else 0)
    os.utime(file, ns=(before.st_atime_ns, later))
    assert file_digest(file, cache) == truth(file)
    assert file_digest(file, cache) == truth(file)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"{}", b'{"size": 7}'])
def test_a_damaged_cache_is_mended(content, file, cache):
    file_digest(file, cache)
    (note,) = remembered(cache)
    note.write_bytes(content)
    assert file_digest(file, cache) == truth(file)
    poison(cache)
    assert file_digest(file, cache) == "remembered"


def test_a_digest_that_is_no_text_is_not_believed(file, cache):
    file_digest(file, cache)
    (note,) = remembered(cache)
    note.write_text(json.dumps(json.loads(note.read_text()) | {"sha256": 1}))
    assert file_digest(file, cache) == truth(file)


def test_many_at_once(file, cache):
    files = [file.with_name(f"{number}") for number in range(4)]
    for number, path in enumerate(files):
        path.write_bytes(bytes([number]) * 1000)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: file_digest(path, cache), files * 8))
    assert found == [truth(path) for path in files * 8]
    assert len(remembered(cache)) == 4


def test_a_name_that_is_no_text(tmp_path, cache):
    path = tmp_path / os.fsdecode(b"caf\xe9.safetensors")
    path.write_bytes(b"weights")
    assert file_digest(path, cache) == truth(path)
    poison(cache)
    assert file_digest(path, cache) == "remembered"
