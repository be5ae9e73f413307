"""Who may ask the hub: names, pages, cookies, tokens, scopes; over real sockets."""

import json

import pytest
from hub_server import raw, running, send
from legacy_client import BROWSER, LegacyClient

from raeburnmemory.errors import InvalidInput, StoreCorrupt
from raeburnmemory.hub.server import Credentials
from raeburnmemory.hub.server.running import checked_origin

EXTENSION = "moz-extension://0e7f3c1a-1111-2222-3333-444455556666"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with running(tmp_path_factory.mktemp("hub"), trusted=["http://localhost:1234"]) as found:
        found.hub.projects.create("A")
        yield found


def page(hub, **more):
    """Return the headers of a call that the page of the hub makes."""
    return {**BROWSER, "Cookie": hub.cookie(), **more}


def names(hub, headers, **more):
    return send(hub.port, "GET", "/api/v1/list_projects", headers, **more).status


def routes(hub):
    """Return every method and path that the application answers, with something in place of its parameters."""
    document = send(hub.port, "GET", "/openapi.json").json()
    for path, methods in document["paths"].items():
        filled = path.replace("{project_id}", "1").replace("{path}", "A/x")
        while "{" in filled:
            filled = filled[: filled.index("{")] + "x" + filled[filled.index("}") + 1 :]
        for method in methods:
            yield method.upper(), filled


def test_every_route_wants_to_know_who_asks(hub):
    seen = list(routes(hub))
    assert len(seen) > 45
    open_to_all = {("GET", "/api/v1/health"), ("POST", "/api/v1/pair")}
    for method, path in seen:
        if (method, path) in open_to_all:
            continue
        for headers in (
            {},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer "},
            {"Authorization": f"Basic {hub.token}"},
            {"Authorization": f"Bearer {hub.token[:-1]}"},
            {"Authorization": f"Bearer {hub.token}x"},
            {"Authorization": "Bearer \xe9"},
            {"X-Api-Key": hub.token},
            {"Cookie": f"raeburn_hub_{hub.port}={hub.token}"},
        ):
            # A body is announced and never sent: the answer comes before anybody reads it.
            answer = send(hub.port, method, path, {"Content-Type": "application/json", "Expect": "x", **headers})
            assert answer.status == 401, (method, path, headers)
            assert answer.headers["www-authenticate"] == "Bearer"
    for method, path in open_to_all:
        assert send(hub.port, method, path).status != 401


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/",
        "/api/v1/nothing",
        "/v1/nothing",
        "/files/x",
        "/memory/graph",
        "/api/v1/list_projects/",
        "/metrics",
    ],
)
def test_what_is_not_there_is_closed_as_well(hub, path):
    assert send(hub.port, "GET", path, {"Accept": "text/html"}).status == 401
    assert hub.ask("GET", path).status in {200, 404}


@pytest.mark.parametrize("path", ["//api/v1/list_projects", "/API/v1/list_projects", "/x/../api/v1/list_projects"])
def test_other_spellings_lead_to_no_route(hub, path):
    answer = send(hub.port, "GET", path)
    assert answer.status == 404
    assert b"projects" not in answer.body


@pytest.mark.parametrize(
    "host",
    ["evil.test", "evil.test:4444", "192.168.1.2", "localhost.evil.test", "localhost:x", "localhost:123456", "0.0.0.0", "",
     "127.0.0.1.evil.test", "[::2]", "testserver", "xlocalhost"],
)  # fmt: skip
def test_other_names_are_refused(hub, host):
    for path in ("/", "/api/v1/health", "/api/v1/list_projects", "/openapi.json"):
        assert send(hub.port, "GET", path, {"Authorization": f"Bearer {hub.token}"}, host=host).status == 403


def test_a_request_has_one_name(hub):
    for hosts in (b"", b"Host: localhost\r\nHost: localhost\r\n", b"Host: localhost\r\nHost: evil.test\r\n"):
        sent = b"GET /api/v1/health HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n"
        assert raw(hub.port, sent).split()[1] == b"400"


