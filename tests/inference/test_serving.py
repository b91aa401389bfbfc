"""The server: answers for pictures, a clear line for everything else, and nothing for other sites."""

import base64
import io
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import uvicorn
from PIL import Image, PngImagePlugin
from starlette import testclient

from cifar10.inference.loading import load
from cifar10.inference.serving import connections
from cifar10.inference.serving.app import Server
from cifar10.inference.serving.batching import LARGEST
from tests.conftest import PROJECT

MOST = 100_000  # bytes of a picture
FORM = b"--a\r\nContent-Disposition: form-data; name=file; filename=x\r\n\r\nx\r\n--a--\r\n"


@pytest.fixture(scope="module")
def server(model):
    return Server([model], top=3, max_bytes=MOST)


@pytest.fixture(scope="module")
def client(server):
    with testclient.TestClient(server.app(any_host=False), base_url="http://127.0.0.1:8000") as client:
        yield client


@pytest.fixture(scope="module")
def answer(model, photo):
    """What the model says of the photo."""
    square = model.read(photo)
    probabilities = model.probabilities(square[None])[0].tolist()
    best = sorted(zip(model.class_names, probabilities, strict=True), key=lambda pair: -pair[1])[:3]
    return [{"class": name, "probability": pytest.approx(probability, abs=1e-5)} for name, probability in best]


def test_a_picture_as_the_body_or_in_a_form_has_an_answer(client, photo, answer, model):
    for sent in ({"content": photo}, {"files": {"file": ("IMG (1).png", photo)}}):
        response = client.post("/predict", **sent)
        assert response.status_code == 200
        [run] = response.json()["runs"]
        assert run == {"run": model.name, "predictions": answer, "calibration": model.calibration}


def test_an_explanation_comes_with_the_picture_as_the_network_sees_it(client, photo, model):
    pytest.importorskip("captum")
    [run] = client.post("/predict?explain=true", content=photo).json()["runs"]
    seen, explanation = (opened(run[key]) for key in ("seen", "explanation"))
    assert np.array_equal(np.asarray(seen), model.read(photo).permute(1, 2, 0).numpy())
    assert explanation.size == (224, 224)


def opened(url):
    kind, _, data = url.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_several_runs_answer_side_by_side(model, fine_tuned, photo):
    other = load(fine_tuned, device="cpu")
    client = testclient.TestClient(Server([model, other], 1, MOST).app(False), base_url="http://localhost")
    runs = client.post("/predict", content=photo).json()["runs"]
    assert [run["run"] for run in runs] == [model.name, other.name]
    assert [run["run"] for run in client.get("/health").json()["runs"]] == [model.name, other.name]


def png_header(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def zip_bomb():
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(50_000_000))
    return file.getvalue()


def text_bomb():
    """A picture with 80 MB of compressed text, of which Pillow reads a little."""
    about = PngImagePlugin.PngInfo()
    about.add(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000), 9))
    Image.new("RGB", (8, 8)).save(file := io.BytesIO(), "PNG", pnginfo=about)
    return file.getvalue()


def encoded(file_format="PNG", size=(64, 64)):
    Image.effect_noise(size, 50).convert("RGB").save(file := io.BytesIO(), file_format)
    return file.getvalue()


HOSTILE = {
    "text": b"nonsense",
    "zeros": bytes(5000),
    "HTML": b"<!doctype html><script>alert(1)</script>",
    "SVG with a script": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "a zip bomb": zip_bomb(),
    "50,000 x 50,000 pixels in the header": png_header(50_000, 50_000),
    "no pixels": png_header(0, 0),
    "a PNG without pixels": png_header(64, 64),
    "a truncated JPEG": encoded("JPEG")[:500],
    "a truncated PNG": encoded()[:800],
    "a truncated WEBP": encoded("WEBP")[:200],
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "EPS that runs a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(%pipe%touch x) (w) file\n",
    "a text bomb": text_bomb(),
    "an ELF program": b"\x7fELF" + bytes(100),
}


@pytest.mark.promise("hostile files")
@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_picture_is_refused_in_a_line(client, photo, content, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32_000_000)
    for sent in ({"content": content}, {"files": {"file": content}}):
        response = client.post("/predict", **sent)
        assert response.status_code == 422 and response.json()["error"].startswith("this picture cannot be read: ")
        assert "\n" not in response.json()["error"]
    assert client.post("/predict", content=photo).status_code == 200


