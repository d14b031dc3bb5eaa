"""Laws of reading tars: what tarfile reads, with plain headers and any others."""

import io
import tarfile

import pytest

from depthkit.errors import ShardError
from depthkit.shards.reading import read_shard

SAMPLES = 5


def write(path, *, form=tarfile.USTAR_FORMAT, key="s{}", folders=False, end=True):
    with tarfile.open(path, "w", format=form) as tar:
        for n in range(SAMPLES):
            if folders:
                folder = tarfile.TarInfo(f"f{n}")
                folder.type = tarfile.DIRTYPE
                tar.addfile(folder)
            for name in ("image.jpg", "meta.json"):
                member = tarfile.TarInfo(f"{key.format(n)}.{name}")
                member.size = 300 * n + len(name)
                tar.addfile(member, io.BytesIO(bytes([n]) * member.size))
        last = tar.offset
    if not end:
        with path.open("r+b") as file:
            file.truncate(last)
    return str(path)


def read(url, first=0, stop=SAMPLES, **options):
    return list(read_shard(url, first, stop, total=SAMPLES, **options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"end": False},
        {"form": tarfile.PAX_FORMAT},
        {"form": tarfile.GNU_FORMAT, "key": "x" * 110 + "{}"},
        {"form": tarfile.PAX_FORMAT, "key": "é" * 90 + "{}"},
        {"form": tarfile.USTAR_FORMAT, "key": "x" * 80 + "/" + "y" * 70 + "{}"},
        {"folders": True},
    ],
    ids=["plain", "without an end", "pax", "long names", "other letters", "prefix", "folders"],
)
def test_any_tar_reads_from_any_sample_on(tmp_path, options):
    url = write(tmp_path / "train-000000.tar", **options)
    for first in (0, 1, SAMPLES - 1):
        raws = read(url, first)
        assert [raw.key for raw in raws] == [options.get("key", "s{}").format(n) for n in range(first, SAMPLES)]
        for n, raw in enumerate(raws, first):
            assert raw.members == {name: bytes([n]) * (300 * n + len(name)) for name in ("image.jpg", "meta.json")}
            assert raw.problem is None


def test_what_is_not_wanted_is_not_read(tmp_path):
    url = write(tmp_path / "train-000000.tar")
    assert [list(raw.members) for raw in read(url, wanted=lambda name: name == "meta.json")] == [["meta.json"]] * SAMPLES


@pytest.mark.parametrize("lost", [0, 100, 700])
@pytest.mark.parametrize("wanted", [True, False])
def test_a_truncated_tar_is_no_whole_tar(tmp_path, lost, wanted):
    path = tmp_path / "train-000000.tar"
    url = write(path, end=False)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 512 - lost)
    with pytest.raises(ShardError, match=r"expected .* to be a whole tar; after 4 samples|expected 5 samples"):
        read(url, wanted=lambda name: wanted)


def test_damaged_headers_and_other_counts_are_told(tmp_path):
    path = tmp_path / "train-000000.tar"
    url = write(path)
    with pytest.raises(ShardError, match=r"expected 6 samples .* got 5"):
        list(read_shard(url, 0, 6, total=6))
    with pytest.raises(ShardError, match=r"expected 4 samples .* got more, beginning with s4"):
        list(read_shard(url, 0, 4, total=4))
    content = bytearray(path.read_bytes())
    content[2048 + 5] ^= 1  # in the name of the third member: its sum is wrong now
    path.write_bytes(content)
    with pytest.raises(ShardError, match=r"expected 5 samples .* got 1"):
        read(url)
    path.write_bytes(b"no tar")
    with pytest.raises(ShardError, match="whole tar"):
        read(url)