@pytest.mark.parametrize("host", ["LocalHost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "localhost"])
def test_its_own_names_are_known(hub, host):
    answer = send(hub.port, "GET", "/api/v1/health", host=host.format(port=hub.port))
    assert answer.json() == {"status": "ok"}


def test_it_listens_on_both_addresses_of_this_machine(hub):
    try:
        answer = send(hub.port, "GET", "/api/v1/health", address="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert answer.status == 200


def test_the_cookie_is_good_from_the_page_alone(hub):
    own = f"http://localhost:{hub.port}"
    good = page(hub)
    assert names(hub, good) == 200
    assert names(hub, {**good, "Origin": own}) == 200
    assert names(hub, {"Cookie": good["Cookie"], "Origin": own}) == 200  # a browser without Sec-Fetch-Site
    assert names(hub, {"Cookie": good["Cookie"]}) == 401
    for site in ("cross-site", "same-site", "none", ""):
        assert names(hub, {**good, "Sec-Fetch-Site": site}) == 401, site
    for origin in ("null", "http://localhost", "http://localhost:1", f"https://localhost:{hub.port}", "http://evil.test",
                   f"http://localhost:{hub.port}.evil.test", f"http://127.0.0.1:{hub.port}", f"{own}/"):  # fmt: skip
        assert names(hub, {**good, "Origin": origin}) == 401, origin
    other = good["Cookie"].replace(f"_{hub.port}=", "_1=")
    assert names(hub, {**good, "Cookie": other}) == 401
    assert names(hub, {**good, "Cookie": f"a=b; {good['Cookie']}; c=d"}) == 200


def test_a_page_under_a_number_is_another_site_and_gets_nothing(hub):
    # What the original's client does when it is opened at http://127.0.0.1:PORT, as a browser sends it.
    headers = {**BROWSER, "Origin": f"http://127.0.0.1:{hub.port}", "Sec-Fetch-Site": "cross-site"}
    assert names(hub, headers) == 401


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "[::1]:{port}", "127.0.0.1"])
def test_pages_under_a_number_are_opened_under_the_name(hub, host):
    given = host.format(port=hub.port)
    port = given.rpartition(":")[2] if given.endswith(str(hub.port)) else ""
    headers = {"Accept": "text/html,application/xhtml+xml"}
    for path in ("/", "/projects/1", "/models?x=%20y", "//evil.test/x"):
        answer = send(hub.port, "GET", path, headers, host=given)
        assert answer.status == 307
        assert answer.headers["location"] == f"http://localhost{':' + port if port else ''}{path}"


def test_one_code_lets_one_browser_in(hub):
    code = hub.access.credentials.new_code(long=True)
    headers = {"Accept": "text/html"}
    assert send(hub.port, "HEAD", f"/?code={code}", headers).status == 200  # whoever looks at links spends no code
    answer = send(hub.port, "GET", f"/projects/1?code={code}&a=b", headers)
    assert answer.status == 303
    assert answer.headers["location"] == "/projects/1?a=b"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"raeburn_hub_{hub.port}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    mine = LegacyClient(hub.port, cookie.partition(";")[0])
    assert [one["name"] for one in mine.list_projects()] == ["A"]
    again = send(hub.port, "GET", f"/?code={code}", headers)
    assert again.status == 200
    assert "set-cookie" not in again.headers
    assert "set-cookie" not in send(hub.port, "GET", "/?code=wrong", headers).headers
    evil = hub.access.credentials.new_code(long=True)
    assert send(hub.port, "GET", f"//evil.test/?code={evil}", headers).headers["location"] == "/evil.test/"


def test_pages_of_others_can_neither_spend_nor_try_codes(hub):
    code = hub.access.credentials.new_code(long=True)
    image = {
        "Accept": "image/*",
        "Sec-Fetch-Mode": "no-cors",
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Dest": "image",
    }
    assert "set-cookie" not in send(hub.port, "GET", f"/?code={code}", image).headers
    for number in range(30):
        assert send(hub.port, "GET", f"/?code={'x' * 31}{number % 10}", {"Accept": "text/html"}).status == 200
    short = hub.access.credentials.new_code()
    assert "set-cookie" not in send(hub.port, "GET", f"/?code={short}", {"Accept": "text/html"}).headers
    asked = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}
    assert "set-cookie" in send(hub.port, "GET", f"/?code={code}", asked).headers


def test_a_cookie_is_no_token_and_a_token_no_cookie(hub):
    secret = hub.cookie().partition("=")[2]
    assert names(hub, {"Authorization": f"Bearer {secret}"}) == 401
    assert names(hub, {**BROWSER, "Cookie": f"raeburn_hub_{hub.port}={hub.token}"}) == 401