@pytest.mark.promise("hostile files")
@pytest.mark.parametrize(("sent", "status", "words"), [
    ({"content": b""}, 400, "no picture"),
    ({"data": {"file": "text"}}, 422, "cannot be read"),
    ({"files": {"other": b"x"}}, 400, "no picture"),
    ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "cannot be read"),
    ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=a"}}, 400, "cannot be read"),
    ({"content": FORM, "headers": {"content-type": "multipart/form-data; boundary=a; charset=undefined"}}, 400,
     "cannot be read"),
    ({"files": [("file", b"a"), ("file", b"b")]}, 400, "cannot be read"),
    ({"content": bytes(MOST + 1)}, 413, "larger than 0.1 MB"),
    ({"files": {"file": bytes(MOST + 1)}}, 413, "larger than 0.1 MB"),
    ({"content": iter([bytes(MOST)] * 50)}, 413, "larger than 0.1 MB"),
], ids=["empty", "a field", "another field", "no boundary", "no form", "no charset",
        "two files", "large", "a large form",
        "chunks"])  # fmt: skip
def test_a_bad_request_is_answered_in_a_line(client, sent, status, words):
    response = client.post("/predict", **sent)
    assert (response.status_code, list(response.json())) == (status, ["error"]) and words in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/predict", 405), ("GET", "/x", 404), ("PUT", "/", 405)]
)
def test_other_paths_and_methods_are_answered_in_a_line(client, method, path, status):
    response = client.request(method, path)
    assert response.status_code == status and list(response.json()) == ["error"]


@pytest.mark.promise("hostile files")
@pytest.mark.parametrize("headers", [
    {"host": "evil.example"}, {"host": "evil.example:8000"}, {"host": "127.0.0.1.evil.example"}, {"host": ""},
    {"host": "[::1"}, {"origin": "http://["}, {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:9000"},
    {"host": "localhost:8000", "origin": "http://evil.example:8000"},
])  # fmt: skip
def test_pages_of_other_sites_are_not_served(client, photo, headers):
    for response in (client.post("/predict", content=photo, headers=headers), client.get("/", headers=headers)):
        assert response.status_code == 403 and list(response.json()) == ["error"]


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "127.0.0.1:1234"])
def test_this_machine_is_served_under_each_of_its_names(client, photo, host):
    headers = {"host": host, "origin": f"http://{host}"}
    assert client.post("/predict", content=photo, headers=headers).status_code == 200


def test_opened_to_other_machines_it_is_still_not_for_other_sites(model, photo):
    client = testclient.TestClient(Server([model], 1, MOST).app(any_host=True), base_url="http://192.168.1.5:8000")
    assert client.post("/predict", content=photo).status_code == 200
    assert client.post("/predict", content=photo, headers={"origin": "http://evil.example"}).status_code == 403


def test_the_page_needs_nothing_from_elsewhere(client):
    response = client.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "unsafe" not in policy
    assert "http://" not in response.text.replace("http://HOST", "") and "https://" not in response.text


def test_the_page_says_where_a_picture_goes(model):
    for any_host, words in (
        (False, "It stays on this machine."),
        (True, "It goes to the machine that serves this page"),
    ):
        with testclient.TestClient(Server([model], 1, MOST).app(any_host), base_url="http://127.0.0.1") as client:
            assert words in client.get("/").text


@pytest.mark.promise("hostile files")
@pytest.mark.parametrize("slow", [b"\0" * 1_500_000, encoded("PNG", (2100, 2000))], ids=["bytes", "pixels"])
def test_what_may_take_long_to_decode_is_not_waited_for(model, photo, slow):
    server = Server([model], 1, 20_000_000)
    begun, end, original = threading.Event(), threading.Event(), server.decode

    def decode(content):
        if content == slow:
            begun.set()
            assert end.wait(60)
        return original(content)

    server.decode = decode
    with (
        testclient.TestClient(server.app(False), base_url="http://127.0.0.1") as client,
        ThreadPoolExecutor(8) as pool,
    ):
        waiting = [pool.submit(client.post, "/predict", content=slow) for _ in range(8)]
        try:
            assert begun.wait(60)
            assert client.post("/predict", content=photo).status_code == 200
            assert not any(one.done() for one in waiting)
        finally:
            end.set()
        assert {one.result().status_code for one in waiting} <= {200, 422}


