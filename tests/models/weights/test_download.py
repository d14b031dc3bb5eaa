"""Downloads: what goes wrong is one sentence and leaves no file; what is in the cache is checked."""

import socketserver
import threading

import pytest

from depthkit.errors import CheckpointError
from depthkit.models import from_pretrained
from depthkit.models.weights import download
from depthkit.models.weights.download import fetch

MONO = "monodepth2_mono_640x192"


@pytest.mark.parametrize("trouble", ["checksum", "cut", "absent", "gone", "offline"])
def test_a_download_that_fails_is_one_sentence_and_leaves_nothing(trouble, serve, server, tmp_path, monkeypatch):
    serve(MONO, b"0" * 5000, **({"checksum": "md5:12"} if trouble == "checksum" else {}))
    if trouble == "cut":
        server.cut.add("/mono_640x192.zip")
    elif trouble == "absent":
        server.files.clear()
    elif trouble == "gone":
        server.shutdown()
        server.server_close()
    elif trouble == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = {"checksum": "its checksum is not md5:12", "cut": "2500 of 5000 bytes", "absent": "404"}
    with pytest.raises(CheckpointError, match=words.get(trouble, "expected")) as error:
        from_pretrained(MONO, cache_dir=tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_first_download_is_recorded_and_checked_afterwards(server, tmp_path):
    server.files["/a.pth"] = b"weights"
    path = fetch(f"{server.address}/a.pth", cache_dir=tmp_path)
    assert fetch(f"{server.address}/a.pth", cache_dir=tmp_path) == path
    assert server.asked == ["/a.pth"]
    path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="it is another file, or damaged"):
        fetch(f"{server.address}/a.pth", cache_dir=tmp_path)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(server, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    server.files["/a.pth"] = b"weights"
    monkeypatch.setattr(download.tqdm, "update", full)  # after a part was written
    with pytest.raises(CheckpointError, match="No space left on device") as error:
        fetch(f"{server.address}/a.pth", cache_dir=tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_server_that_does_not_speak_http_is_one_sentence(tmp_path):
    class Mail(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(1000)
            self.request.sendall(b"220 a mail server\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Mail) as mail:
        threading.Thread(target=mail.handle_request, daemon=True).start()
        with pytest.raises(CheckpointError, match=r"expected to download .*220 a mail server"):
            fetch(f"http://127.0.0.1:{mail.server_address[1]}/a.pth", cache_dir=tmp_path)


def test_a_file_in_a_cache_that_cannot_be_written_to_serves(tmp_path, monkeypatch):
    (tmp_path / "a.pth").write_bytes(b"weights")

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "write_text", refused)
    assert fetch("http://127.0.0.1/a.pth", cache_dir=tmp_path).read_bytes() == b"weights"