def test_tokens_can_be_taken_back(hub):
    token, cookie = hub.token_for("read"), hub.cookie()
    known = hub.ask("GET", "/api/v1/tokens").json()["tokens"]
    assert all("digest" not in one and token not in str(one) for one in known)
    for one in known[-2:]:
        assert hub.ask("DELETE", f"/api/v1/tokens/{one['id']}").status == 200
        assert hub.ask("DELETE", f"/api/v1/tokens/{one['id']}").status == 404
    assert names(hub, {"Authorization": f"Bearer {token}"}) == 401
    assert names(hub, {**BROWSER, "Cookie": cookie}) == 401


SCOPED = {
    "read": [("GET", "/api/v1/list_projects", None), ("POST", "/v1/recall", {"query": "x"})],
    "write": [("POST", "/api/v1/create_project?project_name=B", None), ("POST", "/v1/interactions", {"prompt": "x"})],
    "models": [("POST", "/api/v1/stop_llamafile?llamafile_filename=x", None)],
    "admin": [("GET", "/api/v1/tokens", None), ("POST", "/api/v1/create_project_directory?project_id=1&path=/x", None)],
}


@pytest.mark.parametrize("scope", SCOPED)
def test_a_token_does_what_its_scopes_say(hub, scope):
    token = hub.token_for(scope)
    for other, calls in SCOPED.items():
        for method, path, body in calls:
            status = hub.ask(method, path, body, token=token).status
            assert status in ({200, 201} if other == scope else {403}), (method, path)


def test_pairing(hub):
    made = hub.ask("POST", "/api/v1/pair/codes", {"scopes": ["read"]}).json()
    body = json.dumps({"code": made["code"].lower().replace("-", " "), "name": "An extension"}).encode()
    kind = {"Content-Type": "application/json"}
    for origin in ("http://evil.test", "null", "https://localhost"):
        assert send(hub.port, "POST", "/api/v1/pair", {**kind, "Origin": origin}, body).status == 403
    answer = send(hub.port, "POST", "/api/v1/pair", {**kind, "Origin": EXTENSION}, body)
    assert answer.status == 201
    token = answer.json()["token"]
    assert answer.json()["scopes"] == ["read"]
    assert send(hub.port, "POST", "/api/v1/pair", {**kind, "Origin": EXTENSION}, body).status == 403  # good once
    bearer = {"Authorization": f"Bearer {token}"}
    assert names(hub, bearer) == 200
    answer = send(hub.port, "GET", "/api/v1/list_projects", {**bearer, "Origin": EXTENSION})
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == EXTENSION
    assert "access-control-allow-credentials" not in answer.headers
    for origin in ("moz-extension://another", "http://evil.test", "null"):
        answer = send(hub.port, "GET", "/api/v1/list_projects", {**bearer, "Origin": origin})
        assert answer.status == 403
        assert "access-control-allow-origin" not in answer.headers
    asked = {"Origin": EXTENSION, "Access-Control-Request-Method": "POST"}
    assert send(hub.port, "OPTIONS", "/api/v1/capture", asked).status == 204
    assert send(hub.port, "OPTIONS", "/api/v1/capture", {**asked, "Origin": "http://evil.test"}).status == 401


def test_a_trusted_origin_may_use_the_originals_calls_and_no_others(hub):
    headers = {"Origin": "http://localhost:1234", "Sec-Fetch-Site": "same-site"}
    answer = send(hub.port, "GET", "/api/v1/list_projects", headers)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "http://localhost:1234"
    assert send(hub.port, "POST", "/api/v1/create_project?project_name=C", headers).status == 200
    for path in ("/api/v1/tokens", "/v1/stats", "/files/A/x", "/api/v1/info"):
        assert send(hub.port, "GET", path, headers).status == 401
    for origin in ("http://localhost:1235", "http://localhost:1234.evil.test", "https://localhost:1234"):
        assert names(hub, {"Origin": origin}) == 401


def test_the_original_clients_can_be_let_in_without_a_token(tmp_path):
    with running(tmp_path, legacy_open=True) as hub:
        assert names(hub, {}) == 200  # curl, or a plugin
        assert send(hub.port, "POST", "/api/v1/create_project?project_name=C").status == 200
        assert names(hub, {"Origin": "http://evil.test"}) == 401
        assert names(hub, {"Sec-Fetch-Site": "cross-site"}) == 401  # an image on a page sends no Origin
        assert names(hub, {}, host="evil.test") == 403
        assert send(hub.port, "GET", "/v1/stats").status == 401