@pytest.mark.promise("hostile files")
def test_connections_that_ask_for_nothing_are_closed(server, monkeypatch):
    monkeypatch.setattr(connections, "SECONDS", 0.2)
    config = uvicorn.Config(server.app(False), http=connections.Impatient, log_config=None, log_level="critical")
    running = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=running.run, args=[[listening]], daemon=True)
        thread.start()
        with socket.create_connection(listening.getsockname(), timeout=20) as client:
            ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
            client.sendall(ask)
            answer = b""
            while not answer.endswith(b"]}"):
                answer += client.recv(10_000)
            client.sendall(ask[:20])  # the head of a second request, never to be finished
            assert client.recv(10_000) == b"", "closed"
        running.should_exit = True
        thread.join(20)


@pytest.mark.promise("same answers")
def test_what_comes_at_once_is_answered_in_batches_and_each_gets_its_own(model, server):
    pictures = [encoded(size=(20 + n, 30)) for n in range(40)]
    expected = [model.probabilities(model.read(picture)[None])[0].max().item() for picture in pictures]
    sizes, original = [], server.batchers[0].probabilities

    def noted(images):
        if not sizes:
            time.sleep(1)  # meanwhile the others wait
        sizes.append(len(images))
        return original(images)

    server.batchers[0].probabilities = noted
    with (
        testclient.TestClient(server.app(False), base_url="http://127.0.0.1") as client,
        ThreadPoolExecutor(40) as pool,
    ):
        responses = list(pool.map(lambda picture: client.post("/predict", content=picture), pictures))
    server.batchers[0].probabilities = original
    found = [response.json()["runs"][0]["predictions"][0]["probability"] for response in responses]
    assert found == pytest.approx(expected, abs=1e-5)
    assert sum(sizes) == 40 and 1 < max(sizes) <= LARGEST


def test_a_bug_is_one_answer_and_not_the_end(model, photo):
    server = Server([model], 1, MOST)
    original = server.batchers[0].probabilities
    server.batchers[0].probabilities = lambda images: 1 / 0
    options = {"base_url": "http://127.0.0.1", "raise_server_exceptions": False}
    with testclient.TestClient(server.app(False), **options) as client:
        response = client.post("/predict", content=photo)
        assert response.status_code == 500 and list(response.json()) == ["error"]
        server.batchers[0].probabilities = original
        assert client.post("/predict", content=photo).status_code == 200


def test_nothing_is_written_to_disk(model, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", lambda *_: pytest.fail("it goes to the disk"))
    monkeypatch.setattr("tempfile._TemporaryFileWrapper", lambda *_: pytest.fail("it goes to the disk"))
    noise = encoded("PNG", (1200, 1200))
    assert len(noise) > 1 << 20, "from which starlette writes to the disk"
    with testclient.TestClient(Server([model], 1, 10_000_000).app(False), base_url="http://127.0.0.1") as client:
        assert client.post("/predict", files={"file": noise}).status_code == 200
    assert not list(tmp_path.iterdir())


def test_ctrl_c_ends_the_server_at_once(evaluated, photo, tmp_path):
    """The whole command: it says where it is served, answers there, and ends without a traceback."""
    shutil.copytree(evaluated, tmp_path / "run")
    command = [sys.executable, "-m", "cifar10", "serve", "run=run", "port=0"]
    environment = {"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as process:  # fmt: skip
        threading.Timer(120, process.kill).start()
        lines = []
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", lines[-1] if lines else "")):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        for _ in range(50):
            try:
                request = urllib.request.Request(f"{found[0]}predict", data=photo)
                assert b"predictions" in urllib.request.urlopen(request, timeout=10).read()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail("it does not answer")
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=20)[0]
    assert process.returncode in (0, 130) and "Traceback" not in rest


@pytest.mark.promise("bad inputs")
@pytest.mark.parametrize(("argument", "words"), [
    ("port=99999", "must be from 0"), ("port=x", "a whole number"), ("host=no.such.host.example", "host=no.such.host"),
    ("top=0", "at least 1"), ("max_bytes=0", "at least 1"), ("max_pixels=0", "at least 1"), ("run=none", "not a run's"),
])  # fmt: skip
def test_a_mistake_is_one_line(command, evaluated, argument, words):
    run = [] if argument.startswith("run") else [f"run={evaluated}"]
    assert command("cifar10/__main__.py", "serve", *run, argument) == 1
    assert words in command.err and len(command.err.splitlines()) == 1


def test_a_port_in_use_is_one_line_with_another(command, evaluated):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert command("cifar10/__main__.py", "serve", f"run={evaluated}", f"port={port}") == 1
    taken_already = f"error: host=127.0.0.1 port={port}: Address already in use; try another port"
    assert command.err.startswith(taken_already) and len(command.err.splitlines()) == 1
