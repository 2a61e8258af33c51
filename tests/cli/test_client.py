import socket
import threading

import pytest

from sixfold.cli.client import ApiError, Client, NotRunningError, path_of
from sixfold.errors import HostError, ManifestError, UnavailableError


def test_steps_of_a_path_are_quoted():
    assert path_of("objects", "Pod", "a/b") == "/v1/objects/Pod/a%2Fb"


def test_a_cluster_scoped_name_has_a_dash_for_its_namespace(agent):
    agent.answers["GET /v1/objects/Namespace/-/shop"] = {"items": [{}]}
    assert Client(agent.path).objects("Namespace", "", "shop") == [{}]


def test_errors_carry_the_status_and_the_problems(agent):
    client = Client(agent.path)
    with pytest.raises(ApiError) as refused:
        client.get("/v1/nowhere")
    assert refused.value.status == 404
    problem = {"source": "a.yaml", "line": 3, "path": "spec", "message": "no"}
    agent.answers["POST /v1/apply"] = (422, {"error": {"message": "m", "problems": [problem]}})
    with pytest.raises(ManifestError, match=r"^a\.yaml:3: spec: no$"):
        client.post("/v1/apply", {})


def test_nobody_there_is_told_from_an_agent_that_went_away(tmp_path):
    path = tmp_path / "api.sock"
    with pytest.raises(NotRunningError):
        Client(path).get("/v1/status")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    with pytest.raises(NotRunningError):  # bound, but nobody listens: left by a crash
        Client(path).get("/v1/status")
    listener.listen()

    def hang_up() -> None:
        listener.accept()[0].close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    with pytest.raises(UnavailableError, match="went away"):
        Client(path).get("/v1/status")
    thread.join()
    with pytest.raises(UnavailableError, match="no answer in 0 s"):
        Client(path, timeout_s=0.05).get("/v1/status")
    listener.close()


@pytest.mark.parametrize("name", ["file/api.sock", "long" * 40])
def test_a_path_that_cannot_be_a_socket_is_named(name, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=name):
        Client(tmp_path / name).get("/v1/status")


def test_an_agent_that_dies_in_the_middle_of_a_stream_is_no_silent_end(tmp_path):
    path = tmp_path / "api.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def die() -> None:
        peer = listener.accept()[0]
        peer.recv(4096)
        peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
        peer.close()

    thread = threading.Thread(target=die)
    thread.start()
    lines = []
    with (
        pytest.raises(UnavailableError, match="went away"),
        Client(path).stream("/v1/flows") as (_, answer),
    ):
        lines.extend(answer)
    thread.join()
    listener.close()


def test_a_stream_ends_when_the_agent_ends_it(agent):
    agent.answers["GET /v1/flows"] = b"one\ntwo\n"
    with Client(agent.path).stream("/v1/flows", {"last": 2}) as (_, lines):
        assert list(lines) == [b"one\n", b"two\n"]
    assert agent.last().params == {"last": "2"}