def test_a_token_of_the_environment_may_do_everything(tmp_path):
    with running(tmp_path, fixed="a-long-random-text-of-letters") as hub:
        bearer = {"Authorization": "Bearer a-long-random-text-of-letters"}
        assert send(hub.port, "GET", "/api/v1/tokens", bearer).status == 200
        assert send(hub.port, "GET", "/api/v1/tokens", {**bearer, "Origin": "http://evil.test"}).status == 403
        assert send(hub.port, "GET", "/api/v1/tokens", {"Authorization": "Bearer a-long-random-text"}).status == 401


def test_wrong_codes_are_few(tmp_path):
    with running(tmp_path) as hub:
        body = json.dumps({"code": "AAAAA-AAAAA", "name": "x"}).encode()
        headers = {"Content-Type": "application/json"}
        statuses = [send(hub.port, "POST", "/api/v1/pair", headers, body).status for _ in range(12)]
        assert statuses == [403] * 10 + [429] * 2


def test_bodies_have_limits(hub):
    bearer = f"Authorization: Bearer {hub.token}\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for path, length, status in [
        ("rag_ask", 1 << 21, b"413"),
        ("upload_file", (100 << 20) + 1, b"413"),
        ("rag_ask", "x", b"400"),
    ]:
        sent = f"POST /api/v1/{path} HTTP/1.1\r\n{bearer}Content-Length: {length}\r\n\r\n".encode()
        assert raw(hub.port, sent).split()[1] == status
    deep = b'{"project_id": 1, "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for path in ("/api/v1/rag_ask", "/api/v1/pair", "/v1/recall"):
        headers = {"Authorization": f"Bearer {hub.token}", "Content-Type": "application/json"}
        assert send(hub.port, "POST", path, headers, deep).status in {400, 422}


def test_sockets_of_the_web_are_refused(hub):
    sent = (
        f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {hub.token}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert raw(hub.port, sent.encode(), 5).split()[1] != b"101"


def test_the_page_may_load_nothing_from_elsewhere(hub):
    answer = send(hub.port, "GET", "/", {"Accept": "text/html"})
    rules = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert rules["default-src"] == rules["script-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["object-src"] == rules["base-uri"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


# --- the file of codes and tokens -------------------------------------------------------------------------------


def test_secrets_are_in_no_file(tmp_path):
    path = tmp_path / "sub" / "access.json"
    credentials = Credentials(path)
    code = credentials.new_code(["read"])
    long = credentials.new_code(long=True)
    secret, made = credentials.redeem(long, "x")
    text = path.read_text()
    assert not any(word in text for word in (code, code.replace("-", ""), long, secret))
    assert path.stat().st_mode & 0o077 == 0
    assert Credentials(path).find(secret) == made  # another process
    assert credentials.find("") is credentials.find("x") is None


def test_codes_end(tmp_path, monkeypatch):
    credentials = Credentials(tmp_path / "access.json")
    code = credentials.new_code(minutes=1.0)
    other = Credentials(tmp_path / "access.json")
    now = __import__("time").time()
    monkeypatch.setattr("raeburnmemory.hub.server.credentials.time.time", lambda: now + 61)
    assert credentials.redeem(code, "x") is None
    assert other.redeem(code, "x") is None


def test_a_damaged_file_lets_nobody_in(tmp_path):
    path = tmp_path / "access.json"
    for text in ("", "{}", "[]", '{"format": 2, "codes": {}, "tokens": {}}'):
        path.write_text(text)
        with pytest.raises(StoreCorrupt):
            Credentials(path).find("x")
        with pytest.raises(StoreCorrupt):
            Credentials(path).new_code()
        assert path.read_text() == text


@pytest.mark.parametrize(
    "text", ["*", "null", "localhost:1", "http://", "http://a b", "http://a/", "http://a,http://b", ""]
)
def test_an_origin_is_one(text):
    with pytest.raises(InvalidInput):
        checked_origin(text)
    assert checked_origin(" HTTP://Localhost:1 ") == "http://localhost:1"
